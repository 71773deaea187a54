"""The catalog on SQLite: the contract, and what is particular to one file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.catalog import Catalog
from storage.contracts.catalog import CatalogContract
from storage.contracts.given import (
    AFTER,
    DAY,
    ENDS,
    MONTH,
    NOON,
    NOW,
    STORED,
    WEEK,
    Opener,
    Upload,
    add_device,
    captures,
    commit,
    day_rows,
    erase,
    everything,
    lease,
    refused,
    segment_of,
    segments,
)
from storage.days import MS_PER_DAY
from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, ClipkeepError, SegmentCorrupt
from storage.rows.devices import EraseState
from storage.rows.recordings import SegmentRow, SegmentState
from storage.sqlite import SqliteCatalog, database
from storage.sqlite.database import CHECKPOINT_PAGES, MAX_IDLE_CONNECTIONS, WAL_LIMIT_BYTES
from storage.sqlite.schema import SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "with space, # and ?" / "catalog.sqlite"
    path.parent.mkdir()
    SqliteCatalog.create(path).close()
    return path


@pytest.fixture
def catalog(path: Path) -> Iterator[SqliteCatalog]:
    catalog = SqliteCatalog.open(path)
    yield catalog
    catalog.close()


def raw(path: Path, *statements: str) -> list[Any]:
    """Run SQL around the catalog; the rows of the last statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        found: list[Any] = []
        for statement in statements:
            found = connection.execute(statement).fetchall()
        return found


class TestSqliteCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, path: Path) -> Opener:
        return partial(SqliteCatalog.open, path)


# --- the file -------------------------------------------------------------------------------------------------


def test_the_log_is_written_back_at_so_many_pages_and_begins_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 40)
    log = path.with_name(path.name + "-wal")
    sizes = []
    with closing(SqliteCatalog.open(path)) as catalog:
        device = add_device(catalog)
        for turn in range(40):
            commit(catalog, Upload(device, NOON + turn))
            sizes.append(log.stat().st_size)
    assert 0 < sizes[0] < sizes[2] < max(sizes) < 2 * 40 * 4096
    assert CHECKPOINT_PAGES * (4096 + 24) < WAL_LIMIT_BYTES  # only what a large one added is cut


def test_commits_are_durable(catalog: SqliteCatalog) -> None:
    """Invariant 1: every connection writes ahead, and syncs at each commit (synchronous 2 is FULL)."""
    taken = [catalog.db._take() for _ in range(3)]
    for connection in taken:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    for connection in taken:
        catalog.db._give_back(connection)


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_created_in_place_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable, match="missing"):
        SqliteCatalog.open(tmp_path / "catalog.sqlite")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CatalogUnavailable):
        SqliteCatalog.create(tmp_path / "no" / "such" / "folder")


def test_an_existing_file_is_not_created_over(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CallerError) as caught:
        SqliteCatalog.create(path)
    assert caught.value.code == "exists"
    assert path.read_bytes() == before


