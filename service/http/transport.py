"""How bytes come and go: what a connection asks of its socket. TLS is another `Transport`."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

import trio

UNSENT_BYTES = 256 * 1024
"""What the kernel takes of an answer before it was sent (TCP_NOTSENT_LOWAT). So what a slow reader makes us hold is
held, and charged, where it can be seen, and his pace can be measured. Large enough for a gigabit between two wakes."""
SEND_BYTES = 1024 * 1024
"""Handed to the kernel at once."""
_RESET = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The client has left, or can't be reached any more."""


class Transport(Protocol):
    """The bytes of one client."""

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
    """A `Transport` in clear."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._sock = sock

    async def receive(self, max_bytes: int) -> bytes:
        while True:
            try:
                return self._sock.recv(max_bytes)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                raise Gone from error

    async def send_some(self, data: memoryview) -> int:
        while True:
            try:
                return self._sock.send(data[:SEND_BYTES])
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            except OSError as error:
                raise Gone from error

    def end_sending(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
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
