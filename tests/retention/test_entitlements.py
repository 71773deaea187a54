"""The bitmap says what the catalog says, and never more, whatever happens between the two."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention.bitmap import ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap, Row
from retention.entitlements import (
    BATCH_ROWS,
    OLDEST_ROW_DAYS,
    ROLL_HORIZON_DAYS,
    CatalogRestored,
    Entitlements,
    bitmap_row,
    entitled_from,
    meet,
    plan_of,
    row_of,
)
from retention.plans import Plan, PlanKind, cancel, windows
from retention.row import RING_DAYS
from storage.clock import machine_boot_id
from storage.days import MS_PER_DAY, to_date
from storage.errors import CallerError, CatalogUnavailable, ClipkeepError, NotFound
from storage.rows.devices import DeviceFacts, EraseState, PlanRow
from tests.retention.life import started
from tests.retention.world import NOON, ROWS, TODAY, World, fast_folder, monthly

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def row(world: World, device: int) -> Row:
    found = world.bitmap.read(device)
    assert found is not None
    return found


def compiled(world: World, device: int) -> Row:
    return bitmap_row(world.catalog.device(device), world.entitlements.today())


def agrees(world: World) -> None:
    """Every row is what the catalog compiles to, and nothing is left to do."""
    for facts in world.catalog.devices():
        assert world.bitmap.read(facts.device) == compiled(world, facts.device)
    assert world.bitmap.last_change == world.catalog.newest_change()
    assert world.bitmap.unfinished == 0


def suspend(facts: DeviceFacts) -> DeviceFacts:
    return replace(facts, suspended=True)


def resume(facts: DeviceFacts) -> DeviceFacts:
    return replace(facts, suspended=False)


def elsewhere(world: World, device: int, **fields: Any) -> None:
    """A change made on another host: in the catalog, not in this bitmap."""
    world.catalog.update_device(device, lambda f: replace(f, **fields), what="elsewhere", now_ms=NOON)


# --- facts to row -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({}, PRESENT),
        ({"suspended": True}, PRESENT | SUSPENDED),
        ({"terminated_ms": NOON}, PRESENT | TERMINATED),
        # A device that was renewed after its erasure is an ordinary one, also while the erasure goes on.
        ({"erase_state": EraseState.ERASING}, PRESENT),
        ({"erase_state": EraseState.ERASED, "plans": ()}, PRESENT | ERASED),
        ({"erase_state": EraseState.ERASING, "plans": (monthly(1, TODAY - 1),)}, PRESENT | ERASED),
        ({"erase_state": EraseState.ERASED, "terminated_ms": NOON}, PRESENT | TERMINATED | ERASED),
    ],
)
def test_the_flags_of_a_row(fields: dict[str, Any], flags: int) -> None:
    facts = DeviceFacts(7, 1, 3, 5, plans=(monthly(TODAY - 1),))
    found = bitmap_row(replace(facts, **fields), TODAY)
    assert (found.flags, found.token_generation, found.erase_epoch) == (flags, 3, 5)


@pytest.mark.parametrize(
    ("plans", "day", "expected"),
    [
        ([], TODAY, False),
        ([monthly(TODAY)], TODAY + 1000, True),
        ([monthly(TODAY, TODAY + 1)], TODAY + 1, True),
        ([monthly(TODAY, TODAY + 1)], TODAY + 2, False),
        ([monthly(TODAY + 50, TODAY + 60)], TODAY, True),
        ([monthly(TODAY + 5, TODAY + 4)], TODAY, False),  # cancelled before it began
        ([monthly(1, 2), monthly(TODAY, TODAY)], TODAY, True),
    ],
)
def test_entitled_from(plans: list[PlanRow], day: int, expected: bool) -> None:
    assert entitled_from(DeviceFacts(1, 1, 1, 0, plans=tuple(plans)), day) is expected


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    kind = draw(st.sampled_from(PlanKind))
    days = None if kind is PlanKind.TRIAL else draw(st.integers(1, 255))
    plan = started(kind, to_date(TODAY + draw(st.integers(-600, 300))), days)
    if kind is PlanKind.MONTHLY and draw(st.booleans()):
        on = max(1, TODAY + draw(st.integers(-600, 300)))
        return cancel(plan, to_date(on))
    return plan


@st.composite
def any_facts(draw: st.DrawFn) -> DeviceFacts:
    return DeviceFacts(
        1,
        1,
        draw(st.integers(1, 3)),
        draw(st.integers(0, 3)),
        draw(st.booleans()),
        draw(st.none() | st.just(NOON)),
        draw(st.sampled_from(EraseState)),
        plans=tuple(map(row_of, draw(st.lists(any_plan(), max_size=3)))),
    )


@given(any_plan())
def test_a_plan_and_its_row_are_the_same(plan: Plan) -> None:
    assert plan_of(row_of(plan)) == plan
    assert row_of(plan, 9).plan_id == 9


@given(any_facts(), any_facts())
def test_the_meet_allows_what_both_allow(old: DeviceFacts, new: DeviceFacts) -> None:
    one, other = bitmap_row(old, TODAY), bitmap_row(new, TODAY)
    both = meet(one, other)
    for day in range(TODAY - 300, TODAY + 200):
        assert both.allows(day) == (one.allows(day) and other.allows(day))
    for flag in (SUSPENDED, TERMINATED, ERASED):
        assert bool(both.flags & flag) == bool((one.flags | other.flags) & flag)
    assert both.class_days == min(one.class_days, other.class_days)
    assert (both.token_generation, both.erase_epoch) == (new.token_generation, new.erase_epoch)
    assert meet(other, other) == other


# --- change -----------------------------------------------------------------------------------------------------


@contextmanager
def looking(world: World, device: int) -> Iterator[list[Row | None]]:
    """Collects what readers see at the moment before a commit."""
    seen: list[Row | None] = []
    real = world.catalog.update_device

    def update_device(*args: Any, before_commit: Any, **named: Any) -> Any:
        def look(old: DeviceFacts, new: DeviceFacts) -> None:
            before_commit(old, new)
            seen.append(world.bitmap.read(device))

        return real(*args, before_commit=look, **named)

    world.catalog.update_device = update_device  # type: ignore[assignment,method-assign]
    yield seen
    world.catalog.update_device = real  # type: ignore[method-assign]


def test_a_revocation_is_in_the_bitmap_before_the_commit_and_a_grant_after(world: World) -> None:
    """Invariants 2 and 9."""
    device = world.add()
    before = row(world, device)
    with looking(world, device) as seen:
        world.change(device, suspend)
        world.change(device, resume)
    revoked = replace(before, flags=PRESENT | SUSPENDED)
    assert seen == [revoked, revoked]
    assert row(world, device) == before
    agrees(world)


def test_of_a_change_that_gives_and_takes_only_the_taking_is_early(world: World) -> None:
    device = world.add(monthly(TODAY - 10, TODAY + 5, days=30))
    old = row(world, device)

    def move(facts: DeviceFacts) -> DeviceFacts:
        [plan] = facts.plans
        return replace(facts, plans=(replace(plan, ends_on=TODAY + 2), monthly(TODAY + 9, days=60)))

    with looking(world, device) as seen:
        world.change(device, move)
    [early] = seen
    assert early is not None
    days = range(TODAY - 10, TODAY + 20)
    assert [d for d in days if early.allows(d)] == list(range(TODAY - 10, TODAY + 3))
    assert [d for d in days if old.allows(d)] == list(range(TODAY - 10, TODAY + 6))
    late = row(world, device)
    assert [d for d in days if late.allows(d)] == [
        *range(TODAY - 10, TODAY + 3),
        *range(TODAY + 9, TODAY + 20),
    ]
    assert early.class_days == 30


@pytest.mark.parametrize("more_days", [True, False])
def test_more_storage_counts_from_the_commit_on(world: World, more_days: bool) -> None:
    device = world.add(monthly(TODAY - 10, days=30))
    days = 60 if more_days else 7

    def other_class(facts: DeviceFacts) -> DeviceFacts:
        return replace(facts, plans=(replace(facts.plans[0], retention_days=days),))

    with looking(world, device) as seen:
        world.change(device, other_class)
    assert [r and r.class_days for r in seen] == [min(30, days)]
    assert row(world, device).class_days == days


def test_a_refused_change_changes_nothing(world: World) -> None:
    device = world.add()
    before = world.state()

    def refuse(facts: DeviceFacts) -> DeviceFacts:
        raise CallerError("no", code="refused")

    with pytest.raises(CallerError) as caught:
        world.change(device, refuse)
    assert caught.value.code == "refused"
    with pytest.raises(NotFound):
        world.change(device + 1, suspend)
    world.change(device, resume)  # nothing to do
    assert world.state() == before


@contextmanager
def failing_commits(world: World, *, also_reads: bool = False) -> Iterator[None]:
    """Changes fail after the bitmap was written and before they are committed."""
    real, reads = world.catalog.update_device, world.catalog.changes_after

    def broken(*args: Any, **named: Any) -> Any:
        raise CatalogUnavailable("injected: the disk is full")

    def update_device(*args: Any, before_commit: Any, **named: Any) -> Any:
        def fail(old: DeviceFacts, new: DeviceFacts) -> None:
            before_commit(old, new)
            if also_reads:
                world.catalog.changes_after = broken  # type: ignore[method-assign]
            raise CatalogUnavailable("injected: the disk is full")

        return real(*args, before_commit=fail, **named)

    world.catalog.update_device = update_device  # type: ignore[assignment,method-assign]
    yield
    world.catalog.update_device, world.catalog.changes_after = real, reads  # type: ignore[method-assign]


def test_a_failed_commit_leaves_the_row_as_the_catalog_says(world: World) -> None:
    device = world.add()
    before = row(world, device)
    with failing_commits(world), pytest.raises(CatalogUnavailable):
        world.change(device, suspend)
    assert row(world, device) == before
    agrees(world)


def test_a_catalog_that_is_gone_leaves_a_denial_for_the_next_holder_to_mend(world: World) -> None:
    """Invariant 2: more may be denied than must be, for a while; never less."""
    device, other = world.add(), world.add()
    before = row(world, device)
    with failing_commits(world, also_reads=True), pytest.raises(CatalogUnavailable):
        world.change(device, suspend)
    assert row(world, device).flags == PRESENT | SUSPENDED
    assert world.bitmap.unfinished == device
    world.change(other, suspend)
    assert row(world, device) == before
    agrees(world)


@pytest.mark.parametrize("mend", ["replay", "recover", "change", "add", "roll"])
def test_a_writer_killed_before_its_commit_is_mended_by_the_next_holder(world: World, mend: str) -> None:
    device, other = world.add(), world.add()
    before = row(world, device)
    killed(world, "revoke_and_die", device)
    assert row(world, device).flags & SUSPENDED
    assert world.bitmap.unfinished == device
    assert not world.catalog.device(device).suspended
    if mend == "change":
        world.change(other, suspend)
    elif mend == "add":
        world.add()
    else:
        getattr(world.entitlements, mend)()
    assert row(world, device) == before
    agrees(world)


def test_a_writer_killed_after_its_commit_is_finished_by_the_next_holder(world: World) -> None:
    device = world.add()
    world.change(device, suspend)
    killed(world, "grant_and_die", device)
    assert row(world, device).flags & SUSPENDED  # the grant was not written
    assert not world.catalog.device(device).suspended
    assert world.entitlements.replay() == 1
    assert not row(world, device).flags & SUSPENDED
    agrees(world)


# --- adding -----------------------------------------------------------------------------------------------------


def test_added_devices_may_record_at_once(world: World) -> None:
    added = world.entitlements.add_devices(5, account=1, plans=[monthly(TODAY)])
    assert [facts.device for facts in added] == [1, 2, 3, 4, 5]
    assert all(row(world, facts.device).allows(TODAY) for facts in added)
    agrees(world)


def test_more_devices_than_rows_are_refused_before_anything_is_committed(world: World) -> None:
    for count in (ROWS, ROWS + 5, 10**9):
        before = world.state()
        with pytest.raises(CallerError) as caught:
            world.entitlements.add_devices(count, account=1, plans=())
        assert caught.value.code == "too_many_devices"
        assert str(ROWS - 1) in caught.value.detail
        assert world.state() == before
    world.entitlements.add_devices(ROWS - 3, account=1, plans=())
    with pytest.raises(CallerError):
        world.entitlements.add_devices(3, account=1, plans=())
    world.entitlements.add_devices(2, account=1, plans=[monthly(TODAY)])
    with pytest.raises(CallerError):
        world.entitlements.add_devices(1, account=1, plans=())
    assert row(world, ROWS - 1).allows(TODAY)
    agrees(world)


def test_devices_that_another_host_added_beyond_our_rows_stop_nothing(world: World) -> None:
    device = world.add()
    world.catalog.add_devices(ROWS, account=1, plans=[monthly(TODAY)], now_ms=NOON)
    assert world.entitlements.replay() == ROWS
    assert row(world, ROWS - 1).allows(TODAY)
    assert world.bitmap.probe(ROWS, TODAY, TODAY)[0] == 0
    world.change(device, suspend)
    world.change(ROWS + 1, suspend)
    assert world.catalog.device(ROWS + 1).suspended
    assert row(world, device).flags & SUSPENDED


# --- replay, rebuild, roll --------------------------------------------------------------------------------------


def test_changes_made_elsewhere_arrive(world: World) -> None:
    devices = [world.add() for _ in range(4)]
    for device in devices[1:]:
        elsewhere(world, device, suspended=True)
    elsewhere(world, devices[1], suspended=False)
    assert world.entitlements.replay() == 3
    agrees(world)
    assert world.entitlements.replay() == 0


def test_changes_made_elsewhere_are_written_with_the_next_change_here(world: World) -> None:
    one, other = world.add(), world.add()
    elsewhere(world, other, suspended=True)
    world.change(one, suspend)
    agrees(world)


def test_what_was_replayed_is_not_taken_for_unfinished(world: World) -> None:
    """Else each failed commit after a busy minute elsewhere would write all rows of the host anew."""
    devices = [world.add() for _ in range(4)]
    for device in devices:
        elsewhere(world, device, suspended=True)
    with failing_commits(world, also_reads=True), pytest.raises(CatalogUnavailable):
        world.change(devices[0], resume)
    assert world.bitmap.unfinished == devices[0]


def test_many_rows_in_and_out_of_order(world: World) -> None:
    """Runs longer than a batch, gaps, and a number that the catalog does not have any more."""
    assert BATCH_ROWS > ROWS
    world.entitlements.add_devices(ROWS - 1, account=1, plans=[monthly(TODAY)])
    for device in (*range(5, 20), 40, 42, 99):
        elsewhere(world, device, suspended=True)
    world.entitlements.replay()
    agrees(world)


def test_a_row_whose_device_the_catalog_does_not_have_is_cleared(world: World) -> None:
    device = world.add()
    with world.bitmap.locked():
        world.bitmap.write(device + 1, row(world, device))
        world.bitmap._unsettled = device + 1  # as a writer leaves it that was killed
    world.entitlements.replay()
    assert world.bitmap.read(device + 1) is None
    agrees(world)


@pytest.mark.parametrize("state", ["another boot", "new file"])
def test_a_start_after_another_boot_writes_every_row_anew(world: World, state: str) -> None:
    devices = [world.add() for _ in range(3)]
    world.change(devices[1], suspend)
    with world.bitmap.locked():
        for device in devices:
            world.bitmap.write(device, replace(row(world, device), days=(1 << RING_DAYS) - 1, flags=PRESENT))
        world.bitmap.set_boot_id(b"another boot 123")
        if state == "new file":
            world.bitmap.set_last_change(0)
    assert not world.entitlements.recovered
    assert world.entitlements.recover() == 3
    assert world.bitmap.boot_id == machine_boot_id()
    agrees(world)
    assert world.entitlements.recover() == 0


def test_a_rebuild_knows_what_was_swept(world: World, tmp_path: Path) -> None:
    """Invariant 12: a clock set back resurrects nothing, also with a new bitmap."""
    fence = world.catalog.acquire_lease("sweep", holder="a", ttl_ms=1000, now_ms=NOON)
    assert fence is not None
    world.catalog.advance_closed_through(TODAY - 3, fence=fence)
    EntitlementBitmap.create(tmp_path / "other", ROWS)
    with EntitlementBitmap.open(tmp_path / "other", writable=True) as bitmap:
        world.clock.ms = 0
        entitlements = Entitlements(world.catalog, bitmap, world.clock)
        entitlements.recover()
        assert bitmap.closed_through == entitlements.today() == TODAY - 3


@pytest.mark.parametrize("act", ["replay", "rebuild", "recover", "roll", "change", "add"])
def test_a_restored_catalog_is_refused_and_the_bitmap_stays(world: World, act: str) -> None:
    """Invariant 3: it may have forgotten revocations; and the sweep must go on noticing."""
    device = world.add()
    with world.bitmap.locked():
        world.bitmap.set_last_change(world.catalog.newest_change() + 1)
        world.bitmap.set_boot_id(machine_boot_id() if act != "recover" else b"another boot 123")
    before = world.state()
    acts: dict[str, Callable[[], object]] = {
        "change": lambda: world.change(device, suspend),
        "add": world.add,
    }
    with pytest.raises(CatalogRestored) as caught:
        (acts.get(act) or getattr(world.entitlements, act))()
    assert caught.value.code == "catalog_restored"
    assert "move entitlements.bitmap aside" in caught.value.detail
    assert world.state() == before


def test_rows_are_rolled_before_they_run_out(world: World) -> None:
    """A row nobody rolls fails closed; one that is rolled each day never does."""
    device = world.add(monthly(TODAY - 100))
    first = row(world, device)
    assert not first.allows(TODAY + 128)
    rolled = []
    for day in range(TODAY, TODAY + 140):
        world.clock.ms = day * MS_PER_DAY
        if world.entitlements.roll():
            rolled.append(day - TODAY)
        assert row(world, device).allows(day + ROLL_HORIZON_DAYS - 1)
    assert rolled == [29, 58, 87, 116]


def test_a_roll_compiles_what_begins_and_what_ended(world: World) -> None:
    """The class of a row is that of the plan that runs; also after days without a roll."""
    device = world.add(monthly(TODAY - 100, TODAY + 3, days=7), monthly(TODAY + 4, days=30))
    for days, class_days in ((0, 7), (3, 7), (4, 30)):
        world.clock.ms = NOON + days * MS_PER_DAY
        world.entitlements.roll()
        assert row(world, device).class_days == class_days
    world.clock.ms = NOON
    late = world.add(monthly(TODAY - 100, TODAY + 3, days=7), monthly(TODAY + 4, days=30))
    world.clock.ms = NOON + (OLDEST_ROW_DAYS + 3) * MS_PER_DAY  # the day was weeks ago
    world.entitlements.roll()
    assert row(world, late).class_days == 30
    agrees(world)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["plan", "cancel", "suspend", "days"]), st.integers(0, 400)), max_size=12
    )
)
def test_after_any_history_the_row_is_the_windows(history: list[tuple[str, int]]) -> None:
    """Invariants 2 and 12."""
    with fast_folder() as folder, World(folder) as world:
        device = world.add()
        for what, number in history:
            on = to_date(world.entitlements.today())
            if what == "days":
                world.clock.ms += number % 40 * MS_PER_DAY
                world.entitlements.roll()
            elif what == "suspend":
                world.change(device, suspend if number % 2 else resume)
            elif what == "plan":
                kind = list(PlanKind)[number % 3]
                days = 7 if kind is PlanKind.TRIAL else 1 + number % 255
                begun = started(kind, to_date(TODAY + number - 200), days)
                world.renew(device, row_of(begun))
            else:
                world.change(device, lambda f, on=on: cancelled(f, on))  # type: ignore[misc]
        facts = world.catalog.device(device)
        merged = windows(map(plan_of, facts.plans))
        found = row(world, device)
        today = world.entitlements.today()
        for day in range(today - 255, today + ROLL_HORIZON_DAYS):
            assert found.allows(day) == any(a <= day and (b is None or day <= b) for a, b in merged)
        assert bool(found.flags & SUSPENDED) == facts.suspended
        assert found.class_days == compiled(world, device).class_days


def cancelled(facts: DeviceFacts, on: Any) -> DeviceFacts:
    try:
        return replace(facts, plans=tuple(row_of(cancel(plan_of(p), on), p.plan_id) for p in facts.plans))
    except ClipkeepError:
        return facts


# --- other processes --------------------------------------------------------------------------------------------


def revoke_and_die(world: World, device: int) -> None:
    def die(*args: Any, before_commit: Any, **named: Any) -> Any:
        def killed(old: DeviceFacts, new: DeviceFacts) -> None:
            before_commit(old, new)
            stop()

        return real(*args, before_commit=killed, **named)

    real = world.catalog.update_device
    world.catalog.update_device = die  # type: ignore[assignment,method-assign]
    world.change(device, suspend)


def grant_and_die(world: World, device: int) -> None:
    def die(*args: Any, **named: Any) -> Any:
        real(*args, **named)
        stop()

    real = world.catalog.update_device
    world.catalog.update_device = die  # type: ignore[method-assign]
    world.change(device, resume)


def stop() -> None:
    print("ready", flush=True)
    sys.stdin.read()


def change_many(world: World, first: int) -> None:
    """Suspend and resume devices, renew tokens and add plans, in an order of its own."""
    for turn in range(25):
        device = 1 + (first + 3 * turn) % 8
        if turn % 5 == 4:
            world.renew(device, monthly(TODAY + first * 40 + turn, TODAY + first * 40 + turn + 3))
        else:
            world.change(
                device,
                lambda f: replace(f, suspended=not f.suspended, token_generation=f.token_generation + 1),
            )
    print(json.dumps(world.catalog.newest_change()), flush=True)


ROLES = {role.__name__: role for role in (revoke_and_die, grant_and_die, change_many)}


def child(world: World, role: str, argument: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__, role, str(world.folder), str(argument)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def killed(world: World, role: str, device: int) -> None:
    with child(world, role, device) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
        finally:
            process.kill()


def test_processes_that_change_at_once_agree_with_the_catalog_in_the_end(world: World) -> None:
    for _ in range(8):
        world.add()
    processes = [child(world, "change_many", number) for number in range(4)]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
    assert world.catalog.newest_change() == 8 + 4 * 25
    agrees(world)
    generations = [facts.token_generation for facts in world.catalog.devices()]
    assert sum(generations) == 8 + 4 * 20


if __name__ == "__main__":
    with World(Path(sys.argv[2])) as one:
        ROLES[sys.argv[1]](one, int(sys.argv[3]))
