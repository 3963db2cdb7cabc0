"""Requests that the way to the model server must not let through."""

from __future__ import annotations

import base64
import json
import re
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.intruder.basics import FELL, HELD, UNKNOWN, Finding, Given
else:  # sent along with this part
    from basics import FELL, HELD, UNKNOWN, Finding, Given

_ASKED_S = 8.0
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_MOST = 262_144


def http(given: Given) -> Finding:
    """Bytes of a request, as they are. What the relay itself says no to did not get through; of a
    request that it may let through (`allowed`) the other side sees where it arrived."""
    host, port = given["host"], given["port"]
    try:
        said = _asked(host, port, given["request"].encode("latin-1"))
    except OSError as error:
        return UNKNOWN, f"{host} port {port}: {error.strerror or error}"
    answers = [int(code) for code in _STATUS.findall(said)]
    seen = base64.b64encode(said[:16_384]).decode()
    if not answers:
        return HELD, "hung up", seen
    last = answers[-1]
    if given.get("allowed") and len(answers) == 1:
        return HELD, f"{last}, and nothing arrived elsewhere", seen
    if last == 503 or (last == 502 and b'"refused"' not in said):
        return UNKNOWN, f"{last}: {_reason(said)}", seen
    # 502 of the relay: it would have gone on, had anybody been there.
    if 400 <= last < 500 and b'"type": "refused"' in said:
        return HELD, f"{last}: {_reason(said)}", seen
    if len(answers) == 1 and given.get("second"):
        return HELD, f"{last} for the first, none for the second", seen
    return FELL, f"{last} came back", seen


def _asked(host: str, port: int, request: bytes) -> bytes:
    """All that is said in answer, until there is nothing more for a while."""
    said = b""
    with socket.create_connection((host, port), timeout=_ASKED_S) as caller:
        caller.sendall(request)
        while len(said) < _MOST:
            try:
                data = caller.recv(65_536)
            except (TimeoutError, ConnectionError):
                break
            if not data:
                break
            said += data
    return said


def _reason(said: bytes) -> str:
    body = said.rpartition(b"\r\n\r\n")[2]
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return body[:80].decode("latin-1")


def model(given: Given) -> Finding:
    """The one request that is to be answered; `fell` says that it was, by the model server itself."""
    host, port = given["host"], given["port"]
    try:
        said = _asked(host, port, given["request"].encode("latin-1"))
    except OSError as error:
        return HELD, f"{host} port {port}: {error.strerror or error}"
    status = _STATUS.match(said)
    if status is None or b'"type": "refused"' in said:
        return HELD, _reason(said) if status else "no answer"
    return FELL, f"{status[1].decode()} from the model server", base64.b64encode(said[:16_384]).decode()