def test_a_catalog_that_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise CatalogUnavailable("disk full")

    monkeypatch.setattr("storage.sqlite.create_schema", fail)
    with pytest.raises(CatalogUnavailable):
        SqliteCatalog.create(tmp_path / "catalog.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 10, 512, 4096, 8192, -4096, -1])
def test_a_cut_file_is_corrupt(path: Path, size: int) -> None:
    """Wherever it was cut: said when it is opened, not when the missing part is first asked for."""
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(CatalogCorrupt) as caught:
        SqliteCatalog.open(path)
    assert caught.value.code == "catalog_corrupt"
    assert caught.value.subject == str(path)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one " * 200, b"\0" * 9000])
def test_what_is_not_a_database_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(content)
    with pytest.raises(CatalogCorrupt):
        SqliteCatalog.open(path)
    assert path.read_bytes() == content


def test_another_schema_version_is_refused_with_both_numbers(path: Path) -> None:
    raw(path, f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(
        CatalogCorrupt, match=f"version {SCHEMA_VERSION + 1}, this release reads {SCHEMA_VERSION}"
    ):
        SqliteCatalog.open(path)
    with closing(sqlite3.connect(path.with_name("other"))) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(CatalogCorrupt, match="not a Clipkeep catalog"):
        SqliteCatalog.open(path.with_name("other"))


def test_a_full_disk_is_told_and_over_when_there_is_room(catalog: SqliteCatalog) -> None:
    """Invariant 1: what could not be committed was not acknowledged, and all before it is there."""
    device = add_device(catalog)
    assert commit(catalog, Upload(device, NOON)) == [STORED]
    with catalog.db.read() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 3}")
    segment = segment_of(catalog, *(Upload(device, NOON + 1 + i) for i in range(500)))
    before = everything(catalog)
    for _ in range(3):
        with pytest.raises(
            CatalogUnavailable, match=r"the disk of the data folder is full.*SQLITE_FULL"
        ) as caught:
            catalog.commit([segment], now_ms=NOW)
        assert caught.value.code == "data_disk_full"
        assert everything(catalog) == before
    with catalog.db.read() as connection:
        connection.execute("PRAGMA max_page_count=1000000")
    [found] = catalog.commit([segment], now_ms=NOW)
    assert not found.any()
    assert len(catalog.chunks(device, 0, 1 << 62, limit=1000)) == 501
    assert list(catalog.broken_rows()) == []


def test_a_busy_catalog_is_unavailable_past_the_bound(path: Path) -> None:
    with closing(SqliteCatalog.open(path, busy_timeout_s=0.01)) as catalog:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CatalogUnavailable, match=r"SQLITE_BUSY.*try again"):
                add_device(catalog)
            assert catalog.devices() == []  # readers do not wait for writers
        assert add_device(catalog) == 1


def test_connections_are_reused_by_threads_that_come_and_go(catalog: SqliteCatalog) -> None:
    def ask() -> None:
        assert catalog.devices() == []

    for _ in range(20):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(catalog.db._idle) == 1
    iterators = [catalog.day_rows(ENDS) for _ in range(MAX_IDLE_CONNECTIONS + 3)]
    add_device(catalog)
    commit(catalog, Upload(1, NOON))
    for rows in iterators:
        next(rows)
    for rows in iterators:
        assert list(rows) == []
    assert len(catalog.db._idle) == MAX_IDLE_CONNECTIONS


def test_device_numbers_are_never_given_twice(catalog: SqliteCatalog, path: Path) -> None:
    """An old token or an old chunk of a removed device must not fit a new one."""
    first, last = add_device(catalog), add_device(catalog)
    raw(path, f"DELETE FROM plans WHERE device = {last}", f"DELETE FROM devices WHERE device = {last}")
    assert add_device(catalog) == last + 1 == first + 2


# --- rebuilding -----------------------------------------------------------------------------------------------


def filled(catalog: Catalog) -> list[tuple[SegmentRow, np.ndarray]]:
    """A catalog with a bit of everything, and what its objects hold."""
    a, b, c = add_device(catalog, WEEK, MONTH), add_device(catalog), add_device(catalog)
    batch = [
        segment_of(catalog, Upload(a, NOON), Upload(b, NOON), Upload(a, NOON, 1), Upload(b, NOON + 1)),
        segment_of(catalog, Upload(a, NOON), Upload(a, NOON + 2), expires_on=DAY + MONTH + 1),
        segment_of(catalog, Upload(c, NOON), Upload(c, NOON + 1), Upload(b, NOON + 3)),
        segment_of(catalog, Upload(b, NOON + 4), Upload(b, NOON + 5)),
        segment_of(catalog, Upload(b, NOON), Upload(b, NOON + 1)),
        segment_of(catalog, Upload(b, NOON + 9)),
    ]
    catalog.commit(batch[:-1], now_ms=NOW)
    catalog.delete_range(b, NOON + 4, NOON + 5, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW)
    return list(zip(segments(catalog), [s.index for s in batch], strict=True))


def lose_rows(path: Path, *, days_too: bool) -> None:
    tables = raw(path, "SELECT name FROM sqlite_master WHERE name LIKE 'chunks_%'")
    raw(path, *(f"DROP TABLE {name}" for (name,) in tables), *(["DELETE FROM days"] if days_too else []))


