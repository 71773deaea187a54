"""Health: learnt from failures, unlearnt by a probe."""

from __future__ import annotations

import pytest
import structlog.testing
import trio
import trio.testing
from trio.testing import MockClock

from ingest.health import FIRST_PROBE_S, PROBE_EVERY_S, Health
from storage.errors import CatalogUnavailable, ClipkeepError, StoreDenied, StoreUnavailable


class Probe:
    def __init__(self) -> None:
        self.error: ClipkeepError | None = None
        self.hangs = False
        self.asked_at_s: list[float] = []
        self._began_s = trio.current_time()

    async def __call__(self) -> None:
        self.asked_at_s.append(round(trio.current_time() - self._began_s, 3))
        if self.hangs:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error


async def test_up_is_asked_once_and_then_never(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    probe = Probe()
    health = Health(probe)
    await nursery.start(health.run)
    await trio.sleep(100)
    assert health.up
    assert probe.asked_at_s == [0]


async def test_down_at_the_start_heals_by_itself(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    probe = Probe()
    probe.error = StoreDenied("no permission")
    health = Health(probe)
    await nursery.start(health.run)
    assert health.problem is probe.error
    await trio.sleep(2.5 * PROBE_EVERY_S)
    assert health.problem is probe.error
    probe.error = None
    await trio.sleep(PROBE_EVERY_S)
    assert health.up
    assert len(probe.asked_at_s) == 4
    await trio.sleep(100)
    assert len(probe.asked_at_s) == 4


async def test_a_store_that_hangs_does_not_hold_up_the_start(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    probe = Probe()
    probe.hangs = True
    health = Health(probe)
    began_s = trio.current_time()
    await nursery.start(health.run)
    assert trio.current_time() - began_s == pytest.approx(FIRST_PROBE_S)
    assert health.problem is not None
    assert health.problem.code == "store_unavailable"


async def test_a_failure_is_believed_at_once_and_probed_until_it_is_over(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    probe = Probe()
    health = Health(probe)
    await nursery.start(health.run)
    for error in (StoreUnavailable("down"), CatalogUnavailable("busy")):
        await trio.sleep(10)
        probe.error = error
        health.failed(error)
        health.failed(error)
        assert health.problem is error
        await trio.sleep(PROBE_EVERY_S / 2)
        assert not health.up
        probe.error = None
        await trio.sleep(PROBE_EVERY_S)
        assert health.up


async def test_the_newest_problem_is_told(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    probe = Probe()
    health = Health(probe)
    await nursery.start(health.run)
    health.failed(StoreUnavailable("down"))
    probe.error = StoreDenied("no permission")
    await trio.sleep(1.5 * PROBE_EVERY_S)
    assert health.problem is probe.error


async def test_what_no_failure_tells_is_looked_for(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A file that was removed under us can be written to as before."""
    probe, looked_for = Probe(), Probe()
    health = Health(probe, looked_for)
    await nursery.start(health.run)
    await trio.sleep(10.5)
    assert (len(probe.asked_at_s), len(looked_for.asked_at_s)) == (1, 10)
    probe.error = looked_for.error = CatalogUnavailable("gone", code="catalog_replaced")
    await trio.sleep(1)
    assert health.problem is looked_for.error
    await trio.sleep(5)
    probe.error = looked_for.error = None
    await trio.sleep(1)
    assert health.up


async def test_a_failure_while_a_probe_is_under_way_counts(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The probe asked before it, and its answer says nothing about it."""
    answered = trio.Event()
    probes = 0

    async def probe() -> None:
        nonlocal probes
        probes += 1
        if probes == 2:
            await answered.wait()

    health = Health(probe)
    await nursery.start(health.run)
    health.failed(StoreUnavailable("down"))
    await trio.sleep(1.5)
    second = StoreDenied("no permission")
    health.failed(second)
    answered.set()
    await trio.testing.wait_all_tasks_blocked()
    assert health.problem is second
    await trio.sleep(2)
    assert health.up


async def test_a_change_is_logged_and_only_a_change(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        probe = Probe()
        probe.error = StoreDenied("no such bucket")
        health = Health(probe)
        await nursery.start(health.run)
        await trio.sleep(10)
        for _ in range(3):
            health.failed(StoreDenied("no such bucket"))
        probe.error = StoreUnavailable("away")
        await trio.sleep(3)
        probe.error = None
        await trio.sleep(20)
    said = [(line["event"], line["log_level"], line.get("code") or line["after"]) for line in logs]
    assert said == [
        ("not_ready", "error", "store_denied"),
        ("not_ready", "error", "store_unavailable"),
        ("ready_again", "info", "store_unavailable"),
    ]
    assert "no such bucket" in logs[0]["detail"]
