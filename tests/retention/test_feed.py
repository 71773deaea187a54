"""The feed, its stamp, and who waits for it: two hosts' bitmaps over one home, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retention.arrival import GRACE_S, OnHosts, waited_for
from retention.bitmap import SUSPENDED, EntitlementBitmap
from retention.entitlements import Entitlements, bitmap_row
from retention.feed import Feed, HostIs, may_stamp
from storage.days import MS_PER_DAY, day_of_ms
from storage.errors import CatalogUnavailable, WorldError
from storage.rows.devices import DeviceFacts
from storage.rows.hosts import Beat, HostRow
from tests.retention.world import ROWS, TODAY, World, monthly
from tests.servers.catalogs import catalog_of

MAX_STALE_MS = 5000
MAX_STALE_NS = MAX_STALE_MS * 1_000_000


class Boottime:
    """CLOCK_BOOTTIME, moved by hand."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.ns

    def pass_s(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


class Host:
    """A second host: a bitmap of its own, on the world's catalog."""

    def __init__(self, world: World, folder: Path, name: str) -> None:
        self.catalog = catalog_of(world.folder, world.vault)
        path = folder / f"{name}.bitmap"
        EntitlementBitmap.create(path, ROWS)
        self.bitmap = EntitlementBitmap.open(path, writable=True)
        self.boottime = Boottime()
        self.entitlements = Entitlements(self.catalog, self.bitmap, world.clock)
        self.feed = Feed(
            self.catalog,
            self.bitmap,
            self.entitlements,
            world.clock,
            HostIs(f"id-{name}", name, "1.0"),
            max_stale_ms=MAX_STALE_MS,
            home_days=False,
            boottime_ns=self.boottime,
        )
        self.feed.register()
        self.entitlements.recover()

    def is_stale(self) -> bool:
        return self.bitmap.is_stale(self.boottime(), MAX_STALE_NS)

    def close(self) -> None:
        self.bitmap.close()
        self.catalog.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path / "home") as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()


@pytest.fixture
def host(world: World, tmp_path: Path) -> Iterator[Host]:
    made = Host(world, tmp_path, "b")
    yield made
    made.close()


def suspended(facts: DeviceFacts) -> DeviceFacts:
    return replace(facts, suspended=not facts.suspended)


def test_what_one_host_changes_another_has_after_its_next_step(world: World, host: Host) -> None:
    device = world.add()
    assert host.bitmap.read(device) is None
    step = host.feed.step()
    assert (step.devices, step.stamped) == (1, True)
    assert host.bitmap.read(device) == world.bitmap.read(device)
    world.change(device, suspended)
    host.feed.step()
    row = host.bitmap.read(device)
    assert row is not None
    assert row.flags & SUSPENDED
    [listed] = world.catalog.hosts()[0]
    assert (listed.name, listed.applied) == ("b", world.catalog.newest_change())
    assert host.feed.step().devices == 0