@pytest.mark.parametrize("days_too", [True, False])
def test_lost_rows_come_back_exactly(catalog: SqliteCatalog, path: Path, days_too: bool) -> None:
    """Invariant 1, from the objects; what a commit had refused or was deleted since does not (invariant 2)."""
    objects = filled(catalog)
    before = everything(catalog)
    rows = sum(len(r) for r in day_rows(catalog).values())
    lose_rows(path, days_too=days_too)
    assert list(catalog.broken_rows())
    if not days_too:
        with pytest.raises(CatalogCorrupt, match="clipkeep catalog rebuild"):
            catalog.chunk(1, NOON)
    assert catalog.rebuild_chunks(iter(objects)) == rows
    assert everything(catalog) == before
    assert list(catalog.broken_rows()) == []
    assert catalog.rebuild_chunks(iter(objects)) == 0
    assert everything(catalog) == before


def test_what_ended_while_the_rows_were_lost_does_not_come_back(catalog: SqliteCatalog, path: Path) -> None:
    """Invariants 2 and 9: an erasure, a deleted range and a closed day count, also on what has no row."""
    objects = filled(catalog)
    a, b, c = 1, 2, 3
    lose_rows(path, days_too=True)
    erase(catalog, c)
    catalog.delete_range(b, NOON, NOON + 1, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW)
    catalog.advance_closed_through(DAY + MONTH + 1, fence=lease(catalog))
    assert catalog.rebuild_chunks(iter(objects)) == 0
    raw(path, f"UPDATE meta SET value = {ENDS - 1} WHERE name = 'closed_through'")
    assert catalog.rebuild_chunks(iter(objects)) == 5
    assert captures(catalog.chunks(a, 0, 1 << 62, limit=9)) == [NOON, NOON + 2]
    assert captures(catalog.chunks(b, 0, 1 << 62, limit=9)) == [NOON + 1, NOON + 3, NOON + 5]
    assert [r.device for r in catalog.day_rows(ENDS) if r.device == c] == []
    assert list(catalog.broken_rows()) == []
    # Nor can the counts drift: later ends find every segment with as many live chunks as it has rows.
    fence = lease(catalog)
    assert catalog.unindex_device(c, fence=fence, now_ms=NOW, delete_after_ms=NOW).chunks == 0
    catalog.delete_range(b, 0, 1 << 60, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW)
    assert captures(catalog.chunks(a, 0, 1 << 62, limit=9)) == [NOON, NOON + 2]
    assert list(catalog.broken_rows()) == []


def test_a_rebuild_that_meets_rows_of_an_erased_device_does_not_count_them_dead_twice(
    catalog: SqliteCatalog,
) -> None:
    """Invariant 3: counted twice, the segment would become a tombstone with a neighbour's live chunk in it."""
    a, b = add_device(catalog), add_device(catalog)
    segment = segment_of(catalog, Upload(a, NOON), Upload(b, NOON))
    catalog.commit([segment], now_ms=NOW)
    erase(catalog, a)
    assert catalog.rebuild_chunks([(segments(catalog)[0], segment.index)]) == 0
    catalog.unindex_device(a, fence=lease(catalog), now_ms=NOW, delete_after_ms=NOW)
    [row] = segments(catalog)
    assert (row.state, row.live_chunks, refused(row)) == (SegmentState.COMMITTED, 1, [0])
    assert catalog.chunk(b, NOON) is not None
    assert list(catalog.broken_rows()) == []


def test_an_index_that_is_not_the_segments_stops_its_rebuild(catalog: SqliteCatalog, path: Path) -> None:
    objects = filled(catalog)
    lose_rows(path, days_too=False)
    with pytest.raises(SegmentCorrupt) as caught:
        catalog.rebuild_chunks([(objects[0][0], objects[1][1])])
    assert caught.value.subject == objects[0][0].key


