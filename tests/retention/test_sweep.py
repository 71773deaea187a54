"""The sweep, phase by phase."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from retention.sweep.planning import last_month_over
from storage.days import ms_of_day, to_date
from storage.objects import DELETE_BATCH_KEYS
from storage.rows.recordings import Verdict
from tests.retention.sweeping import (
    DAY_MS,
    ENDS,
    EXPIRED_MS,
    Replaced,
    Sent,
    at,
    busy_world,
    keep_today,
    last_report,
    swept,
)
from tests.retention.world import (
    DELAY_MS,
    NOON,
    SLACK_MS,
    TTL_MS,
    WEEK,
    World,
    fast_folder,
)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


# --- age --------------------------------------------------------------------------------------------------------


def test_a_day_is_unindexed_then_its_objects_go_after_the_delay(world: World) -> None:
    """Invariants 2 and 6."""
    device = world.add()
    captures = keep_today(world, device, 3)
    [key] = world.objects()
    assert world.serves(device, *captures) == [True] * 3

    report = at(world, EXPIRED_MS)
    assert report.days == [
        {
            "day": to_date(ENDS).isoformat(),
            "segments": 1,
            "chunks": 3,
            "bytes": len(world.memory.objects[key]),
        }
    ]
    assert (report.unindexed_chunks, report.deleted_objects, report.delete_calls) == (3, 0, 0)
    assert world.serves(device, *captures) == [False] * 3
    assert world.catalog.closed_through == world.bitmap.closed_through == ENDS
    assert list(world.catalog.day_rows(ENDS)) == []
    assert world.states() == {key: "DELETING"}

    assert at(world, EXPIRED_MS + DELAY_MS - 1).deleted_objects == 0
    assert world.objects() == {key}
    size = len(world.memory.objects[key])
    report = at(world, EXPIRED_MS + DELAY_MS)
    assert (report.deleted_objects, report.deleted_bytes, report.delete_calls) == (1, size, 1)
    assert world.objects() == set()
    assert world.states() == {}
    assert last_report(world) == report.as_dict()


def test_the_day_boundary_and_the_slack_to_the_millisecond(world: World) -> None:
    """Invariants 2 and 3: denied from 00:00 UTC on, swept from the slack on, not before."""
    device = world.add()
    captures = keep_today(world, device)
    for ms, served in ((ms_of_day(ENDS) - 1, True), (ms_of_day(ENDS), False)):
        world.clock.ms = ms
        assert world.serves(device, *captures) == [served]
    assert at(world, EXPIRED_MS - 1).days == []
    assert world.catalog.closed_through == ENDS - 1
    assert len(at(world, EXPIRED_MS).days) == 1


def test_a_second_pass_changes_nothing(world: World) -> None:
    device = world.add()
    keep_today(world, device)
    at(world, EXPIRED_MS)
    before = world.state()
    report = swept(world)
    after = world.state()
    assert (report.days, report.deleted_objects, report.destroyed_keys) == ([], 0, 0)
    assert before.pop("reports") != after.pop("reports")
    assert before == after


def test_many_days_are_made_good_at_once_oldest_first(world: World) -> None:
    device = world.add()
    for days_ago in (3, 0, 5):
        keep_today(world, device, at_ms=NOON - days_ago * DAY_MS)
    report = at(world, EXPIRED_MS)
    assert [d["day"] for d in report.days] == [to_date(ENDS - days).isoformat() for days in (5, 3, 0)]


def test_expiry_costs_what_expired(world: World) -> None:
    """No listing, no look at an object but the mark, ceil(n / 1000) calls to delete; what lives is not touched."""
    device = world.add()
    count = 2 * DELETE_BATCH_KEYS + 1
    keys = world.catalog.prepare(worker="w0", class_days=31, expires_on=ENDS, count=count, now_ms=NOON)
    kept_commit, _ = world.put([(device, NOON)])
    commits = [
        replace(kept_commit, segment_id=key.segment_id, index=_moved(kept_commit.index, 1 + number))
        for number, key in enumerate(keys)
    ]
    world.catalog.commit([kept_commit, *commits], now_ms=NOON)
    live = keep_today(world, device, at_ms=NOON + DAY_MS)
    world.store.asked.clear()
    at(world, EXPIRED_MS)
    assert world.store.asked == {"server_time_s": 1, "get_range": 1, "put": 1}
    world.store.asked.clear()
    report = at(world, EXPIRED_MS + DELAY_MS)
    assert (report.deleted_objects, report.delete_calls) == (count + 1, 3)
    assert world.store.asked == {
        "server_time_s": 1,
        "get_range": 1,
        "delete_many": 3,
        "delete_key": count + 1,
    }
    assert world.serves(device, *live) == [True]
    assert len(world.states()) == 1


def _moved(index: Any, number: int) -> Any:
    moved = index.copy()
    moved["capture_ms"] += number
    return moved


def test_a_months_keys_go_with_its_last_day(world: World) -> None:
    """They are named by the month in which the chunks expire, so no chunk that lives needs them."""
    device = world.add()
    last_of_june = 20_269  # 2025-06-30
    first = keep_today(world, device, at_ms=NOON)  # expires 2025-06-23
    last = keep_today(world, device, at_ms=ms_of_day(last_of_june - WEEK - 1))
    july = keep_today(world, device, at_ms=ms_of_day(last_of_june - WEEK))
    report = at(world, ms_of_day(last_of_june) + SLACK_MS - 1)
    assert report.destroyed_keys == 0
    assert world.attacked() == {(device, ms) for ms in (*first, *last, *july)}
    report = at(world, ms_of_day(last_of_june) + SLACK_MS)
    assert report.destroyed_keys == 1
    assert world.attacked() == {(device, ms) for ms in july}
    assert world.serves(device, *july) == [True]


@pytest.mark.parametrize(
    ("expired_through", "month"),
    [(20_268, 202505), (20_269, 202506), (20_270, 202506), (20_453, 202512), (20_454, 202512)],
)
def test_the_month_whose_keys_go(expired_through: int, month: int) -> None:
    """20269 is 2025-06-30, 20453 is 2025-12-31."""
    assert last_month_over(expired_through) == month


# --- prepared keys ----------------------------------------------------------------------------------------------


def test_a_prepared_key_past_its_time_is_reclaimed_and_deleted_twice(world: World) -> None:
    """Invariant 5: a stalled PUT that ends after the first delete leaves no orphan."""
    device = world.add()
    late, prepared = world.put([(device, NOON)])
    body = bytearray(world.memory.objects[prepared.key])
    assert at(world, NOON + TTL_MS).reclaimed_keys == 0
    assert world.states() == {prepared.key: "PREPARED"}

    reclaimed_ms = NOON + TTL_MS + 1
    report = at(world, reclaimed_ms)
    assert (report.reclaimed_keys, report.delete_calls) == (1, 1)
    assert world.objects() == set()
    assert world.states() == {prepared.key: "DELETING"}
    world.store.inner.put(prepared.key, body, late.crc32)  # the stalled PUT arrives
    [verdicts] = world.catalog.commit([late], now_ms=world.clock.ms)
    assert [Verdict(v) for v in verdicts] == [Verdict.RECLAIMED]

    at(world, reclaimed_ms + TTL_MS - 1)
    assert world.objects() == {prepared.key}
    at(world, reclaimed_ms + TTL_MS)
    assert (world.objects(), world.states()) == (set(), {})
    assert world.store.asked["list"] == 0


def test_a_commit_before_the_reclaim_wins(world: World) -> None:
    device = world.add()
    commit, _ = world.put([(device, NOON)])
    world.clock.ms = NOON + TTL_MS + 1

    def commit_first(*args: Any, **named: Any) -> int:
        world.catalog.commit([commit], now_ms=world.clock.ms)
        return reclaim(*args, **named)

    reclaim = world.catalog.reclaim
    world.sweep(catalog=Replaced(world.catalog, reclaim=commit_first)).run()
    assert world.serves(device, NOON) == [True]


# --- dry run ----------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_lists_what_the_real_run_deletes(world: World) -> None:
    """Invariant 13, at several moments of a longer story."""
    busy_world(world)
    for _ in range(4):
        before = world.state()
        asked = world.store.asked.copy()
        plan = world.sweep().plan()
        due_keys = sorted(world.sweep().due_keys(plan))
        assert world.state() == before
        assert world.store.asked - asked == {"server_time_s": 1, "get_range": 1}

        sent = Sent(world.store)
        report = world.sweep(store=Replaced(world.store, delete_many=sent)).run()
        summary = plan.summary()
        assert sorted(sent.keys) == due_keys
        assert len(due_keys) == summary["delete_objects"]
        assert report.days == summary["expire"]
        assert report.reclaimed_keys == len(summary["reclaim"])
        assert [{k: d[k] for k in ("device", "why")} for d in report.erased_devices] == summary["erase"]
        json.dumps(summary)
        world.clock.ms += DELAY_MS
    assert sent.keys == []
