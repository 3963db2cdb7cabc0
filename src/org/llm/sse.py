"""Server-sent events: bytes in, payloads out. Pure.

Splits on the bytes LF, CRLF and CR only. Text-level line splitting also breaks on U+2028, U+0085
and their kin, which are legal inside a JSON string and do occur in model output.
"""

from org.errors import StreamBroken

LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of one line, above which the stream is given up as broken."""


class Splitter:
    """Collects `data:` fields into payloads, one per event.

    Comments (`: ping`), `event:`, `id:` and `retry:` carry nothing that a chat completion needs.
    Each byte is looked at once, however the stream is cut.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of the line that has not ended yet
        self._rest_size = 0
        self._data: list[bytes] = []  # data fields of the event that has not ended yet
        self._after_cr = False  # the last byte was CR: a LF that follows belongs to it
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes. Raises `StreamBroken` on a line over the limit."""
        data = self._normalise(data)
        if b"\n" not in data:
            self._rest.append(data)
            self._rest_size += len(data)
            if self._rest_size > LINE_LIMIT:
                raise StreamBroken(f"the server sent a line of more than {LINE_LIMIT} bytes")
            return []
        lines = (b"".join(self._rest) + data).split(b"\n")
        rest = lines.pop()
        self._rest, self._rest_size = [rest], len(rest)
        payloads = []
        pending = self._data
        for line in lines:
            if line[:5] == b"data:":
                pending.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and pending:
                payloads.append(pending[0] if len(pending) == 1 else b"\n".join(pending))
                pending.clear()
        return payloads

    def finish(self) -> list[bytes]:
        """What a stream that ends without its last blank line still held."""
        return self.feed(b"\n\n")

    def _normalise(self, data: bytes) -> bytes:
        if not self._started and data:
            self._started = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data
