"""How a commit on SQLite saves itself work: one look at a whole segment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.contracts.given import (
    DAY,
    ENDS,
    MONTH,
    NOON,
    NOW,
    WEEK,
    Upload,
    add_device,
    commit,
    erase,
    index_of,
    segment_of,
)
from storage.days import MS_PER_DAY, ms_of_day
from storage.errors import CallerError
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS, Verdict
from storage.sql.commits import Committing
from storage.sql.known import Device
from storage.sql.newrows import CHUNK_COLUMNS, NewRows
from storage.sqlite import SqliteCatalog
from storage.sqlite.database import SqliteConnection

# --- one look at a segment --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty() -> Iterator[SqliteConnection]:
    """Enough of a catalog to stand on: the devices are given by the test."""
    with closing(sqlite3.connect(":memory:", factory=SqliteConnection)) as connection:
        connection.execute("CREATE TABLE meta (name TEXT, value INTEGER)")
        connection.execute("INSERT INTO meta VALUES ('closed_through', 0)")
        connection.execute("CREATE TABLE days (expires_on INTEGER)")
        connection.execute("CREATE TABLE agreements (version INTEGER)")
        connection.execute("CREATE TABLE segments (segment_id INTEGER, state INTEGER, expires_on INTEGER)")
        connection.execute(
            "CREATE TABLE devices (device INTEGER, erase_epoch, classes, has_deletions, used_on, used_version)"
        )
        yield connection


def judge(
    connection: SqliteConnection, devices: dict[int, Device], index: np.ndarray, expires_on: int = ENDS
) -> tuple[bool, bool]:
    """Whether one look finds nothing to refuse, and whether the careful way does."""
    committing = Committing(connection)
    committing._devices = dict(devices)
    verdicts = np.zeros(len(index), np.uint8)
    committing.refuse_lost(index, verdicts)
    careful = not verdicts.any() and not committing.not_plain(index, expires_on, verdicts)
    return committing.all_plain(index, expires_on), careful


PLAIN = Device(0, (WEEK,))
FIRST, LAST = ms_of_day(DAY) + MAX_CLOCK_AHEAD_MS, ms_of_day(DAY) + MS_PER_DAY - 1


def test_at_one_look_an_ordinary_segment_has_nothing_to_refuse(empty: SqliteConnection) -> None:
    devices = {1: PLAIN, 2: Device(3, (WEEK,), used_on=5)}
    index = index_of(Upload(1, FIRST), Upload(2, NOON, epoch=3), Upload(1, LAST))
    assert judge(empty, devices, index) == (True, True)


@pytest.mark.parametrize(
    ("device", "upload", "expires_on"),
    [
        pytest.param(None, Upload(2, NOON), ENDS, id="a device that is not known"),
        pytest.param(Device(1, (WEEK,)), Upload(2, NOON), ENDS, id="erased since"),
        pytest.param(PLAIN, Upload(2, NOON, epoch=1), ENDS, id="an epoch above the catalog's"),
        pytest.param(PLAIN._replace(deletions=((0, NOON + 1),)), Upload(2, NOON), ENDS, id="deleted range"),
        pytest.param(Device(0, (WEEK, MONTH)), Upload(2, NOON), ENDS, id="two classes"),
        pytest.param(Device(0, ()), Upload(2, NOON), ENDS, id="no class"),
        pytest.param(Device(0, (MONTH,)), Upload(2, NOON), ENDS, id="another class than the others"),
        pytest.param(PLAIN, Upload(2, FIRST - 1), ENDS, id="captured just after midnight"),
        pytest.param(PLAIN, Upload(2, ms_of_day(DAY) - 1), ENDS, id="captured the day before"),
        pytest.param(PLAIN, Upload(2, LAST + 1), ENDS, id="captured the day after"),
        pytest.param(PLAIN, Upload(2, NOON), ENDS + 1, id="expires as no class of it says"),
    ],
)
def test_one_look_leaves_anything_else_to_the_careful_way(
    empty: SqliteConnection, device: Device | None, upload: Upload, expires_on: int
) -> None:
    devices = {1: PLAIN, 2: device} if device else {1: PLAIN}
    index = index_of(Upload(1, NOON), upload, Upload(1, NOON + 1))
    assert judge(empty, devices, index, expires_on) == (False, False)


def test_one_look_says_no_rather_than_compare_ranges(empty: SqliteConnection) -> None:
    """It may say no where the careful way has nothing to refuse, never the other way round."""
    devices = {1: PLAIN._replace(deletions=((0, 5),)), 2: PLAIN}
    assert judge(empty, devices, index_of(Upload(1, NOON), Upload(2, NOON))) == (False, True)
    assert judge(empty, devices, index_of()) == (False, True)


some_device = st.builds(
    Device,
    epoch=st.sampled_from([0, 0, 0, 1]),
    classes=st.sampled_from([(WEEK,), (WEEK,), (WEEK,), (MONTH,), (WEEK, MONTH), ()]),
    used_on=st.integers(0, 1),
    deletions=st.sampled_from([(), (), (), ((NOON, NOON + 2),)]),
)
some_upload = st.builds(
    Upload,
    device=st.integers(1, 4),
    capture_ms=st.sampled_from([NOON, NOON + 1, NOON + 3, FIRST, FIRST - 1, LAST, LAST + 1]),
    epoch=st.sampled_from([0, 0, 0, 1]),
)


@given(
    devices=st.dictionaries(st.integers(1, 4), some_device, min_size=1),
    uploads=st.lists(some_upload, max_size=6),
    expires_on=st.sampled_from([ENDS, ENDS, ENDS + 1, DAY + MONTH + 1]),
)
def test_one_look_equals_the_careful_way(
    empty: SqliteConnection, devices: dict[int, Device], uploads: list[Upload], expires_on: int
) -> None:
    """Of devices without deleted ranges and of one class it says the same, of others no or the same."""
    index = index_of(*uploads)
    at_a_look, careful = judge(empty, devices, index, expires_on)
    assert careful or not at_a_look
    used = [devices[u.device] for u in uploads if u.device in devices]
    if uploads and not any(d.deletions for d in used) and len({d.classes for d in used}) == 1:
        assert at_a_look == careful


@given(
    crc64=st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=4),
    chosen=st.sets(st.integers(0, 3), min_size=1),
)
def test_rows_are_what_the_index_says(crc64: list[int], chosen: set[int]) -> None:
    index = index_of(*(Upload(1 << 31, NOON + i, i, epoch=7) for i in range(len(crc64))))
    index["crc64"] = crc64
    ordinals = np.array(sorted(o for o in chosen if o < len(crc64)), dtype=np.int64)
    names = [name.strip('"') for name in CHUNK_COLUMNS]
    for ordinal, values in zip(ordinals.tolist(), NewRows.of(index, 99, ordinals).values(), strict=True):
        row, chunk = dict(zip(names, values, strict=True)), index[ordinal]
        assert (row.pop("segment_id"), row.pop("ordinal")) == (99, ordinal)
        assert row.pop("nonce") == chunk["nonce"].tobytes()
        assert row.pop("facts") == chunk["facts"].tobytes()
        assert row.pop("crc64") == int(chunk["crc64"].astype("<u8").view("<i8"))
        assert row == {name: int(chunk[name]) for name in row}


# --- devices, read anew by each commit ---------------------------------------------------------------------------


def test_what_an_undone_commit_wrote_is_not_remembered(catalog: SqliteCatalog) -> None:
    """A class noted in a transaction that was undone must be noted again, or its chunk could not be found."""
    device = add_device(catalog)
    commit(catalog, Upload(device, NOON))
    monthly = segment_of(catalog, Upload(device, NOON + 1), expires_on=DAY + MONTH + 1)
    bad = segment_of(catalog, Upload(device, NOON + 2))
    with pytest.raises(CallerError):
        catalog.commit([monthly, replace(bad, expires_on=ENDS + 1)], now_ms=NOW)
    catalog.commit([monthly], now_ms=NOW)
    found = catalog.chunk(device, NOON + 1)
    assert found is not None
    assert found.expires_on == DAY + MONTH + 1


def test_the_day_of_use_is_noted_once(catalog: SqliteCatalog, path: Path) -> None:
    device, other = add_device(catalog), add_device(catalog)
    day = NOW // MS_PER_DAY
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:

        def noted() -> list[int]:
            return [row[0] for row in raw.execute("SELECT used_on FROM devices ORDER BY device")]

        for turn, (uploads, wanted) in enumerate(
            [
                ([device], [day, 0]),
                ([device, other], [day, day]),
                ([other], [day, day + 1]),
                ([device, other], [day + 1, day + 1]),
            ]
        ):
            segment = segment_of(catalog, *(Upload(d, NOON + turn) for d in uploads))
            catalog.commit([segment], now_ms=NOW + (MS_PER_DAY if turn > 1 else 0))
            assert noted() == wanted
        catalog.commit([segment_of(catalog)], now_ms=NOW + MS_PER_DAY)
        assert noted() == [day + 1, day + 1]


def test_an_erased_device_is_refused_by_the_very_next_commit(catalog: SqliteCatalog) -> None:
    device = add_device(catalog)
    segment, late = (segment_of(catalog, Upload(device, NOON + i)) for i in range(2))
    catalog.commit([segment], now_ms=NOW)
    erase(catalog, device)
    assert catalog.commit([late], now_ms=NOW)[0].tolist() == [Verdict.ERASED]
