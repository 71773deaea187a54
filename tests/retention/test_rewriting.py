"""Rewriting mostly dead segments: what lives stays readable, what is dead goes, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retention.sweep import SweepReport, is_ours
from retention.sweep.planning import MAX_REWRITES, REWRITE_DAYS_LEFT
from retention.sweep.rewriting import MAX_FAILED_IN_A_ROW, SET_ASIDE_MS
from storage.days import MS_PER_DAY, ms_of_day
from storage.errors import CatalogCorrupt, LeaseLost
from storage.faults import Fault, FaultKind, no_faults
from storage.segment import parse_segment
from tests.retention.world import (
    DELAY_MS,
    LEASE_MS,
    NOON,
    SLACK_MS,
    TODAY,
    TTL_MS,
    World,
    fast_folder,
)

LATE = TODAY + 201
CAPTURES = [NOON + 2000 * n for n in range(8)]


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world
        world.sound()


def half_dead(world: World, *, dead: int = 5, expires_on: int = LATE) -> tuple[int, str]:
    """A device and its segment of eight chunks, of which so many were deleted."""
    device = world.add()
    key = world.keep([(device, ms) for ms in CAPTURES], expires_on=expires_on)
    delete(world, device, 0, dead)
    return device, key


def delete(world: World, device: int, first: int, stop: int) -> None:
    if first < stop:
        world.catalog.delete_range(
            device,
            CAPTURES[first],
            CAPTURES[stop - 1] + 1,
            reason="test",
            who="test",
            now_ms=world.clock.ms,
            delete_after_ms=world.clock.ms + DELAY_MS,
        )


def swept(world: World, **changed: Any) -> SweepReport:
    return world.sweep(**changed).run()


def test_what_lives_moves_to_a_new_object_byte_for_byte(world: World) -> None:
    """Invariant 1: no key is needed for it, and readers in flight keep the old object through the delay."""
    device, old = half_dead(world)
    before = world.catalog.chunk(device, CAPTURES[6])
    report = swept(world)
    assert report.rewritten_segments == 1
    [new] = world.objects() - {old}
    assert world.states() == {old: "DELETING", new: "COMMITTED"}
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3
    after = world.catalog.chunk(device, CAPTURES[6])
    assert before is not None
    assert after is not None
    assert (after.segment_key, after.nonce, after.crc32) == (new, before.nonce, before.crc32)
    assert after.is_same_chunk(before)
    assert world.decrypted(before) == world.decrypted(after)
    sizes = [len(world.memory.objects[key]) for key in (old, new)]
    assert (report.rewritten_bytes, report.freed_bytes) == (sizes[0], sizes[0] - sizes[1])
    footer, index = parse_segment(world.memory.objects[new])
    assert (footer.segment_id, footer.expires_on, len(index)) == (after.segment_id, LATE, 3)
    world.clock.ms += DELAY_MS
    swept(world)
    assert world.objects() == {new}
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3


@pytest.mark.parametrize(("dead", "rewritten"), [(3, 0), (4, 1), (7, 1), (8, 0)])
def test_half_of_it_is_enough_less_is_not_and_all_needs_none(world: World, dead: int, rewritten: int) -> None:
    half_dead(world, dead=dead)
    plan = world.sweep().plan()
    assert len(plan.rewrite) == rewritten
    assert swept(world).rewritten_segments == rewritten


@pytest.mark.parametrize(("days", "rewritten"), [(REWRITE_DAYS_LEFT, 0), (REWRITE_DAYS_LEFT + 1, 1)])
def test_what_goes_soon_is_left_to_its_day(world: World, days: int, rewritten: int) -> None:
    half_dead(world, expires_on=TODAY + days)
    assert swept(world).rewritten_segments == rewritten


def test_the_bytes_of_a_pass_are_bounded_and_the_best_come_first(world: World) -> None:
    _, least = half_dead(world, dead=4)
    _, most = half_dead(world, dead=7)
    _, sooner = half_dead(world, dead=7, expires_on=TODAY + 100)
    size = max(map(len, world.memory.objects.values()))
    assert [row.key for row in world.sweep().plan().rewrite] == [most, least, sooner]
    for left in ([most], [least], [sooner], []):
        assert [row.key for row in world.sweep(rewrite_bytes=size).plan().rewrite] == left
        assert swept(world, rewrite_bytes=size).rewritten_segments == len(left)
    assert world.sweep(rewrite_bytes=0).plan().rewrite == ()
    assert MAX_REWRITES >= 1


def test_a_rewritten_segment_may_be_rewritten_again_and_expires_with_its_day(world: World) -> None:
    device, _ = half_dead(world, dead=4)
    swept(world)
    delete(world, device, 4, 6)
    assert swept(world).rewritten_segments == 1
    assert world.serves(device, *CAPTURES) == [False] * 6 + [True] * 2
    world.clock.ms = ms_of_day(LATE) + SLACK_MS
    swept(world)
    world.clock.ms += DELAY_MS
    swept(world)
    assert (world.objects(), world.states()) == (set(), {})


def test_an_erased_neighbour_is_not_carried_along(world: World) -> None:
    """Invariant 10: what is left of it is not even copied."""
    gone, stays = world.add(), world.add()
    world.keep([(d, ms) for ms in CAPTURES for d in (gone, stays)], expires_on=LATE)
    world.terminate(gone, erase=True)
    swept(world)
    assert swept(world).rewritten_segments == 1
    [new] = [row for row in world.catalog.segments() if row.state.name == "COMMITTED"]
    assert set(parse_segment(world.memory.objects[new.key])[1]["device"].tolist()) == {stays}
    assert world.serves(stays, *CAPTURES) == [True] * 8


# --- races: something happens between the copy and the swap -----------------------------------------------------


class Meanwhile:
    """Stands before the catalog; something happens right before rows are swapped."""

    def __init__(self, world: World, act: Callable[[], object]) -> None:
        self._world, self._act = world, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.catalog, name)

    def swap_segment(self, *args: Any, **named: Any) -> bool:
        self._act()
        return self._world.catalog.swap_segment(*args, **named)


@pytest.mark.parametrize("stop", [6, 7, 8])
def test_a_range_deleted_meanwhile_stays_deleted(world: World, stop: int) -> None:
    device, old = half_dead(world)
    report = swept(world, catalog=Meanwhile(world, lambda: delete(world, device, 5, stop)))
    assert report.failed_rewrites == {}
    assert world.serves(device, *CAPTURES) == [False] * stop + [True] * (8 - stop)
    assert world.states()[old] == "DELETING"
    assert sorted(world.states().values()) == (["COMMITTED", "DELETING"] if stop < 8 else ["DELETING"] * 2)


def test_a_day_closed_meanwhile_stays_closed(world: World) -> None:
    device, _ = half_dead(world)

    def close() -> None:
        fence = world.catalog.acquire_lease("sweep", holder="x", ttl_ms=1, now_ms=world.clock.ms + LEASE_MS)
        assert fence is not None
        world.catalog.close_day(LATE, fence=fence, now_ms=ms_of_day(LATE), delete_after_ms=0)
        world.catalog.release_lease("sweep", fence=fence)

    with pytest.raises(LeaseLost):
        swept(world, catalog=Meanwhile(world, close))
    assert world.serves(device, *CAPTURES) == [False] * 8
    assert sorted(world.states().values()) == ["DELETING", "PREPARED"]


def test_an_erasure_marked_meanwhile_is_finished_in_the_new_segment(world: World) -> None:
    """Invariants 9 and 10."""
    device, _ = half_dead(world)
    swept(world, catalog=Meanwhile(world, lambda: world.terminate(device, erase=True)))
    assert world.serves(device, *CAPTURES) == [False] * 8
    swept(world)
    assert world.attacked() == set()
    assert set(world.states().values()) == {"DELETING"}


def test_a_key_reclaimed_meanwhile_swaps_nothing(world: World) -> None:
    """Invariant 5: a put that took longer than the prepare ttl; the old segment stays what it was."""
    device, old = half_dead(world)

    def reclaim() -> None:
        [row] = [row for row in world.catalog.segments() if row.state.name == "PREPARED"]
        fence = world.catalog.acquire_lease("sweep", holder="x", ttl_ms=1, now_ms=world.clock.ms + LEASE_MS)
        assert fence is not None
        world.catalog.reclaim([row.segment_id], fence=fence, now_ms=world.clock.ms)

    with pytest.raises(LeaseLost):
        swept(world, catalog=Meanwhile(world, reclaim))
    assert world.states()[old] == "COMMITTED"
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3


def test_uploads_meanwhile_are_stored_once(world: World) -> None:
    """The same chunk sent again while its row moves is a duplicate before and after."""
    device, _ = half_dead(world)
    again, _ = world.put([(device, CAPTURES[7])], expires_on=LATE)
    found: list[int] = []
    swept(
        world,
        catalog=Meanwhile(
            world, lambda: found.extend(world.catalog.commit([again], now_ms=world.clock.ms)[0].tolist())
        ),
    )
    assert found == [1]  # Verdict.DUPLICATE
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["get_range", "put"])
@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.AFTER, FaultKind.DENIED, FaultKind.SLOW_DOWN])
def test_a_call_that_fails_leaves_everything_served_and_no_orphan(
    world: World, op: str, kind: FaultKind
) -> None:
    device, old = half_dead(world)
    world.store.plan = lambda asked, key, nth: Fault(kind) if asked == op and is_ours(key) else None
    report = swept(world)
    assert (report.rewritten_segments, list(report.failed_rewrites)) == (0, [old])
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3
    world.store.plan = no_faults
    assert world.sweep().plan().rewrite == ()
    world.clock.ms += SET_ASIDE_MS
    assert swept(world).rewritten_segments == 1
    for _ in range(2):
        world.clock.ms += max(DELAY_MS, TTL_MS) + 1
        swept(world)
    assert len(world.objects()) == len(world.states()) == 1
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "another"])
def test_a_damaged_segment_is_set_aside_and_never_laundered(world: World, damage: str) -> None:
    device, old = half_dead(world)
    _, other = half_dead(world)
    body = bytearray(world.memory.objects[old])
    body[20] ^= 1
    kept = world.memory.objects[old]
    if damage == "gone":
        del world.memory.objects[old]
    else:
        forms = {"flipped": bytes(body), "cut": kept[:-1], "another": world.memory.objects[other]}
        world.memory.objects[old] = forms[damage]
    report = swept(world)
    assert list(report.failed_rewrites) == [old]
    assert report.rewritten_segments == 1
    assert world.states()[old] == "COMMITTED"
    assert swept(world).failed_rewrites == {}
    world.memory.objects[old] = kept
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3
    world.clock.ms = ms_of_day(LATE) + SLACK_MS
    swept(world)
    assert world.catalog.totals().failing_tombstones == 0


def test_a_store_that_is_down_is_not_asked_about_every_segment(world: World) -> None:
    for _ in range(MAX_FAILED_IN_A_ROW + 3):
        half_dead(world)
    world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE) if op == "put" else None
    assert len(swept(world).failed_rewrites) == MAX_FAILED_IN_A_ROW


def test_rows_that_the_index_does_not_explain_stop_the_swap(world: World) -> None:
    """Never lose a chunk: a catalog that says more lives than was copied keeps its old segment."""
    device, old = half_dead(world)
    with world.catalog.db.hold() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE segments SET live_chunks = 4")
    report = swept(world)
    assert CatalogCorrupt.code in report.failed_rewrites[old]
    assert world.states()[old] == "COMMITTED"
    assert world.serves(device, *CAPTURES) == [False] * 5 + [True] * 3
    with world.catalog.db.hold() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE segments SET live_chunks = 3 WHERE state = 1")
    world.clock.ms += MS_PER_DAY
    assert swept(world).rewritten_segments == 1
