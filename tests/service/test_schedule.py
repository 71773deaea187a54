"""The schedule of a home: what is due when, and that one host acts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.witness import ClockDoubted
from service.commands.schedule import _document, _line
from service.config import ScheduleSettings
from service.schedule import ANEW_AFTER_MS, LEASE_MS, Job, Schedule, is_due, jobs_of
from storage.catalog import Catalog
from storage.errors import StoreUnavailable
from storage.rows.schedule import RunRow
from tests.retention.world import World, fast_folder

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


def job(run: Callable[[], str] = str, name: str = "sweep") -> Job:
    return Job(name, HOUR_MS, 20 * MINUTE_MS, run)


def ran(began_ms: int, ended_ms: int | None, host: str = "a") -> RunRow:
    return RunRow("sweep", host, began_ms, ended_ms, "" if ended_ms is None else "done", "")


@given(began_ms=st.integers(0, 10**13), later_ms=st.integers(0, 10 * HOUR_MS))
def test_a_job_is_run_once_in_each_slot_and_one_missed_is_made_up_for(began_ms: int, later_ms: int) -> None:
    now_ms = began_ms + later_ms
    slots_between = (now_ms - 20 * MINUTE_MS) // HOUR_MS - (began_ms - 20 * MINUTE_MS) // HOUR_MS
    assert is_due(job(), ran(began_ms, began_ms + 1), now_ms) == (slots_between > 0)


def test_what_never_ran_or_never_ended_or_lies_ahead_is_due() -> None:
    now_ms = 100 * HOUR_MS
    assert is_due(job(), None, now_ms)
    assert not is_due(job(), ran(now_ms - ANEW_AFTER_MS, None), now_ms), "it may be under way"
    assert is_due(job(), ran(now_ms - ANEW_AFTER_MS - 1, None), now_ms)
    assert not is_due(job(), ran(now_ms + HOUR_MS, now_ms + HOUR_MS), now_ms)
    assert is_due(job(), ran(now_ms + HOUR_MS + 1, now_ms + HOUR_MS + 1), now_ms), (
        "noted by a clock that was wrong"
    )


def test_the_usual_jobs_are_hourly_after_a_day_has_ended() -> None:
    sweep, renew = jobs_of(ScheduleSettings())
    assert (sweep.name, sweep.slot_ms(HOUR_MS * 5)) == ("sweep", HOUR_MS * 4 + 20 * MINUTE_MS)
    assert (renew.name, renew.slot_ms(HOUR_MS * 5)) == ("renew", HOUR_MS * 4 + 40 * MINUTE_MS)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as made:
        yield made


def schedule(
    world: World,
    jobs: list[Job],
    host: str,
    catalog: Catalog | None = None,
    require: Callable[[], None] = lambda: None,
) -> Schedule:
    return Schedule(
        catalog or world.catalog, world.clock, jobs, host=host, holder=f"process of {host}", require=require
    )


def test_one_of_several_hosts_acts_and_the_others_go_their_way(world: World) -> None:
    acted: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        acted.append("a")
        inside.set()
        assert go_on.wait(10)
        return "half of it"

    a = schedule(world, [job(slow)], "a")
    b = schedule(world, [job(lambda: acted.append("b") or "")], "b")
    thread = threading.Thread(target=a.run_due)
    thread.start()
    assert inside.wait(10)
    assert b.run_due() == 0
    go_on.set()
    thread.join()
    assert b.run_due() == 0, "it was done in this slot"
    assert acted == ["a"]
    run = world.catalog.scheduled_runs()["sweep"]
    assert (run.host, run.outcome, run.detail) == ("a", "done", "half of it")
    world.clock.ms += HOUR_MS
    assert b.run_due() == 1
    assert acted == ["a", "b"]


def test_a_host_that_may_run_nothing_leaves_it_to_the_others(world: World) -> None:
    """Its clock is off home's. It takes no lease, and notes no run."""

    def off() -> None:
        raise ClockDoubted("off", code="clock_off_home")

    a = schedule(world, [job()], "a", require=off)
    with pytest.raises(ClockDoubted):
        a.run_due()
    assert world.catalog.scheduled_runs() == {}
    assert schedule(world, [job()], "b").run_due() == 1
    assert a.run_due() == 0


def test_a_job_that_fails_is_noted_and_the_next_one_runs(world: World) -> None:
    def refuse() -> str:
        raise StoreUnavailable("away")

    def bug() -> str:
        raise KeyError

    jobs = [job(refuse), job(bug, "other"), job(name="renew")]
    assert schedule(world, jobs, "a").run_due() == 3
    runs = world.catalog.scheduled_runs()
    assert (runs["sweep"].outcome, runs["sweep"].detail) == ("store_unavailable", "away")
    assert runs["other"].outcome == "bug"
    assert runs["renew"].outcome == "done"
    assert schedule(world, jobs, "a").run_due() == 0, "until the next slot"


def test_a_host_that_was_killed_in_a_run_is_replaced_when_its_lease_has_run_out(world: World) -> None:
    class Killed(BaseException):
        pass

    def die() -> str:
        raise Killed

    catalog, acted = world.catalog, []
    a = schedule(world, [job(die)], "a")
    release, catalog.release_lease = catalog.release_lease, lambda name, fence: None  # type: ignore[method-assign]
    with pytest.raises(Killed):
        a.run_due()
    catalog.release_lease = release  # type: ignore[method-assign]
    b = schedule(world, [job(lambda: acted.append("b") or "")], "b")
    world.clock.ms += LEASE_MS - 1
    assert b.run_due() == 0
    world.clock.ms += ANEW_AFTER_MS
    assert b.run_due() == 1
    assert acted == ["b"]
    assert catalog.scheduled_runs()["sweep"].host == "b"


def test_a_lease_that_is_kept_is_nobody_elses(world: World) -> None:
    acted: list[str] = []
    b = schedule(world, [job(lambda: acted.append("b") or "")], "b")

    def long() -> str:
        for _ in range(4):
            world.clock.ms += LEASE_MS - 1
            a.keep()
            assert b.run_due() == 0
        return ""

    a = schedule(world, [job(long)], "a")
    assert a.run_due() == 1
    assert acted == []


def test_the_list_says_what_comes_next_and_nothing_where_nothing_runs_by_itself() -> None:
    [sweep, renew] = jobs_of(ScheduleSettings())
    at_0 = 1_700_000_000_000 // sweep.every_ms * sweep.every_ms
    ran = RunRow(sweep.name, "a", at_0, at_0 + 500, "done", "")
    due, waits = _document(renew, None, at_0), _document(sweep, ran, at_0 + 1)
    assert _line(due, is_on=True)[-1] == "now"
    assert _line(waits, is_on=True)[-1].endswith(":20:00")
    assert _line(due, is_on=False)[-1] == _line(waits, is_on=False)[-1] == ""
