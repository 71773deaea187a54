"""Which sockets can be read: one epoll for all connections of a worker, asked by one task.

trio's own `wait_readable` costs a system call, a task switch and some allocations each time, for every chunk. Here a
socket is registered once and its callback runs in the loop of one task, so that a receive costs the receive.

What a callback does at once is bounded. Who has received more than that asks to be called `again`: in the next round,
after everybody else.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from itertools import islice

import trio

AT_ONCE = 32
"""Callbacks before other tasks get their turn; each takes about a millisecond at most."""


class Poller:
    """Calls back whoever can be read, level-triggered: again and again while something is left to read.

    Callbacks are synchronous, raise nothing, and do little enough at once that the others get their turn.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._again: dict[int, Callable[[], None]] = {}
        """Those who have received more than they could do in their turn, in the order in which they asked."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Written when somebody asks while `run` waits for sockets: nothing new may ever come on any of them."""
        self._epoll.register(self._wake, select.EPOLLIN)
        self._ready[self._wake] = self._woken
        self._is_waiting = False

    def watch(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        """Call `ready` while the socket can be read, its end and its errors included. Once at a time per socket. When
        `run` has ended, nobody is called any more."""
        if self._epoll.closed:
            return
        number = sock.fileno()
        self._epoll.register(number, select.EPOLLIN)
        self._ready[number] = ready

    def again(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        """Call `ready` in the next round, whether or not there is something new to be read."""
        if self._epoll.closed:
            return
        self._again[sock.fileno()] = ready
        if self._is_waiting:
            self._is_waiting = False
            os.eventfd_write(self._wake, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def ignore(self, sock: socket.socket) -> None:
        """Call no more for this socket, watched or not. Comes before the socket is closed."""
        number = sock.fileno()
        self._again.pop(number, None)
        if self._ready.pop(number, None) is not None and not self._epoll.closed:
            self._epoll.unregister(number)

    async def run(self) -> None:
        """The owning task; ends when cancelled, with the epoll."""
        try:
            with self._epoll:
                while True:
                    if self._again:
                        await trio.lowlevel.checkpoint()
                    else:
                        self._is_waiting = True
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                        self._is_waiting = False
                    self._round()
        finally:
            os.close(self._wake)

    def _round(self) -> None:
        """Call those who can be read, then those who asked for it in earlier rounds: each once, `AT_ONCE` of either."""
        waiting = list(islice(self._again.items(), AT_ONCE))
        for number, _ in self._epoll.poll(0, AT_ONCE):
            ready = self._ready.get(number)
            # None: an earlier callback of this round had it ignored. In `_again`: its turn comes there.
            if ready is not None and number not in self._again:
                ready()
        for number, ready in waiting:
            if self._again.pop(number, None) is not None:
                ready()
