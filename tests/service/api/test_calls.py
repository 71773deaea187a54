"""Threads for calls that block are shared out among clients: no client's calls keep another's out."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from service.agreement import sessions
from service.api.calls import CLIENT, Calls
from service.playback import Refused
from tests.service.api.office import PASSWORD, add_owner
from tests.service.api.server import Server
from tests.service.world import World


class Crowd:
    """Clients that call, and what became of it."""

    def __init__(self, calls: Calls, kind: str) -> None:
        self._call: Callable[..., object] = getattr(calls, kind)
        self.go_on = threading.Event()
        self.done: list[str] = []
        self.refused: list[str] = []

    async def ask(self, client: str) -> None:
        CLIENT.set(client)
        try:
            await self._call(self._work, client)  # type: ignore[misc]
        except Refused:
            self.refused.append(client)

    def _work(self, client: str) -> None:
        assert self.go_on.wait(20)
        self.done.append(client)


@pytest.mark.parametrize("kind", ["run", "hash", "pay"])
def test_a_client_that_fills_the_queue_keeps_nobody_out(kind: str) -> None:
    """40 calls of one client: 1 under way, half of 8 places. Whoever comes then has a place, and its turn."""

    async def main() -> None:
        crowd = Crowd(
            Calls(threads=1, hash_threads=1, money_threads=1, openid_threads=1, most_waiting=8), kind
        )
        async with trio.open_nursery() as nursery:
            for client in [*["many"] * 40, "one", "another"]:
                nursery.start_soon(crowd.ask, client)
                await trio.testing.wait_all_tasks_blocked()
            assert crowd.refused == ["many"] * 35
            crowd.go_on.set()
        assert crowd.refused == ["many"] * 35
        assert crowd.done == ["many", "many", "one", "another", *["many"] * 3], "in turn"

    trio.run(main)


def test_a_provider_that_does_not_answer_keeps_nobody_from_another_one() -> None:
    """Four clients waited for it with all threads there are, and log-ins elsewhere waited behind them."""

    async def main() -> None:
        calls = Calls(
            threads=1, hash_threads=1, money_threads=1, openid_threads=4, providers=2, most_waiting=8
        )
        go_on, done = threading.Event(), list[str]()

        async def ask(provider: str, client: str) -> None:
            CLIENT.set(client)
            await calls.ask(provider, lambda: go_on.wait(20) if provider == "deaf" else None)
            done.append(provider)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(ask, "deaf", f"client {number}")
            with trio.fail_after(10):
                await ask("other", "client 9")
            assert done == ["other"]
            go_on.set()
        assert done == ["other", *["deaf"] * 4]

    trio.run(main)


async def test_one_provider_alone_has_all_threads() -> None:
    calls = Calls(threads=1, hash_threads=1, money_threads=1, openid_threads=3, most_waiting=0)
    together = threading.Barrier(3, timeout=20)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(calls.ask, "acme", together.wait)


@pytest.mark.parametrize("kind", ["run", "hash", "pay"])
def test_nobody_waits_for_a_turn_for_ever(kind: str) -> None:
    """A catalog that hangs: until then whoever had a place waited for all who were before him, one after the other."""

    async def main() -> None:
        calls = Calls(threads=1, hash_threads=1, money_threads=1, openid_threads=1, most_waiting=8, wait_s=20)
        crowd = Crowd(calls, kind)
        async with trio.open_nursery() as nursery:
            for client in ("one", "another", "a third"):
                nursery.start_soon(crowd.ask, client)
                await trio.testing.wait_all_tasks_blocked()
            clock.jump(19)
            await trio.testing.wait_all_tasks_blocked()
            assert crowd.refused == []
            clock.jump(2)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(crowd.refused) == ["a third", "another"]
            crowd.go_on.set()
        assert crowd.done == ["one"]

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


def test_one_client_alone_has_all_threads() -> None:
    async def main() -> None:
        crowd = Crowd(
            Calls(threads=4, hash_threads=4, money_threads=4, openid_threads=4, most_waiting=0), "run"
        )
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(crowd.ask, "one")
                await trio.testing.wait_all_tasks_blocked()
            assert crowd.refused == ["one"], "no place to wait in"
            crowd.go_on.set()
        assert crowd.done == ["one"] * 4

    trio.run(main)


def test_a_call_that_was_cancelled_leaves_its_place() -> None:
    async def main() -> None:
        crowd = Crowd(
            Calls(threads=1, hash_threads=1, money_threads=1, openid_threads=1, most_waiting=1), "run"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.ask, "a")
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as impatient:
                    impatient.start_soon(crowd.ask, "b")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            nursery.start_soon(crowd.ask, "c")
            await trio.testing.wait_all_tasks_blocked()
            crowd.go_on.set()
        assert (crowd.refused, crowd.done) == ([], ["a", "c"])

    trio.run(main)


def test_a_storm_of_log_ins_from_one_address_leaves_room_for_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP: the client is the one that the trusted proxy saw."""
    settings = {"hash_threads": 1}
    with Server(world, settings=settings, trusted_proxies="127.0.0.1", desk_waiting=4) as server:
        add_owner(server)
        go_on, begun = threading.Event(), threading.Semaphore(0)
        verified = sessions.verified

        def slow(*args: object) -> bool:
            begun.release()
            assert go_on.wait(20)
            return verified(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(sessions, "verified", slow)
        got: dict[str, list[int]] = {"203.0.113.1": [], "203.0.113.2": []}

        def attempt(address: str, password: str) -> None:
            body = {"login": "ada@example.org", "password": password}
            got[address].append(server.ask("POST", "/v1/sessions", body, X_Forwarded_For=address).status)

        storm = [threading.Thread(target=attempt, args=("203.0.113.1", PASSWORD)) for _ in range(8)]
        for thread in storm:
            thread.start()
        assert begun.acquire(timeout=20)
        while len(got["203.0.113.1"]) < 5:  # one is under way, two wait
            assert not go_on.wait(0.01)
        assert got["203.0.113.1"] == [503] * 5
        other = threading.Thread(target=attempt, args=("203.0.113.2", PASSWORD))
        other.start()
        go_on.set()
        for thread in [*storm, other]:
            thread.join()
        assert got["203.0.113.2"] == [201]
