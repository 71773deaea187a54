"""TLS of one connection, over our own receive: what a socket does, `recv_into`, `send` and `shutdown`, and `pending`.

OpenSSL reads and writes memory. A receive takes up to `PIECE_BYTES` into memory that all connections share, and whole
records of it are given to OpenSSL one by one: so what a connection keeps is the beginning of one record, what OpenSSL
reads and writes is shared as well, for both are empty between two calls, and who asks knows exactly whether something
can be read that no epoll announces. Synchronous; never blocks.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

RECORD_HEAD_BYTES: Final = 5
MAX_RECORD_BYTES: Final = RECORD_HEAD_BYTES + 16 * 1024 + 2048
"""RFC 5246 §6.2.3, the most that any version allows."""
PIECE_BYTES: Final = 128 * 1024
"""Most bytes of one receive: eight full records, which stay in the cache while they are decrypted."""
SCRATCH_BYTES: Final = PIECE_BYTES + MAX_RECORD_BYTES
SEND_BYTES: Final = 64 * 1024
"""Encrypted ahead of the socket, at most."""
UNSENT_BYTES: Final = 256 * 1024
"""A peer that has so much written to it and reads none of it ends: our answers to its messages of TLS itself."""
READS_AT_ONCE: Final = 256
"""Records of one `recv_into`: a peer may send a byte in each."""
HANDSHAKE_BYTES: Final = 64 * 1024
"""Most bytes that a client may send before its handshake is done; with a chain of its own it has some 5 kB."""
HANDSHAKE_RECORDS: Final = 16
"""Of a handshake, in one turn."""


class Wire(Protocol):
    """How bytes come and go: a non-blocking `socket.socket` is one, and `TlsWire`."""

    def recv_into(self, buffer: memoryview, nbytes: int, /) -> int: ...
    def send(self, data: bytes | bytearray | memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...


class Shared:
    """What the connections of one thread share: nothing stays here between two calls.

    So it stays in the cache, and no connection has memory for what it could send or be sent at most.
    """

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()


class TlsWire:
    """See the module docstring.

    Args:
        sock: non-blocking. It is not closed here.
        context: of the server.
        shared: with all others of this thread.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, shared: Shared) -> None:
        self._sock = sock
        self._scratch = shared.scratch
        self._incoming = shared.incoming
        self._outgoing = shared.outgoing
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._ssl_read: Callable[[int, memoryview], int] = self._ssl.read  # type: ignore[assignment]
        """With a buffer it returns how much it read."""
        self._kept = b""
        """Received and not given to OpenSSL: the beginning of a record, and what a full caller left."""
        self._at = 0
        """While a call runs: where in `scratch` the next record begins,"""
        self._end = 0
        """and where what was received ends."""
        self._drained = False
        """The last receive of this call had all that there was."""
        self._decrypted = False
        """OpenSSL holds bytes of a record that did not fit into what the caller gave."""
        self._whole = False
        """`_kept` has a whole record."""
        self._ended = False
        self._unsent = bytearray()
        self._withheld = False
        """The last byte of a `send` is on its way, and the caller was not told: it is to call again."""
        self.handshake_bytes = 0
        """Received before the handshake was done."""

    # --- the handshake ----------------------------------------------------------------------------------------

    def shake(self) -> bool:
        """Go on with the handshake, so far as a turn goes. Returns whether it is done.

        Raises:
            BlockingIOError: more has to come. OSError: it failed, or the peer ended.
        """
        self._begin()
        try:
            for _ in range(HANDSHAKE_RECORDS):
                try:
                    self._ssl.do_handshake()
                except ssl.SSLWantReadError:
                    self._write_out()
                else:
                    self._write_out()
                    return True
                if self.handshake_bytes > HANDSHAKE_BYTES:
                    raise ConnectionAbortedError("its handshake has too many bytes")
                if not self._feed(PIECE_BYTES):
                    if self._ended:
                        raise ConnectionAbortedError("it ended before its handshake was done")
                    raise BlockingIOError
                self.handshake_bytes += self._incoming.pending
        except ssl.SSLError:
            with suppress(OSError):
                self._write_out()  # the alert that says why
            raise
        finally:
            self._keep()
        return False

    def version(self) -> str:
        """Of the protocol, as TLSv1.3."""
        return self._ssl.version() or ""

    @property
    def resumed(self) -> bool:
        """The client had been here before: no key was signed."""
        return bool(self._ssl.session_reused)

    # --- reading ----------------------------------------------------------------------------------------------

    def recv_into(self, buffer: memoryview, nbytes: int, /) -> int:
        """Decrypt up to `nbytes` bytes into `buffer`. 0: the peer sends no more.

        Raises:
            BlockingIOError: nothing now; when `pending()`, in the next turn. OSError: the connection is at its end.
        """
        total = 0
        self._begin()
        try:
            for _ in range(READS_AT_ONCE):
                if not self._decrypted and not self._feed(nbytes - total):
                    break
                total += self._read(buffer[total:nbytes])
                if total == nbytes or self._ended:
                    break
        except OSError:
            with suppress(OSError):
                self._write_out()
            if not total:
                raise
            self._ended = True  # what was whole is whole
        finally:
            self._keep()
        if total:
            return total
        if self._ended:
            return 0
        raise BlockingIOError

    def pending(self) -> bool:
        """Whether the next `recv_into` has something without more being received."""
        return self._decrypted or self._whole

    @property
    def held_bytes(self) -> int:
        """Received and not read by the caller."""
        held = len(self._kept)
        return held + self._ssl.pending() if self._decrypted else held

    def forget(self) -> None:
        """Nothing more is read: let go of what is held."""
        self._kept = b""
        self._whole = self._decrypted = False
        self._ended = True

    def _read(self, view: memoryview) -> int:
        """What of a record was given to OpenSSL last. 0: it had none of the caller's bytes."""
        try:
            count = self._ssl_read(len(view), view)
        except ssl.SSLWantReadError:  # a message of TLS itself, which may have to be answered
            self._decrypted = False
            self._write_out()
            return 0
        except ssl.SSLZeroReturnError:
            count = 0
        if not count:
            self._ended = True
        self._decrypted = count == len(view) and self._ssl.pending() > 0
        return count

    def _begin(self) -> None:
        kept = self._kept
        self._at = 0
        self._end = len(kept)
        self._scratch[: self._end] = kept
        self._drained = False

    def _keep(self) -> None:
        """Take what is left out of the memory that all share.

        A record that was given is read as a whole, and an answer to it sent, in the same call. Were it not so, this
        connection would end, and no other would see a byte of it.
        """
        if self._incoming.pending:
            self._incoming.read()
            self._ended = True
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        at, end = self._at, self._end
        self._kept = bytes(self._scratch[at:end]) if at < end else b""
        self._whole = self._next_bytes() > 0

    def _next_bytes(self) -> int:
        """The length of the record that comes next; 0 when it is not whole. Of what is none, more than any has."""
        at, scratch = self._at, self._scratch
        if at < self._end and not 20 <= scratch[at] <= 24:
            return MAX_RECORD_BYTES + 1
        if self._end - at < RECORD_HEAD_BYTES:
            return 0
        length = RECORD_HEAD_BYTES + scratch[at + 3] * 256 + scratch[at + 4]
        return length if length <= self._end - at or length > MAX_RECORD_BYTES else 0

    def _feed(self, wanted: int) -> bool:
        """Give OpenSSL the next record, received first where that has to be. Returns whether there was one."""
        while not (length := self._next_bytes()):
            if self._drained or self._ended:
                return False
            self._receive(wanted)
        if length > MAX_RECORD_BYTES:
            raise ConnectionAbortedError("no record of TLS begins so, or it is longer than there are any")
        at = self._at
        self._incoming.write(self._scratch[at : at + length])
        self._at = at + length
        return True

    def _receive(self, wanted: int) -> None:
        """Receive so much as `wanted` bytes of the caller may be, and one record more."""
        scratch = self._scratch
        left = self._end - self._at
        if self._at:
            scratch[:left] = scratch[self._at : self._end]
        self._at, self._end = 0, left
        # Of a full record 1 in 700 bytes is TLS's own.
        most = min(PIECE_BYTES, wanted + wanted // 256 + RECORD_HEAD_BYTES + 64)
        try:
            received = self._sock.recv_into(scratch[left : left + most], most)
        except BlockingIOError:
            self._drained = True
            return
        self._end = left + received
        self._drained = received < most
        if not received:
            self._ended = True

    # --- writing ----------------------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview, /) -> int:
        """Encrypt and send some of `data`. Like a socket's, but that the rest has to be sent by further calls.

        Returns:
            Bytes sent. While what was encrypted has not left whole, one less than it was: so whoever has a rest calls
            again when the socket can be written.

        Raises:
            BlockingIOError: none now. OSError: the peer is gone.
        """
        if self._unsent and not self._write_out():
            raise BlockingIOError
        known = 1 if self._withheld else 0
        self._withheld = False
        piece = memoryview(data)[known : known + SEND_BYTES]
        if not len(piece):
            return known
        try:
            self._ssl.write(piece)
        except ssl.SSLError:
            self._outgoing.read()
            raise
        if self._write_out():
            return known + len(piece)
        self._withheld = True
        return known + len(piece) - 1

    @property
    def unsent_bytes(self) -> int:
        """Encrypted, and not taken by the socket."""
        return len(self._unsent)

    def write_out(self) -> bool:
        """Send what is encrypted. Returns whether that was all. Raises OSError: the peer is gone."""
        return self._write_out()

    def _write_out(self) -> bool:
        unsent = self._unsent
        if self._outgoing.pending:
            unsent += self._outgoing.read()
        if unsent:
            try:
                sent = self._sock.send(unsent)
            except BlockingIOError:
                sent = 0
            del unsent[:sent]
            if len(unsent) > UNSENT_BYTES:
                raise ConnectionAbortedError("it reads nothing of what it is told")
        return not unsent

    def shutdown(self, how: int, /) -> None:
        """Say that nothing more comes, and end the sending half."""
        with suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._write_out()
        self._sock.shutdown(how)
