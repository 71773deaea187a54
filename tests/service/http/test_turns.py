"""Requests under way are shared out among clients, and one that asks much is not everybody's speed."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ingest.framing import wrong_beginning
from ingest.heads import Malformed
from service.http import framing
from service.http.heads import RequestHead
from service.http.turns import TURN_S, Turn, Turns
from tests.service.http.served import GET, answer, lifespan, read_until, serving, until


async def _take(turns: Turns, client: str, got: list[Turn]) -> None:
    got.append(await turns.take(client))


async def test_a_client_has_its_share_and_a_newcomer_never_waits() -> None:
    turns = Turns(8, 0.5)
    got: list[Turn] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        for _ in range(10):
            nursery.start_soon(_take, turns, "many", got)
        await wait_all_tasks_blocked()
        assert len(got) == 4  # half of 8
        for client in ("a", "b", "c", "d", "e", "f"):
            with trio.fail_after(1):
                assert (await turns.take(client)).client == client
        turns.back(got[0])
        await wait_all_tasks_blocked()
        assert len(got) == 4  # the others left less of it meanwhile
        nursery.cancel_scope.cancel()


async def test_whose_client_has_least_goes_first_and_nothing_is_lost_by_a_cancelled_one() -> None:
    turns = Turns(4, 1.0)
    held = [await turns.take("many") for _ in range(4)]
    one = await turns.take("one")
    got: list[Turn] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        nursery.start_soon(_take, turns, "many", got)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as given_up:
            given_up.cancel()
            await turns.take("many")
        nursery.start_soon(_take, turns, "one", got)
        await wait_all_tasks_blocked()
        turns.back(one)
        turns.back(one)
        await wait_all_tasks_blocked()
        assert [turn.client for turn in got] == ["one"]
        for turn in held[:2]:
            turns.back(turn)
        await wait_all_tasks_blocked()
        assert [turn.client for turn in got] == ["one", "many"]
        nursery.cancel_scope.cancel()


async def test_a_request_that_waits_for_something_else_keeps_no_turn(autojump_clock: MockClock) -> None:
    turns = Turns(2, 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        slow = await turns.take("a")
        before_s = trio.current_time()
        second = await turns.take("a")
        assert TURN_S <= trio.current_time() - before_s < 2 * TURN_S
        turns.back(slow)  # it ended long ago: the other's is not given back by that
        with trio.move_on_after(TURN_S / 2) as patience:
            await turns.take("a")
        assert patience.cancelled_caught
        turns.back(second)
        nursery.cancel_scope.cancel()


class Counting:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.under_way = 0
        self.may_answer = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        self.under_way += 1
        await self.may_answer.wait()
        self.under_way -= 1
        await answer(send, b"done")


async def test_one_client_has_so_many_requests_under_way() -> None:
    app, connections = Counting(), 12
    async with serving(app, requests_at_once=8) as server:
        streams = [await trio.open_tcp_stream(*server.address) for _ in range(connections)]
        for stream in streams:
            await stream.send_all(GET)
        await until(lambda: app.under_way == 4 and server.connections == connections)
        app.may_answer.set()
        for stream in streams:
            assert b"done" in await read_until(stream, b"done")
            await stream.aclose()


class AtOnce:
    """Answers without a pause."""

    def __init__(self) -> None:
        self.answered = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        self.answered += 1
        await answer(send, b"done")


async def test_who_asks_on_many_connections_has_no_turn_for_each() -> None:
    """One round of the loop answered a request of each connection, however many a client has."""
    app = AtOnce()
    async with serving(app, requests_at_once=8) as server:
        streams = [await trio.open_tcp_stream(*server.address) for _ in range(40)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, GET * 200)
        in_rounds = []
        while app.answered < 40:  # until then nobody may have been heard yet
            before = app.answered
            await trio.lowlevel.checkpoint()
            in_rounds.append(app.answered - before)
        assert max(in_rounds) <= 4, in_rounds
        for stream in streams:
            await stream.aclose()


class Looking:
    """Asks what is wrong with the beginning of a head, and counts the bytes that it was shown."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, data: bytearray, known_bytes: int, end: int) -> Malformed | None:
        self.bytes += end - known_bytes
        return wrong_beginning(data, known_bytes, end)


def test_heads_that_came_at_once_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was searched with all that came behind it: 216 us for a head of 480 in one receive, and 25 now."""
    looking = Looking()
    monkeypatch.setattr(framing, "wrong_beginning", looking)
    framer = framing.Framer(16 * 1024)
    framer.feed(GET * 480)
    heads = 0
    while isinstance(framer.next(), RequestHead):
        heads += 1
        framer.begin_next()
    assert heads == 480
    assert framer.next() is framing.Need.DATA
    assert 0 < looking.bytes <= len(GET * 480)
