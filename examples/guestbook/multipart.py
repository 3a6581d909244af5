"""Forms with a file (RFC 7578), read as a stream: the parts come one after the other, and no part is held in memory."""

from email.message import Message

PIECE_BYTES = 64 * 1024
PART_HEADERS_BYTES_MAX = 8 * 1024


class BadForm(Exception):
    """The body is not what it should be, or was cut short."""


class Multipart:
    """Reads `body`, which ends by itself, as parts between boundaries. Take the parts in order, and read each before
    the next; what was left of it is skipped."""

    def __init__(self, body, content_type):
        header = Message()
        header["Content-Type"] = content_type
        boundary = header.get_param("boundary")
        if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or len(boundary) > 70:
            raise BadForm("expected multipart/form-data with a boundary")
        self._body = body
        self._edge = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._buffer = b"\r\n"  # The first boundary has no line before it.
        self._inside = True

    def parts(self):
        """Each part, as its name and an iterator over its bytes."""
        for _ in self._until_edge():
            pass
        while True:
            if self._take(2) == b"--":
                return
            name = self._headers()
            yield name, self._until_edge()
            for _ in self._until_edge():
                pass

    def _fill(self):
        piece = self._body.read1(PIECE_BYTES)
        if not piece:
            raise BadForm("it has no end")
        self._buffer += piece

    def _take(self, count):
        while len(self._buffer) < count:
            self._fill()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _headers(self):
        self._inside = True
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > PART_HEADERS_BYTES_MAX:
                raise BadForm("the headers of a part are too long")
            self._fill()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        header = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and name.lower() == "content-disposition":
                header["Content-Disposition"] = value.strip()
        name = header.get_param("name", header="content-disposition")
        return name if isinstance(name, str) else ""

    def _until_edge(self):
        """The bytes up to the next boundary, which is taken too. Nothing once that is behind us."""
        while self._inside:
            at = self._buffer.find(self._edge)
            if at >= 0:
                piece, self._buffer = self._buffer[:at], self._buffer[at + len(self._edge):]
                self._inside = False
            else:
                # The end of the buffer may be the beginning of a boundary.
                sure = len(self._buffer) - len(self._edge) + 1
                if sure <= 0:
                    self._fill()
                    continue
                piece, self._buffer = self._buffer[:sure], self._buffer[sure:]
            if piece:
                yield piece