def test_a_rebuild_of_many_segments(catalog: SqliteCatalog, path: Path) -> None:
    device = add_device(catalog)
    batch = [segment_of(catalog, Upload(device, NOON + i)) for i in range(150)]
    catalog.commit(batch, now_ms=NOW)
    objects = list(zip(segments(catalog), [s.index for s in batch], strict=True))
    lose_rows(path, days_too=True)
    assert catalog.rebuild_chunks(iter(objects)) == 150


# --- damage ---------------------------------------------------------------------------------------------------

DAMAGES: list[tuple[str, str]] = [
    ("DELETE FROM segments WHERE segment_id = 1", "it is absent"),
    ("UPDATE segments SET state = 0 WHERE segment_id = 1", "it is prepared"),
    ("UPDATE segments SET state = 2, delete_after_ms = 0 WHERE segment_id = 1", "it is deleting"),
    ("UPDATE segments SET expires_on = expires_on + 1 WHERE segment_id = 1", "has rows in day"),
    ("UPDATE segments SET live_chunks = 3 WHERE segment_id = 1", "says 3 live chunks, has 2 rows"),
    ("UPDATE segments SET chunks = 9 WHERE segment_id = 1", "are not its 9 chunks"),
    ("UPDATE segments SET chunks = 1, refused = x'' WHERE segment_id = 1", "point outside"),
    ("UPDATE segments SET size_bytes = 100 WHERE segment_id = 1", "point outside"),
    ("UPDATE segments SET refused = x'00000000' WHERE segment_id = 1", "ordinal 0 was refused"),
    (f"DELETE FROM chunks_{ENDS} WHERE ordinal = 1", "says 2 live chunks, has 1 rows"),
    (f"DELETE FROM chunks_{ENDS}", "has no rows"),
    (f"DROP TABLE chunks_{ENDS}", "its table is missing"),
    ("DELETE FROM days", "not listed as a day"),
    (f"UPDATE meta SET value = {ENDS}", "though it was closed"),
    ("UPDATE segments SET delete_after_ms = NULL WHERE segment_id = 2", "no time to be deleted"),
]


@pytest.mark.parametrize(("damage", "wanted"), DAMAGES)
def test_every_kind_of_broken_row_is_told(
    catalog: SqliteCatalog, path: Path, damage: str, wanted: str
) -> None:
    """Invariant 4."""
    device = add_device(catalog)
    commit(catalog, Upload(device, NOON), Upload(device, NOON + 1), Upload(device, NOON))
    commit(catalog, Upload(device, NOON))  # a tombstone
    assert list(catalog.broken_rows()) == []
    raw(path, damage)
    found = list(catalog.broken_rows())
    assert any(wanted in sentence for sentence in found), found


def test_a_damaged_page_is_told_as_corruption(path: Path) -> None:
    with closing(SqliteCatalog.open(path)) as catalog:
        device = add_device(catalog)
        commit(catalog, *(Upload(device, NOON + i) for i in range(500)))
    data = bytearray(path.read_bytes())
    for page in range(4096 * 2, len(data), 4096):
        data[page : page + 100] = b"\xff" * 100
    path.write_bytes(data)
    calls: list[Callable[[Catalog], object]] = [
        lambda c: c.chunk(device, NOON),
        lambda c: commit(c, Upload(device, NOON)),
        lambda c: list(c.broken_rows()),
    ]
    for call in calls:
        with pytest.raises(ClipkeepError) as caught, closing(SqliteCatalog.open(path)) as catalog:
            call(catalog)
        assert caught.value.code == "catalog_corrupt"


def test_a_dropped_day_leaves_its_neighbours_and_gives_its_pages_back(catalog: SqliteCatalog) -> None:
    device = add_device(catalog)
    commit(catalog, *(Upload(device, NOON + i) for i in range(500)))
    commit(catalog, Upload(device, NOON + MS_PER_DAY), expires_on=ENDS + 1)
    catalog.close_day(ENDS, fence=lease(catalog), now_ms=AFTER, delete_after_ms=AFTER)
    with catalog.db.read() as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 5
        names = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'chunks_%'").fetchall()
    assert names == [(f"chunks_{ENDS + 1}",)]
    assert catalog.device(device).erase_state == EraseState.NONE
