"""Long deletions on SQLite: several transactions, unserved from the first, finished by whoever comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage.contracts.given import (
    DAY,
    DELETED,
    MONTH,
    NOON,
    NOW,
    WEEK,
    Upload,
    add_device,
    captures,
    commit,
    everything,
)
from storage.rows.recordings import Unindexed
from storage.sql import deletions
from storage.sqlite import SqliteCatalog
from storage.sqlite.database import SqliteDatabase

COUNT = 25


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "ROWS_AT_ONCE", 10)


def two_days(catalog: SqliteCatalog) -> int:
    """A device with COUNT chunks in turn in two expiry days."""
    device = add_device(catalog, WEEK, MONTH)
    for first, days in ((0, WEEK), (1, MONTH)):
        found = [Upload(device, NOON + n) for n in range(first, COUNT, 2)]
        commit(catalog, *found, expires_on=DAY + days + 1)
    return device


def delete(catalog: SqliteCatalog, device: int, stop: int = COUNT) -> Unindexed:
    return catalog.delete_range(
        device, NOON, NOON + stop, reason="asked", who="owner", now_ms=NOW, delete_after_ms=NOW
    )


def listed(catalog: SqliteCatalog, device: int) -> list[int]:
    everywhere = captures(catalog.chunks(device, 0, 1 << 62, limit=100))
    assert captures(catalog.latest_chunks(device, limit=100)) == everywhere
    assert all(catalog.chunk(device, ms) is not None for ms in everywhere)
    return [ms - NOON for ms in everywhere]


@pytest.mark.parametrize("stop", [1, 9, 10, 11, 20, 24, 25, 1000])
def test_a_long_range_goes_in_several_steps(catalog: SqliteCatalog, stop: int) -> None:
    device = two_days(catalog)
    assert delete(catalog, device, stop).chunks == min(stop, COUNT)
    assert listed(catalog, device) == list(range(stop, COUNT))
    assert catalog.unfinished_deletions() == []


class Killed(Exception):
    pass


def die_after(monkeypatch: pytest.MonkeyPatch, commits: int) -> None:
    """Let the process, so to speak, die in the write transaction after so many."""
    write, left = SqliteDatabase.write, iter(range(commits))

    def written(self: SqliteDatabase, *arguments: Any) -> object:
        if next(left, None) is None:
            raise Killed
        return write(self, *arguments)

    monkeypatch.setattr(SqliteDatabase, "write", written)


@pytest.mark.parametrize("commits", range(4))
def test_killed_at_any_step_it_is_unserved_refused_and_resumable(
    path: Path, catalog: SqliteCatalog, commits: int
) -> None:
    device = two_days(catalog)
    with pytest.MonkeyPatch.context() as dying:
        die_after(dying, commits)
        if commits < 3:
            with pytest.raises(Killed):
                delete(catalog, device)
        else:
            delete(catalog, device)
    begun = commits > 0
    assert listed(catalog, device) == ([] if begun else list(range(COUNT)))
    assert catalog.unfinished_deletions() == ([1] if begun and commits < 3 else [])
    if not begun:
        return
    assert commit(catalog, Upload(device, NOON + 24)) == [DELETED]
    left = len(list(catalog.day_rows(DAY + WEEK + 1))) + len(list(catalog.day_rows(DAY + MONTH + 1)))
    assert left == max(0, COUNT - 10 * commits)
    assert catalog.finish_deletion(1, now_ms=NOW, delete_after_ms=NOW).chunks == left
    assert catalog.unfinished_deletions() == []
    before = everything(catalog)
    assert catalog.finish_deletion(1, now_ms=NOW, delete_after_ms=NOW) == Unindexed()
    assert catalog.finish_deletion(77, now_ms=NOW, delete_after_ms=NOW) == Unindexed()
    assert everything(catalog) == before


def test_who_and_why_are_recorded_with_the_first_step(
    catalog: SqliteCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = two_days(catalog)
    with pytest.MonkeyPatch.context() as dying:
        die_after(dying, 1)
        with pytest.raises(Killed):
            delete(catalog, device)
    with catalog.db.read() as connection:
        rows = connection.execute("SELECT device, reason, who, chunks, done_ms FROM deletions").fetchall()
    # Without a vault a reason is not kept: test_sqlite_books has it with one.
    assert rows == [(device, b"", "owner", 10, None)]
    catalog.finish_deletion(1, now_ms=NOW + 5, delete_after_ms=NOW)
    with catalog.db.read() as connection:
        rows = connection.execute("SELECT chunks, done_ms FROM deletions").fetchall()
    assert rows == [(COUNT, NOW + 5)]


def test_another_devices_recordings_are_served_meanwhile(catalog: SqliteCatalog) -> None:
    device, other = two_days(catalog), two_days(catalog)
    with pytest.MonkeyPatch.context() as dying:
        die_after(dying, 1)
        with pytest.raises(Killed):
            delete(catalog, device, 12)
    assert listed(catalog, device) == list(range(12, COUNT))
    assert listed(catalog, other) == list(range(COUNT))
