"""Ways out by sockets. An answer is one, a refusal that came from elsewhere too, and so is anything sent:
only what the system in here refuses by itself did not get out."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.intruder.basics import FELL, HELD, Finding, Given
else:  # sent along with this part
    from basics import FELL, HELD, Finding, Given

_TCP_S = 2.0
_UDP_S = 1.0
_OWN_S = 10.0  # what is reached for sure may take its time, on a busy machine
# Errors that only somebody out there can have caused.
_ANSWERS = (errno.ECONNREFUSED, errno.ECONNRESET)
_NAME = b"\x07example\x03com\x00\x00\x01\x00\x01"
_QUESTIONS = {
    "dns": b"\x4f\x52\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + _NAME,
    "ntp": b"\x1b" + bytes(47),
    "quic": b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(8) + b"\x00\x00" + bytes(1184),
    "dhcp": b"\x01\x01\x06\x00org!"
    + bytes(2)
    + b"\x80\x00"
    + bytes(224)
    + b"\x63\x82\x53\x63\x35\x01\x01\xff",
    "ssdp": b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
    b"ST: ssdp:all\r\n\r\n",
    "text": b"a question",
}


def _family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _stopped(error: OSError, host: str) -> Finding:
    """What an error proves: a refusal from elsewhere came from somewhere."""
    if error.errno in _ANSWERS and not _loopback(host):
        return FELL, f"something there answered: {error.strerror}"
    return HELD, "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)


def tcp(given: Given) -> Finding:
    host, port = given["host"], given["port"]
    try:
        with socket.create_connection((host, port), timeout=given.get("wait_s", _TCP_S)):
            return FELL, f"connected to {host} port {port}"
    except OSError as error:
        return _stopped(error, host)


def udp(given: Given) -> Finding:
    host, port = given["host"], given["port"]
    with socket.socket(_family(host), socket.SOCK_DGRAM) as sender:
        sender.settimeout(given.get("wait_s", _UDP_S))
        try:
            sender.connect((host, port))
            sender.send(_QUESTIONS[given["question"]])
            sender.recv(2048)
        except TimeoutError:
            if _loopback(host):
                return HELD, "sent, and nothing came back"
            return FELL, "it was sent; nothing came back"
        except OSError as error:
            return _stopped(error, host)
    return FELL, f"{host} port {port} answered"


def everybody(given: Given) -> Finding:
    """A datagram to all that are near: there need not be an answer."""
    host, port = given["host"], given["port"]
    with socket.socket(_family(host), socket.SOCK_DGRAM) as sender:
        try:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(_QUESTIONS[given["question"]], (host, port))
        except OSError as error:
            return HELD, error.strerror or str(error)
    return FELL, "it was sent"


def icmp(given: Given) -> Finding:
    """An echo request, by a raw socket, or by the kind for which nobody needs rights."""
    host, last = given["host"], "no socket for it"
    inet, protocol = (_family(host), 58 if ":" in host else socket.IPPROTO_ICMP)
    request = struct.pack("!BBHHH", 128 if ":" in host else 8, 0, 0, os.getpid() & 0xFFFF, 1)
    request = request[:2] + struct.pack("!H", _sum(request)) + request[4:]
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        try:
            with socket.socket(inet, kind, protocol) as sender:
                sender.settimeout(given.get("wait_s", _UDP_S))
                sender.sendto(request, (host, 0))
                try:
                    sender.recv(2048)
                except TimeoutError:
                    return FELL, "it was sent; nothing came back"
                return FELL, f"{host} answered"
        except OSError as error:
            last = error.strerror or str(error)
    return HELD, last


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return int(~((total >> 16) + total) & 0xFFFF)


def packet(given: Given) -> Finding:
    """A frame on each network device itself, which no firewall of addresses sees."""
    devices = given.get("devices") or [name for _, name in socket.if_nameindex() if name != "lo"]
    if not devices:
        return HELD, "no device but lo"
    arp = b"\xff" * 6 + b"\x02org!!" + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04\x00\x01" + bytes(20)
    last = ""
    for device in devices:
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((device, 0))
                sender.send(arp)
        except OSError as error:
            last = f"{device}: {error.strerror or error}"
            continue
        return FELL, f"a frame left by {device}"
    return HELD, last


def interfaces(given: Given) -> Finding:
    names = sorted(name for _, name in socket.if_nameindex())
    others = [name for name in names if name not in ("lo", "sit0", "tunl0", "ip6tnl0")]
    if others:
        return FELL, f"there is {', '.join(others)}"
    return HELD, f"only {', '.join(names) or 'none'}"


def routes(given: Given) -> Finding:
    """No address beyond the loopback may have a route."""

    def find(host: str) -> Callable[[], None]:
        def connect() -> None:
            with socket.socket(_family(host), socket.SOCK_DGRAM) as sender:
                sender.connect((host, 9))  # sends nothing

        return connect

    for host in ("192.0.2.1", "2001:db8::1"):  # of nobody, so only a route for all leads there
        try:
            find(host)()
        except OSError:
            continue
        return FELL, f"there is a way to {host}"
    return HELD, "no way beyond the loopback"


def resolve(given: Given) -> Finding:
    try:
        found = socket.getaddrinfo(given["host"], 443)
    except OSError as error:
        return HELD, error.strerror or str(error)
    return FELL, f"it is {found[0][4][0]}"


def unix(given: Given) -> Finding:
    """An abstract socket: such a name belongs to a network namespace, not to a folder."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(_TCP_S)
            caller.connect("\0" + given["unix"])
    except OSError as error:
        return HELD, error.strerror or str(error)
    return FELL, "connected to an abstract socket of the host"


