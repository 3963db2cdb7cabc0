"""Server-sent events: bytes in, payloads out. Pure.

Splits on the bytes LF, CRLF and CR only. Text-level line splitting also breaks on U+2028, U+0085
and their kin, which are legal inside a JSON string and do occur in model output.
"""

from org.errors import StreamBroken

EVENT_LIMIT = 64 * 1024 * 1024
"""Bytes of one event, above which the stream is given up as broken."""
BOM = b"\xef\xbb\xbf"


class Splitter:
    """Collects `data:` fields into payloads, one per event.

    Comments (`: ping`), `event:`, `id:` and `retry:` carry nothing that a chat completion needs.
    Each byte is looked at once, however the stream is cut.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of the line that has not ended yet
        self._data: list[bytes] = []  # data fields of the event that has not ended yet
        self._size = 0  # bytes of both
        self._after_cr = False  # the last byte was CR: a LF that follows belongs to it
        self._first = True  # the first line may begin with a byte order mark

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes. Raises `StreamBroken` on an event over the limit."""
        if self._after_cr or b"\r" in data:
            data = self._normalise(data)
        if b"\n" not in data:
            self._rest.append(data)
            self._grow(len(data))
            return []
        lines = (b"".join(self._rest) + data).split(b"\n")
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(BOM)
        rest = lines.pop()
        self._rest = [rest]
        payloads = []
        pending = self._data
        for line in lines:
            if line[:5] == b"data:":
                pending.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and pending:
                payloads.append(pending[0] if len(pending) == 1 else b"\n".join(pending))
                pending.clear()
        if payloads or not pending:
            self._size = 0
        self._grow(len(data) if pending else len(rest))
        return payloads

    def finish(self) -> list[bytes]:
        """What a stream that ends without its last blank line still held."""
        return self.feed(b"\n\n")

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > EVENT_LIMIT:
            raise StreamBroken(f"the server sent an event of more than {EVENT_LIMIT} bytes")

    def _normalise(self, data: bytes) -> bytes:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data
