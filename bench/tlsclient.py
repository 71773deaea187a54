"""What a load generator does with a socket, over TLS: whole pieces are encrypted in memory and sent in one call.

An SSLSocket would send each record of 16 KiB by a call of its own, and wake the server for each. Cameras do that;
a generator that is to load a server from one core cannot afford it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

PIECE_BYTES = 256 * 1024
"""Encrypted ahead of the socket: stays in the cache between the two."""
RECEIVE_BYTES = 64 * 1024


class Wire(Protocol):
    """What a load generator does with a connection: a non-blocking `socket.socket` is one, and `TlsClient`."""

    def send(self, data: bytes | memoryview, /) -> int: ...
    def sendmsg(self, buffers: Sequence[bytes | memoryview], /) -> int: ...
    def recv(self, bufsize: int, /) -> bytes: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def client_context(authority: str) -> ssl.SSLContext:
    """Of a client that trusts the certificates in this PEM file alone, and offers what OpenSSL does by itself."""
    return ssl.create_default_context(cafile=authority)


class TlsClient:
    """A connected socket after its handshake; it is to be made non-blocking then.

    Args:
        sock: connected, blocking with a timeout.

    Raises:
        OSError: no handshake; an `ssl.SSLError` is one.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._unsent = memoryview(b"")
        self._withheld = False
        """The last byte that was taken has not been told: the caller is to call again for what is unsent."""
        self._shake()

    def _shake(self) -> None:
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                data = self._sock.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionResetError("it ended in the handshake") from None
                self._incoming.write(data)
            else:
                self._sock.sendall(self._outgoing.read())
                return

    def cipher(self) -> str:
        """Version and cipher, as `TLSv1.3 TLS_AES_256_GCM_SHA384`."""
        found = self._ssl.cipher()
        return f"{self._ssl.version()} {found[0] if found else ''}"

    def send(self, data: bytes | memoryview, /) -> int:
        """Like a socket's: returns how much was taken, and BlockingIOError says none. Who has a rest calls again."""
        return self.sendmsg((data,))

    def sendmsg(self, buffers: Sequence[bytes | memoryview], /) -> int:
        """As `send`. Of each buffer up to `PIECE_BYTES` are encrypted, and all leaves in one call."""
        self._flush()
        known = taken = int(self._withheld)
        self._withheld = False
        for buffer in buffers:
            piece = memoryview(buffer)[known : known + PIECE_BYTES]
            if len(piece):
                self._ssl.write(piece)
                taken += len(piece)
            if known + len(piece) < len(buffer):
                break
            known = 0
        self._unsent = memoryview(self._outgoing.read())
        with suppress(BlockingIOError):
            self._flush()
        self._withheld = bool(self._unsent)
        return taken - self._withheld

    def _flush(self) -> None:
        """Raises BlockingIOError: some is left."""
        while self._unsent:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def recv(self, bufsize: int, /) -> bytes:
        """Return what has come, which may be more than `bufsize`; b"": the peer has ended. Raises BlockingIOError."""
        found = b""
        while True:
            try:
                data = self._ssl.read(bufsize)
            except ssl.SSLWantReadError:
                data = b""
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return found
            if data:
                found += data
                continue
            try:
                came = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                if found:
                    return found
                raise
            if not came:
                return found
            self._incoming.write(came)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """Without a word of TLS, as most clients go."""
        self._sock.close()