def vsock(given: Given) -> Finding:
    """Sockets between a machine and its host, at each of some ports."""
    last = ""
    for port in given["ports"]:
        try:
            with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as caller:
                caller.settimeout(_TCP_S)
                caller.connect((given["cid"], port))
        except OSError as error:
            if error.errno in _ANSWERS and given["cid"] != 1:
                return FELL, f"something there answered: {error.strerror}"
            last = error.strerror or str(error)
            continue
        return FELL, f"connected to {given['cid']} port {port}"
    return HELD, last


def _answering(kind: int, answer: bytes) -> tuple[int, socket.socket]:
    """A listener in here, in a process of its own, that answers the first who asks; its port."""
    listener = socket.socket(socket.AF_INET, kind)
    listener.bind(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    if kind == socket.SOCK_STREAM:
        listener.listen()
    if os.fork() == 0:
        try:
            listener.settimeout(_OWN_S)
            _answer_once(listener, answer)
        finally:
            os._exit(0)
    return port, listener


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    if listener.type == socket.SOCK_DGRAM:
        _, whom = listener.recvfrom(4096)
        listener.sendto(answer, whom)
        return
    talk, _ = listener.accept()
    with talk:
        if answer:
            talk.recv(4096)
        talk.sendall(answer)


def reaches(prober: Callable[[Given], Finding], given: Given) -> Finding:
    """Whether a kind of attempt reaches what it should be able to: then what it does not reach is not
    to be had. `fell` is what is hoped for."""
    mine, given = given["own"], given | {"wait_s": _OWN_S}
    if mine == "unix":
        name = f"org-own-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind("\0" + name)
            listener.listen()
            return prober(given | {"unix": name})
    if mine in ("tcp", "udp", "http"):
        kind = socket.SOCK_DGRAM if mine == "udp" else socket.SOCK_STREAM
        page = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" if mine == "http" else b""
        )
        port, listener = _answering(kind, page or (b"x" if mine == "udp" else b""))
        with listener:
            return prober(given | {"host": "127.0.0.1", "port": port, "question": "text"})
    return prober(given)
