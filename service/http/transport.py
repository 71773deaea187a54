"""How bytes come and go: what a connection asks of its socket, in clear or with TLS."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

import trio

from ingest.handshakes import Handshakes, NoHandshake, Outcome
from ingest.tls import TlsWire, Wire
from service.http.refusals import Refused

UNSENT_BYTES = 256 * 1024
"""What the kernel takes of an answer before it was sent (TCP_NOTSENT_LOWAT). So what a slow reader makes us hold is
held, and charged, where it can be seen, and his pace can be measured. Large enough for a gigabit between two wakes."""
SEND_BYTES = 1024 * 1024
"""Handed to the kernel at once."""
TLS_REQUIRED = (
    "this port speaks TLS: use https://. A token or password that was sent in clear may have been read on its way: have"
    " a new one made"
)
_RESET = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The client has left, or can't be reached any more."""


class Transport(Protocol):
    """The bytes of one client."""

    is_tls: bool

    async def open(self) -> tuple[str, int] | None:
        """Do what comes before the first byte of a request. Returns whose connection it is, where a proxy said so by
        the PROXY protocol. Raises `Gone`, and `Refused` for who can be told why."""
        ...

    async def receive(self, max_bytes: int) -> bytes:
        """What has come, at most so much; b"" when the client sends no more. Raises `Gone`."""
        ...

    async def send_some(self, data: memoryview) -> int:
        """Send some of `data`, at least one byte; wait until that can be done. Returns how many were sent.

        Raises `Gone`. A cancelled call has sent nothing.
        """
        ...

    def end_sending(self) -> None:
        """Tell the client that nothing more comes."""
        ...

    def close(self) -> None:
        """End it. What the kernel has taken is still sent."""
        ...

    def reset(self) -> None:
        """End it at once: what the kernel holds is given up with it."""
        ...


class TcpTransport:
    """A `Transport` over a socket: in clear, or with TLS once `open` has made the handshake.

    Args:
        handshakes: of this port; None: it is in clear.
    """

    def __init__(self, sock: socket.socket, handshakes: Handshakes | None = None, address: str = "") -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._sock = sock
        self._wire: Wire = sock
        self._handshakes = handshakes
        self._address = address
        self.is_tls = False

    async def open(self) -> tuple[str, int] | None:
        if self._handshakes is None or not self._handshakes.is_needed(self._address):
            return None
        try:
            wire, peer = await self._handshakes.shake(self._sock, self._address)
        except NoHandshake as none:
            if none.outcome is Outcome.PLAIN:
                raise Refused(400, "tls_required", TLS_REQUIRED) from none
            raise Gone from none
        if wire is not None:
            self._wire = wire
            self.is_tls = True
        return (peer.address, peer.port) if peer.address else None

    async def receive(self, max_bytes: int) -> bytes:
        while True:
            try:
                if not isinstance(self._wire, TlsWire):
                    return self._sock.recv(max_bytes)
                view = memoryview(bytearray(max_bytes))
                return bytes(view[: self._wire.recv_into(view, max_bytes)])
            except BlockingIOError:
                if isinstance(self._wire, TlsWire) and self._wire.pending():
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                raise Gone from error

    async def send_some(self, data: memoryview) -> int:
        while True:
            try:
                if sent := self._wire.send(data[:SEND_BYTES]):
                    return sent
            except BlockingIOError:
                pass
            except OSError as error:
                raise Gone from error
            await trio.lowlevel.wait_writable(self._sock)

    def end_sending(self) -> None:
        try:
            self._wire.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Gone from error

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()

    def reset(self) -> None:
        if self._sock.fileno() >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()
