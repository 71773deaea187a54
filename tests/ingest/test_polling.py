"""One epoll for all connections."""

from __future__ import annotations

import socket

import trio
from trio.testing import wait_all_tasks_blocked

from ingest.polling import Poller


async def test_who_can_be_read_is_called_until_nothing_is_left_or_it_is_ignored(
    nursery: trio.Nursery,
) -> None:
    poller = Poller()
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    with ours, theirs:
        poller.watch(ours, lambda: got.append(ours.recv(1)))
        nursery.start_soon(poller.run)
        theirs.send(b"abc")
        with trio.fail_after(5):
            while len(got) < 3:  # noqa: ASYNC110
                await trio.sleep(0.001)
        poller.ignore(ours)
        poller.ignore(ours)
        theirs.send(b"d")
        await trio.sleep(0.01)
        assert got == [b"a", b"b", b"c"]
        nursery.cancel_scope.cancel()


async def test_after_its_end_watching_and_ignoring_are_harmless() -> None:
    """At the deadline of a stop the poller may end before the connections that let go of it."""
    poller = Poller()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.watch(ours, lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        poller.ignore(ours)
        poller.watch(ours, lambda: None)
        poller.ignore(ours)
