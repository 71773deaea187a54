"""The supervisor with children that do as they are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from service.supervisor import Address, Child, Supervisor, claim, first_error, parse_address
from storage.errors import CallerError, ClipkeepError, WorldError

SAY = "print('ready', flush=True)"
WAIT = "import sys, signal; signal.signal(signal.SIGTERM, lambda *a: sys.exit(0)); "


def child(name: str, code: str) -> Child:
    return Child(name, [sys.executable, "-c", code])


def polite(name: str) -> Child:
    return child(name, f"{WAIT}{SAY}; sys.stdin.read()")


async def test_children_run_until_the_stop() -> None:
    supervisor = Supervisor([polite("a"), polite("b")], stop_deadline_s=5)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            supervisor.stop()
    assert supervisor.restarts == 0


async def test_a_child_that_never_was_ready_is_an_error_of_its_name() -> None:
    supervisor = Supervisor([polite("a"), child("w0", "raise SystemExit(3)")], stop_deadline_s=5)
    with trio.fail_after(30), pytest.raises(WorldError) as caught, first_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
    assert caught.value.code == "cannot_start"
    assert "w0" in caught.value.detail


async def test_a_child_that_dies_is_started_again() -> None:
    supervisor = Supervisor([child("w0", f"{SAY}; import time; time.sleep(0.1)")], stop_deadline_s=5)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            while not supervisor.restarts:  # noqa: ASYNC110 - a counter, which nobody says aloud
                await trio.sleep(0.05)
            supervisor.stop()
    assert supervisor.restarts >= 1


async def test_a_child_that_ignores_the_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.supervisor.KILL_AFTER_S", 0.1)
    deaf = child("w0", f"import signal, sys; signal.signal(15, signal.SIG_IGN); {SAY}; sys.stdin.read()")
    supervisor = Supervisor([deaf], stop_deadline_s=0.1)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            supervisor.stop()


async def test_what_others_need_to_the_end_is_stopped_last(tmp_path: Path) -> None:
    noting = "signal.signal(15, lambda *a: (time.sleep({}), open({!r}, 'a').write({!r}), sys.exit(0)))"
    ended = str(tmp_path / "ended")

    def notes(name: str, after_s: float, *, last: bool = False) -> Child:
        code = f"import signal, sys, time; {noting.format(after_s, ended, name)}; {SAY}; sys.stdin.read()"
        return Child(name, [sys.executable, "-c", code], last=last)

    supervisor = Supervisor([notes("f", 0, last=True), notes("a", 0.3), notes("a", 0.1)], stop_deadline_s=5)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            supervisor.stop()
    assert (tmp_path / "ended").read_text() == "aaf"


@pytest.mark.parametrize("which", ["a", "f"])
async def test_a_stop_while_the_last_one_is_not_ready(which: str) -> None:
    deaf = "import sys; sys.stdin.read()"
    children = [
        Child(name, [sys.executable, "-c", deaf] if name == which else polite(name).command, last=name == "f")
        for name in "af"
    ]
    supervisor = Supervisor(children, stop_deadline_s=5)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.sleep(0.3)
            supervisor.stop()


async def test_a_stop_before_children_are_ready() -> None:
    supervisor = Supervisor([child("w0", "import sys; sys.stdin.read()")], stop_deadline_s=5)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.sleep(0.1)
            supervisor.stop()


def test_only_our_errors_leave_their_group() -> None:
    inner = CallerError("x", code="ours")
    with pytest.raises(CallerError) as caught, first_error():
        raise BaseExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError(), inner])])
    assert caught.value is inner
    with pytest.raises(ExceptionGroup), first_error():
        raise ExceptionGroup("", [ValueError()])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        ("localhost:65535", Address("localhost", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, option="--ingest") == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:65536", "host:-1", "host:8o", "host:٣"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(CallerError) as caught:
        parse_address(text, option="--ingest")
    assert caught.value.code == "bad_address"
    assert "--ingest" in caught.value.detail


def test_a_claimed_port_is_free_and_known() -> None:
    with claim(Address("127.0.0.1", 0), option="--ingest") as found:
        assert found.port > 0
    with claim(found, option="--ingest") as again:
        assert again == found
    for bad in (Address("203.0.113.1", 80), Address("no such host.invalid", 80), Address("x" * 300, 80)):
        with pytest.raises(ClipkeepError) as caught, claim(bad, option="--api"):
            pass
        assert caught.value.code == "cannot_listen"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_one_port_is_not_claimed_twice(host: str) -> None:
    """Devices and people on one port: each would get some of the other's connections."""
    with (
        claim(Address("127.0.0.1", 0), option="--ingest") as ingest,
        pytest.raises(ClipkeepError) as caught,
        claim(Address(host, ingest.port), option="--api"),
    ):
        pass
    assert caught.value.code == "cannot_listen"
    assert "--api" in str(caught.value)
