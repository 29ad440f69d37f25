"""A client for the Network Block Device protocol over a Unix socket: reading only.

After doc/proto.md of the NBD project: fixed newstyle handshake with NBD_OPT_GO, simple replies.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

_MAGIC, _OPTION_MAGIC, _REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST_MAGIC, _SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
_OPT_GO = 7
_REP_ACK, _REP_INFO = 1, 3
_INFO_EXPORT = 0
_READ, _DISCONNECT = 0, 2
_PIECE = 8 << 20


class NbdError(OSError):
    """The server did not do what the protocol says, or refused."""


class NbdClient:
    """One connection to one export. ``size`` is the export's, in bytes."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._cookie = 0
        try:
            self._socket.connect(str(path))
            self.size = self._handshake()
        except BaseException:
            self._socket.close()
            raise

    def _receive(self, count: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < count:
            piece = self._socket.recv(min(count - len(pieces), 1 << 20))
            if not piece:
                raise NbdError("the NBD server closed the connection")
            pieces += piece
        return bytes(pieces)

    def _handshake(self) -> int:
        magic, option, flags = struct.unpack(">QQH", self._receive(18))
        if magic != _MAGIC or option != _OPTION_MAGIC or not flags & 1:
            raise NbdError("not an NBD server of the newstyle protocol")
        self._socket.sendall(struct.pack(">I", 1))
        # the default export, no wishes
        data = struct.pack(">IH", 0, 0)
        self._socket.sendall(struct.pack(">QII", _OPTION_MAGIC, _OPT_GO, len(data)) + data)
        size: int | None = None
        while True:
            reply, _, kind, length = struct.unpack(">QIII", self._receive(20))
            if reply != _REPLY_MAGIC or length > 1 << 16:
                raise NbdError("a broken reply of the NBD server")
            body = self._receive(length)
            if kind == _REP_INFO and length >= 12 and struct.unpack_from(">H", body)[0] == _INFO_EXPORT:
                (size,) = struct.unpack_from(">Q", body, 2)
            elif kind == _REP_ACK:
                break
            elif kind & 0x80000000:
                raise NbdError(f"the NBD server refused: {body.decode(errors='replace')}")
        if size is None:
            raise NbdError("the NBD server did not say how large the export is")
        return size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, fewer only at the end of the export."""
        length = max(0, min(length, self.size - offset))
        pieces = []
        while length > 0:
            count = min(length, _PIECE)
            pieces.append(self._read(offset, count))
            offset += count
            length -= count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, offset: int, count: int) -> bytes:
        self._cookie += 1
        self._socket.sendall(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, _READ, self._cookie, offset, count))
        magic, error, cookie = struct.unpack(">IIQ", self._receive(16))
        if magic != _SIMPLE_REPLY_MAGIC or cookie != self._cookie:
            raise NbdError("a broken reply of the NBD server")
        if error:
            raise NbdError(error, f"the image cannot be read at {offset:#x}")
        return self._receive(count)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        self._socket.close()