def test_a_log_of_many_pages_is_taken_up_in_bounded_ones(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retention.entitlements.CHANGES_PAGE", 3)
    devices = [world.add() for _ in range(8)]
    real, asked = host.catalog.changes_after, []

    def by_three(number: int, limit: int = 3) -> tuple[list[int], int]:
        found = real(number, limit)
        asked.append(len(found[0]))
        return found

    monkeypatch.setattr(host.catalog, "changes_after", by_three)
    assert host.feed.step().devices == 8
    assert asked == [3, 3, 2]
    assert all(host.bitmap.read(device) == world.bitmap.read(device) for device in devices)


def test_the_stamp_says_when_home_was_asked_and_is_over_after_its_time(host: Host) -> None:
    assert host.is_stale(), "nothing is served before the first step"
    asked_ns = host.boottime()
    host.feed.step()
    assert host.bitmap.asked_ns == asked_ns
    host.boottime.pass_s(MAX_STALE_MS / 1000)
    assert not host.is_stale()
    host.boottime.ns += 1
    assert host.is_stale()
    assert not host.bitmap.is_stale(host.boottime(), 0), "an embedded home is never stale"
    host.boottime.ns = asked_ns - 1
    assert host.is_stale(), "a stamp of an earlier boot"


def test_a_frozen_feed_stamps_the_moment_before_it_asked(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read the log, was stopped for long, and goes on: what was changed meanwhile it does not have."""
    device = world.add()
    host.feed.step()
    real = host.catalog.beat

    def frozen(*args: Any, **kwargs: Any) -> Beat | None:
        monkeypatch.setattr(host.catalog, "beat", real)
        world.change(device, suspended)
        host.boottime.pass_s(20)
        return real(*args, **kwargs)

    monkeypatch.setattr(host.catalog, "beat", frozen)
    host.feed.step()
    assert host.is_stale()
    assert not host.feed.step().stamped, "when home heard the one before is known to 20 s only"
    assert host.feed.step().stamped
    assert not host.is_stale()
    assert host.bitmap.read(device) == world.bitmap.read(device)


def test_a_log_that_is_read_from_a_server_that_is_behind_is_no_stamp(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica behind a pooler that splits reads off, or an earlier primary; the beat was taken by the new one."""
    device = world.add()
    host.feed.step()
    before_ns, behind = host.bitmap.asked_ns, host.bitmap.last_change
    host.boottime.pass_s(1)
    world.change(device, suspended)
    with monkeypatch.context() as patch:
        patch.setattr(host.catalog, "changes_after", lambda number, limit=1000: ([], behind))
        with pytest.raises(WorldError) as caught:
            host.feed.step()
    assert caught.value.code == "reads_behind"
    assert host.bitmap.asked_ns == before_ns
    assert host.feed.step().stamped


def test_what_is_committed_between_reading_and_beat_is_taken_up_at_once(
    world: World, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = world.add()
    host.feed.step()
    real = host.catalog.beat

    def late(*args: Any, **kwargs: Any) -> Beat | None:
        world.change(device, suspended)
        return real(*args, **kwargs)

    monkeypatch.setattr(host.catalog, "beat", late)
    step = host.feed.step()
    assert (step.devices, step.stamped) == (1, True)
    assert host.bitmap.read(device) == world.bitmap.read(device)


def test_a_home_that_is_away_is_no_stamp(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: str, **_kwargs: int) -> Beat:
        raise CatalogUnavailable("no answer")

    host.feed.step()
    before_ns = host.bitmap.asked_ns
    host.boottime.pass_s(1)
    for name in ("changes_after", "beat"):
        with monkeypatch.context() as patched:
            patched.setattr(host.catalog, name, away)
            with pytest.raises(CatalogUnavailable):
                host.feed.step()
        assert host.bitmap.asked_ns == before_ns


def test_a_host_that_was_forgotten_registers_again_and_stamps_at_the_step_after(host: Host) -> None:
    host.feed.step()
    host.catalog.leave_host("id-b")
    assert not host.feed.step().stamped
    assert [listed.name for listed in host.catalog.hosts()[0]] == ["b"]
    assert host.feed.step().stamped


def test_who_leaves_serves_nothing_any_more(host: Host) -> None:
    host.feed.step()
    host.feed.leave()
    assert host.is_stale()
    assert host.catalog.hosts()[0] == []


@pytest.mark.parametrize(
    ("silent_ms", "took_ms", "may"),
    [
        (250, 3, True),
        (MAX_STALE_MS, GRACE_S * 1000, True),
        (MAX_STALE_MS + 1, 3, False),  # others may have gone on without this host
        (1250, GRACE_S * 1000 + 1, False),  # they may not have seen this beat in time
    ],
)
def test_when_a_beat_vouches_for_what_was_read_before_it(silent_ms: float, took_ms: float, may: bool) -> None:
    assert may_stamp(silent_ms=silent_ms, took_ms=took_ms, max_stale_ms=MAX_STALE_MS) is may


def test_a_host_that_home_had_not_heard_for_long_asks_once_more(host: Host) -> None:
    """What it read before that beat may be what others did not wait for any more."""
    host.feed.step()
    host.boottime.pass_s(MAX_STALE_MS / 1000 + 0.1)
    assert not host.feed.step().stamped
    assert host.is_stale()
    assert host.feed.step().stamped
    assert not host.is_stale()


def test_a_feed_that_was_started_again_stamps_at_its_second_step(world: World, host: Host) -> None:
    """It does not know when home heard the host before."""
    host.feed.step()
    again = Feed(
        host.catalog,
        host.bitmap,
        host.entitlements,
        world.clock,
        HostIs("id-b", "b", "1.0"),
        max_stale_ms=MAX_STALE_MS,
        boottime_ns=host.boottime,
    )
    assert [again.step().stamped for _ in range(2)] == [False, True]


def test_days_that_are_closed_at_home_are_closed_on_every_host(world: World, host: Host) -> None:
    fence = world.catalog.acquire_lease("sweep", holder="test", ttl_ms=60_000, now_ms=world.clock.ms)
    assert fence is not None
    world.catalog.advance_closed_through(TODAY + 3, fence=fence)
    host.feed.step()
    assert host.bitmap.closed_through == TODAY + 3


def test_nothing_is_entitled_before_the_day_by_homes_clock(world: World, host: Host) -> None:
    """The world's clock is months behind that of the machine, which is home's."""
    host.feed.step()
    assert (host.bitmap.least_day, host.entitlements.today()) == (0, TODAY)
    feed = Feed(
        host.catalog, host.bitmap, host.entitlements, world.clock, HostIs("id-b", "b", "1"), max_stale_ms=1000
    )
    home_day = day_of_ms(world.catalog.hosts()[1])
    feed.step()
    assert home_day <= host.bitmap.least_day == host.entitlements.today() <= home_day + 1
    world.clock.ms += 10_000 * MS_PER_DAY
    assert host.entitlements.today() == day_of_ms(world.clock.ms)


def test_the_feed_waits_for_nobody_who_changes_rights(world: World, host: Host) -> None:
    """A change on this host may wait for home as long as home makes it; the log of the others' goes on."""
    device = world.add()
    with host.bitmap.locked():
        assert host.feed.step().stamped
    assert host.bitmap.read(device) is not None


@contextmanager
def overtaken(host: Host, by: Callable[[], object]) -> Iterator[None]:
    """Inside, `by` happens once between reading rows from the catalog and writing them."""
    real, todo = host.catalog.device_columns, [by]

    def slow(**kwargs: int) -> object:
        found = real(**kwargs)  # type: ignore[arg-type]
        if todo:
            todo.pop()()
        return found

    host.catalog.device_columns = slow  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        host.catalog.device_columns = real  # type: ignore[method-assign]


@pytest.mark.parametrize("reader", ["feed", "roll", "rebuild"])
def test_a_row_read_earlier_never_overwrites_a_newer_one(world: World, host: Host, reader: str) -> None:
    """The feed read the row, and before it writes it a command on the same host has revoked the device and returned;
    and the other way round: whoever rolls read the row, and the feed was faster."""
    device = world.add()
    host.feed.step()
    world.change(device, suspended)
    world.change(device, suspended)  # so that the feed has a row to write: the device is not suspended
    if reader == "feed":

        def faster() -> None:
            host.entitlements.change(device, suspended, what="test")

        with overtaken(host, faster):
            host.feed.step()
    else:
        host.feed.step()

        def faster() -> None:
            world.change(device, suspended)
            host.feed.step()

        world.clock.ms += 200 * 86_400_000  # so that the row is due to be rolled
        with overtaken(host, faster):
            host.entitlements.rebuild() if reader == "rebuild" else host.entitlements.roll()
    row = host.bitmap.read(device)
    assert row is not None
    assert row.flags & SUSPENDED
    assert row == bitmap_row(world.catalog.device(device), host.entitlements.today())
    assert host.bitmap.last_change == world.catalog.newest_change()
    assert host.bitmap.unfinished == 0


def test_a_writer_that_is_always_outrun_gives_up(world: World, host: Host) -> None:
    device = world.add()
    host.feed.step()
    real = host.catalog.device_columns

    def outrun(**kwargs: int) -> object:
        found = real(**kwargs)  # type: ignore[arg-type]
        with host.bitmap.writing():
            host.bitmap.set_last_change(world.catalog.newest_change() + 1)
        return found

    world.change(device, suspended)
    host.catalog.device_columns = outrun  # type: ignore[method-assign, assignment]
    with pytest.raises(WorldError) as caught:
        host.feed.step()
    assert caught.value.code == "bitmap_busy"


# --- who waits ------------------------------------------------------------------------------------------------------


class Waits:
    """A clock that moves by what is slept, and hosts that step meanwhile."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.meanwhile: list[Callable[[], object]] = []
        self.said: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def changing(world: World, waits: Waits) -> Entitlements:
    arrival = OnHosts(
        world.catalog,
        max_stale_s=MAX_STALE_MS / 1000,
        interrupted=waits.said.append,
        sleep=waits.sleep,
        monotonic=waits.monotonic,
    )
    return Entitlements(world.catalog, world.bitmap, world.clock, arrival)


def test_a_change_returns_when_every_host_has_it(
    world: World, host: Host, changing: Entitlements, waits: Waits
) -> None:
    device = world.add()
    host.feed.step()
    waits.meanwhile = [lambda: None, host.feed.step]
    changing.change(device, suspended, what="test")
    assert 0 < waits.now_s < 1
    assert host.bitmap.read(device) == world.bitmap.read(device)


def test_who_stops_waiting_is_told_that_the_change_is_made(
    world: World, host: Host, changing: Entitlements, waits: Waits
) -> None:
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    device = world.add()
    host.feed.step()
    waits.meanwhile = [ctrl_c]
    with pytest.raises(KeyboardInterrupt):
        changing.change(device, suspended, what="test")
    [said] = waits.said
    assert "the change is made" in said
    assert "6 s after it" in said
    host.feed.step()
    assert host.bitmap.read(device) == world.bitmap.read(device)


def test_a_grant_is_waited_for_too(host: Host, changing: Entitlements, waits: Waits) -> None:
    waits.meanwhile = [host.feed.step]
    [facts] = changing.add_devices(1, account=1, plans=[monthly(TODAY)])
    assert host.bitmap.read(facts.device) is not None


def test_books_alone_wait_for_nobody(host: Host, changing: Entitlements, waits: Waits) -> None:
    changing.transact(lambda books: books.backlog(on=TODAY))
    assert waits.now_s == 0


def test_what_is_so_already_is_waited_for_too(
    world: World, host: Host, changing: Entitlements, waits: Waits
) -> None:
    """Whoever decided it was killed before it had arrived, or waits still; who asks again is told no sooner."""
    device = world.add()
    host.feed.step()
    world.change(device, suspended)
    waits.meanwhile = [lambda: None, host.feed.step]
    changing.change(device, lambda facts: facts, what="test")
    assert waits.meanwhile == []
    assert host.bitmap.read(device) == world.bitmap.read(device)
    world.change(device, suspended)
    waits.meanwhile = [host.feed.step]
    changing.transact(lambda books: books.backlog(on=TODAY))
    assert waits.meanwhile == []


def test_no_lock_is_held_meanwhile(world: World, host: Host, changing: Entitlements, waits: Waits) -> None:
    device = world.add()
    other = world.add()
    waits.meanwhile = [lambda: world.change(other, suspended), host.feed.step]
    changing.change(device, suspended, what="test")
    assert not waits.meanwhile


def test_a_host_that_says_nothing_is_waited_for_until_its_stamp_is_over(
    world: World, host: Host, changing: Entitlements, waits: Waits
) -> None:
    device = world.add()
    host.feed.step()
    changing.change(device, suspended, what="test")
    assert waits.now_s == pytest.approx(MAX_STALE_MS / 1000 + GRACE_S)
    host.boottime.pass_s(waits.now_s)
    assert host.is_stale()


def test_a_host_that_acts_for_longer_is_waited_for_longer(
    world: World, host: Host, changing: Entitlements, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `max_stale_s` is being changed, or was not changed on all hosts. While home is away, too."""
    device = world.add()
    host.catalog.register_host("id-b", name="b", release="1", max_stale_ms=3 * MAX_STALE_MS)
    changing.change(device, suspended, what="test")
    assert waits.now_s == pytest.approx(3 * MAX_STALE_MS / 1000 + GRACE_S)

    def away() -> tuple[list[HostRow], int]:
        raise CatalogUnavailable("no answer")

    monkeypatch.setattr(world.catalog, "hosts", away)
    changing.change(device, suspended, what="test")
    assert waits.now_s == pytest.approx(2 * (3 * MAX_STALE_MS / 1000 + GRACE_S))


def test_while_home_is_away_time_alone_tells(
    world: World, host: Host, changing: Entitlements, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = world.add()

    def away() -> tuple[list[HostRow], int]:
        raise CatalogUnavailable("no answer")

    monkeypatch.setattr(world.catalog, "hosts", away)
    changing.change(device, suspended, what="test")
    assert waits.now_s == pytest.approx(MAX_STALE_MS / 1000 + GRACE_S)


def test_who_changes_many_waits_once(world: World, host: Host, changing: Entitlements, waits: Waits) -> None:
    devices = [world.add() for _ in range(5)]
    with changing.together() as together:
        for device in devices:
            together.change(device, suspended, what="test")
        assert waits.now_s == 0
        waits.meanwhile = [host.feed.step]
    assert 0 < waits.now_s < 1
    assert all(host.bitmap.read(device) == world.bitmap.read(device) for device in devices)


def test_whom_a_change_waits_for() -> None:
    def listed(name: str, *, asked_ms: int, applied: int, stale_ms: int = 5000) -> HostRow:
        return HostRow(name, name, "1", 0, asked_ms, applied, 0, 0, 0, stale_ms)

    hosts = [
        listed("has it", asked_ms=9000, applied=7),
        listed("has it not", asked_ms=9000, applied=6),
        listed("just heard", asked_ms=4000, applied=6),
        listed("gone", asked_ms=3999, applied=6),
        listed("acts for longer", asked_ms=3999, applied=6, stale_ms=5001),
        listed("acts for less", asked_ms=4000, applied=6, stale_ms=4999),
    ]
    found = waited_for(hosts, 7, now_ms=10_000)
    assert [host.name for host in found] == ["has it not", "just heard", "acts for longer"]
