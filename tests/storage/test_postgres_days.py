"""The tables of days on PostgreSQL: packed rows, tables made ahead, tables that are dropped while they are read."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.contracts.given import (
    DAY,
    DUPLICATE,
    ENDS,
    MONTH,
    NOON,
    NOW,
    STORED,
    WEEK,
    Upload,
    add_device,
    captures,
    commit,
    lease,
    segment_of,
)
from storage.days import MS_PER_DAY, expiry_day, ms_of_day
from storage.errors import CatalogCorrupt, CatalogUnavailable
from storage.postgres import PostgresCatalog
from storage.postgres.connection import PostgresConnection
from storage.postgres.packed_rows import ORDINAL_BITS, packed, packed_row
from storage.segment import INDEX_DTYPE
from storage.sql.connection import Taken
from storage.sql.newrows import CHUNK_COLUMNS, NewRows

CLOSED = ms_of_day(ENDS) + 1


@pytest.fixture
def catalog(url: str) -> Iterator[PostgresCatalog]:
    catalog = PostgresCatalog.open(url)
    yield catalog
    catalog.close()


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^(chunks|packed)_[0-9]+$'")
        return {name for (name,) in rows}


# --- packed rows ------------------------------------------------------------------------------------------------

LARGEST = {
    "capture_ms": (1 << 42) - 1,
    "crc64": (1 << 64) - 1,
    "device": (1 << 32) - 1,
    "epoch": (1 << 32) - 1,
    "offset": (1 << 31) - 1,
    "length": 1 << 24,
    "crc32": (1 << 32) - 1,
    "duration_ms": (1 << 22) - 1,
    "media": 3,
}
FIELDS = st.fixed_dictionaries(
    {
        **{name: st.sampled_from([1, most]) | st.integers(1, most) for name, most in LARGEST.items()},
        "nonce": st.binary(min_size=12, max_size=12),
        "facts": st.binary(min_size=29, max_size=29),
    }
)
LAST_ORDINAL = (1 << ORDINAL_BITS) - 1


@given(
    rows=st.lists(FIELDS, min_size=1, max_size=5, unique_by=lambda row: (row["device"], row["capture_ms"])),
    segment_id=st.integers(1, (1 << 46) - 1),
    first=st.integers(0, LAST_ORDINAL - 5),
    careful=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_what_is_packed_is_read_back(
    catalog: PostgresCatalog, rows: list[dict[str, Any]], segment_id: int, first: int, careful: bool
) -> None:
    """By COPY and the careful way, with the smallest and the largest of every value."""
    index = np.zeros(len(rows), dtype=INDEX_DTYPE)
    for place, row in enumerate(rows):
        for name, value in row.items():
            index[name][place] = np.void(value) if isinstance(value, bytes) else value
    ordinals = np.arange(first, first + len(rows))
    new = NewRows(index, np.full(len(rows), segment_id), ordinals)
    with catalog.db.hold() as connection:
        connection.execute("DROP VIEW IF EXISTS chunks_7")
        connection.execute("DROP TABLE IF EXISTS packed_7")
        connection.create_chunk_table(7)
        assert connection.insert_chunks("chunks_7", new, careful) == ([] if careful else ())
        found = connection.execute(f"SELECT {', '.join(CHUNK_COLUMNS)} FROM chunks_7").fetchall()
        assert sorted(found) == sorted(new.values())
        kept = sorted(map(tuple, connection.execute("SELECT * FROM packed_7")), key=lambda row: row[1])
        names = [name.strip('"') for name in CHUNK_COLUMNS]
        copied: list[dict[str, Any]] = [dict(zip(names, values, strict=True)) for values in new.values()]
        assert kept == [packed_row(**row) for row in copied]
        with pytest.raises(Taken):
            connection.insert_chunks("chunks_7", new, False)
        connection.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("name", "value"), [("duration_ms", 1 << 22), ("media", 4), ("offset", 1 << 31), ("ordinal", 1 << 17)]
)
def test_what_a_row_has_no_room_for_is_not_cut(name: str, value: int) -> None:
    index, ordinals = np.zeros(1, dtype=INDEX_DTYPE), np.zeros(1, dtype=np.int64)
    (ordinals if name == "ordinal" else index[name])[0] = value
    with pytest.raises(OverflowError, match=str(value)):
        packed(NewRows(index, np.ones(1, dtype=np.int64), ordinals))


def test_a_row_takes_112_bytes(catalog: PostgresCatalog, url: str) -> None:
    """And 4 for its place in the page: at 150 bytes a chunk, what is left is the index's."""
    device = add_device(catalog, WEEK)
    assert set(commit(catalog, *(Upload(device, NOON + i) for i in range(1000)))) == {STORED}
    with psycopg.connect(url) as connection:
        [pages] = connection.execute(f"SELECT pg_relation_size('packed_{ENDS}') / 8192").fetchone() or ()
    assert pages == -(-1000 // 70)


def test_no_vacuum_comes_for_what_is_only_added(catalog: PostgresCatalog, url: str) -> None:
    """It would write each page, and its image into the log, once more."""
    add_device(catalog, WEEK)
    catalog.make_ready(DAY)
    with psycopg.connect(url) as connection:
        [options] = (
            connection.execute(
                "SELECT reloptions FROM pg_class WHERE relname = %s", (f"packed_{ENDS}",)
            ).fetchone()
            or ()
        )
    assert "autovacuum_vacuum_insert_threshold=-1" in options


# --- commits -----------------------------------------------------------------------------------------------------


def test_a_duplicate_among_many_is_told_from_the_others(catalog: PostgresCatalog) -> None:
    """The whole commit is done again, and only the chunk in the way is looked at by itself."""
    device = add_device(catalog, WEEK)
    commit(catalog, Upload(device, NOON + 5))
    uploads = [Upload(device, NOON + i) for i in range(10)]
    first, second = segment_of(catalog, *uploads), segment_of(catalog, Upload(device, NOON + 3))
    found = [verdicts.tolist() for verdicts in catalog.commit([first, second], now_ms=NOW)]
    assert found == [[DUPLICATE if i == 5 else STORED for i in range(10)], [DUPLICATE]]
    assert captures(catalog.chunks(device, 0, 1 << 50, limit=99)) == [NOON + i for i in range(10)]
    assert list(catalog.broken_rows()) == []


def test_a_commit_takes_few_messages_however_many_segments_it_has(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [add_device(catalog, WEEK) for _ in range(5)]
    commit(catalog, *(Upload(device, NOON) for device in devices))
    segments = [segment_of(catalog, *(Upload(d, NOON + i) for d in devices)) for i in range(1, 11)]
    seen: list[str] = []

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            seen.append(name)
            return original(*args)

        return call

    for name in ("run", "execute", "executemany", "together", "insert_chunks"):
        monkeypatch.setattr(PostgresConnection, name, counted(name, getattr(PostgresConnection, name)))
    found = catalog.commit(segments, now_ms=NOW)
    assert all(set(verdicts) == {STORED} for verdicts in found)
    assert seen == ["run", "together", "insert_chunks", "run"]


# --- days --------------------------------------------------------------------------------------------------------


def test_tables_are_made_ahead_for_the_classes_of_plans_that_run(catalog: PostgresCatalog, url: str) -> None:
    add_device(catalog, WEEK)
    add_device(catalog, MONTH)
    catalog.make_ready(DAY)
    days = {expiry_day(DAY + later, days) for later in (0, 1) for days in (WEEK, MONTH)}
    assert tables(url) == {f"{kind}_{day}" for kind in ("chunks", "packed") for day in days}
    catalog.make_ready(DAY)  # again, and by another process
    other = PostgresCatalog.open(url)
    other.make_ready(DAY)
    other.close()
    assert {held.expires_on for held in catalog.open_days(1 << 20)} == days


def test_a_reader_of_a_closed_day_keeps_nobody_waiting(catalog: PostgresCatalog, url: str) -> None:
    device = add_device(catalog, WEEK, MONTH)
    commit(catalog, Upload(device, NOON))
    impatient = PostgresCatalog.open(url, lock_timeout_ms=2_000)
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as thread:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert reader.execute(f"SELECT count(*) FROM chunks_{ENDS}").fetchone() == (1,)
        totals = thread.submit(
            impatient.close_day, ENDS, fence=lease(impatient), now_ms=CLOSED, delete_after_ms=CLOSED
        ).result(30)
        assert totals.chunks == 1
        later = ENDS + 1
        assert commit(impatient, Upload(device, NOON + MS_PER_DAY), expires_on=later) == [STORED]
        assert impatient.chunks(device, 0, NOON + 1, limit=9) == []
        for _ in range(3):
            impatient.record_sweep({}, now_ms=CLOSED)
        assert reader.execute(f"SELECT count(*) FROM chunks_{ENDS}").fetchone() == (1,), "still whole"
        assert f"packed_{ENDS}" in tables(url)
    impatient.record_sweep({}, now_ms=CLOSED)
    assert tables(url) == {f"chunks_{later}", f"packed_{later}"}
    impatient.close()


def test_a_table_that_went_with_its_day_is_no_damage(catalog: PostgresCatalog, url: str) -> None:
    device = add_device(catalog, WEEK)
    commit(catalog, Upload(device, NOON))
    with (
        pytest.raises(CatalogUnavailable, match="trying again is safe") as found,
        catalog.db.read() as connection,
    ):
        connection.execute(f"SELECT count(*) FROM chunks_{ENDS + 5}")
    assert "rebuild" not in str(found.value)
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE packed_{ENDS} CASCADE".encode())
    with pytest.raises(CatalogCorrupt, match="rebuild"):
        catalog.chunks(device, NOON, NOON + 1, limit=1)


def test_a_day_whose_table_is_not_yet_made_is_made_by_its_commit(catalog: PostgresCatalog, url: str) -> None:
    """Whatever another process, or an operator, did to it meanwhile."""
    device = add_device(catalog, WEEK)
    commit(catalog, Upload(device, NOON))
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE packed_{ENDS} CASCADE".encode())
        connection.execute("DELETE FROM days")
        connection.execute("DELETE FROM segments")
    assert commit(catalog, Upload(device, NOON + 1)) == [STORED]
    assert list(catalog.broken_rows()) == []


def test_after_a_restore_to_before_a_days_table_commits_make_it_again(
    catalog: PostgresCatalog, url: str
) -> None:
    """Without a restart: what this process remembers of tables is not what the server has. Those of several workers
    wait for the first, and none fails."""
    devices = [add_device(catalog, WEEK) for _ in range(4)]
    commit(catalog, *(Upload(device, NOON) for device in devices))
    segments = [segment_of(catalog, Upload(device, NOON + 1)) for device in devices]
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE packed_{ENDS} CASCADE".encode())
        connection.execute("DELETE FROM days")
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda segment: catalog.commit([segment], now_ms=NOW), segments))
    assert [verdict.tolist() for [verdict] in verdicts] == [[STORED]] * 4
    assert [len(catalog.chunks(device, NOON, NOON + 2, limit=9)) for device in devices] == [1] * 4


def test_a_whole_day_is_read_without_holding_it(url: str) -> None:
    """`check --deep` held all rows of a day, half a kilobyte each: gigabytes, where millions of cameras are."""
    catalog = PostgresCatalog.open(url)
    device = add_device(catalog, WEEK)
    assert commit(catalog, Upload(device, NOON)) == [STORED]
    day = DAY + WEEK + 1
    more = 200_000
    with psycopg.connect(url) as connection:
        columns = 'place, crc64, device, crc32, "offset", epoch, rest'
        connection.execute(
            f"INSERT INTO packed_{day} (capture_ms, {columns})"
            f" SELECT capture_ms + n, {columns} FROM packed_{day}, generate_series(1, {more}) n".encode()
        )
    assert (
        len(list(islice(catalog.day_rows(day), 1000))) == 1000
    )  # so that nothing is made for the first time below
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew (man proc_pid_clear_refs)
    before = _kib("VmRSS")
    assert sum(1 for _ in catalog.day_rows(day)) == more + 1
    assert _kib("VmHWM") - before < 24 * 1024
    catalog.close()


def _kib(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0])
