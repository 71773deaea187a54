"""The catalog as ingest uses it: keys are prepared, segments committed, races decided."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from storage.catalog import (
    MAX_CLOCK_AHEAD_MS,
    Catalog,
    PreparedKey,
    SegmentCommit,
    SegmentState,
    Verdict,
)
from storage.days import MS_PER_DAY, to_date
from storage.sqlite.database import Database
from storage.sqlite.schema import create_partition, partition, partition_days


class OnDatabase(Catalog):
    """What all parts of the SQLite catalog stand on."""

    def __init__(self, database: Database) -> None:
        self._db = database


@dataclass(frozen=True, slots=True)
class _Device:
    """What a commit re-reads of a device."""

    epoch: int
    classes: tuple[int, ...]
    deletions: tuple[tuple[int, int], ...]


_NOBODY = _Device(epoch=-1, classes=(), deletions=())


class Commits(OnDatabase):
    def prepare(
        self, *, worker: str, class_days: int, expires_on: int, count: int, now_ms: int
    ) -> list[PreparedKey]:
        day = to_date(expires_on).isoformat()
        prepared = []
        with self._db.write() as connection:
            for _ in range(count):
                # Time first, so that a listing is roughly in order of writing; 48 random bits make the
                # key new even when a restored catalog hands out an old id again.
                name = f"{now_ms:011x}{secrets.token_hex(6)}"
                key = f"v1/{class_days}/{day}/{worker}/{name}"
                cursor = connection.execute(
                    "INSERT INTO segments (key, class_days, expires_on, prepared_ms) VALUES (?, ?, ?, ?)",
                    (key, class_days, expires_on, now_ms),
                )
                assert cursor.lastrowid is not None
                prepared.append(PreparedKey(cursor.lastrowid, key, now_ms))
        return prepared

    def release(self, segment_ids: Sequence[int]) -> None:
        with self._db.write() as connection:
            connection.executemany(
                "DELETE FROM segments WHERE segment_id = ? AND state = ?",
                [(i, SegmentState.PREPARED) for i in segment_ids],
            )

    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        with self._db.write() as connection:
            closed = connection.execute("SELECT value FROM meta WHERE name = 'closed_through'").fetchone()[0]
            days = partition_days(connection)
            numbers = np.unique(np.concatenate([s.index["device"] for s in segments]))
            devices = _read_devices(connection, numbers.tolist())
            return [_commit_segment(connection, s, devices, days, closed, now_ms) for s in segments]


def _read_devices(connection: sqlite3.Connection, numbers: list[int]) -> dict[int, _Device]:
    devices = {}
    with_deletions = []
    for number, epoch, classes, has_deletions in connection.execute(
        "SELECT device, erase_epoch, classes, has_deletions FROM devices"
        " WHERE device IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    ):
        devices[number] = _Device(epoch, tuple(json.loads(classes)), ())
        if has_deletions:
            with_deletions.append(number)
    for number in with_deletions:
        ranges = connection.execute("SELECT from_ms, to_ms FROM deletions WHERE device = ?", (number,))
        known = devices[number]
        devices[number] = _Device(known.epoch, known.classes, tuple(ranges.fetchall()))
    return devices


def _commit_segment(
    connection: sqlite3.Connection,
    segment: SegmentCommit,
    devices: dict[int, _Device],
    days: set[int],
    closed_through: int,
    now_ms: int,
) -> np.ndarray:
    index = segment.index
    verdicts = np.zeros(len(index), dtype=np.uint8)
    row = connection.execute(
        "SELECT state FROM segments WHERE segment_id = ?", (segment.segment_id,)
    ).fetchone()
    if row is None or row[0] != SegmentState.PREPARED:
        verdicts[:] = Verdict.RECLAIMED
        return verdicts
    if segment.expires_on <= closed_through:
        verdicts[:] = Verdict.EXPIRED
    else:
        _refuse_lost(index, devices, verdicts)
        _refuse_stored_elsewhere(connection, segment, devices, days, verdicts)
        if not verdicts.all():
            if segment.expires_on not in days:
                create_partition(connection, segment.expires_on)
                days.add(segment.expires_on)
            _insert(connection, segment, devices, verdicts, now_ms)
    _finish(connection, segment, verdicts, now_ms)
    return verdicts


def _refuse_lost(index: np.ndarray, devices: dict[int, _Device], verdicts: np.ndarray) -> None:
    """Mark chunks whose device was erased, or whose range was deleted, since their admission."""
    numbers, inverse = np.unique(index["device"], return_inverse=True)
    found = [devices.get(n, _NOBODY) for n in numbers.tolist()]
    epochs = np.array([d.epoch for d in found], dtype=np.int64)
    verdicts[index["epoch"] != epochs[inverse]] = Verdict.ERASED
    for place, device in enumerate(found):
        for from_ms, to_ms in device.deletions:
            inside = (index["capture_ms"] >= from_ms) & (index["capture_ms"] < to_ms) & (inverse == place)
            verdicts[inside & (verdicts == Verdict.STORED)] = Verdict.DELETED


def candidate_days(capture_ms: int, classes: Iterable[int]) -> list[int]:
    """Every expiry day that a chunk of this capture time may have been given.

    `expires_on` is the day of min(capture, server clock) + class + 1. The server's day is the day before the
    capture's only when the capture was ahead, that is within MAX_CLOCK_AHEAD_MS after midnight.
    """
    day, into_day_ms = divmod(capture_ms, MS_PER_DAY)
    found = []
    for days in classes:
        found.append(day + days + 1)
        if into_day_ms < MAX_CLOCK_AHEAD_MS:
            found.append(day + days)
    return found


def _refuse_stored_elsewhere(
    connection: sqlite3.Connection,
    segment: SegmentCommit,
    devices: dict[int, _Device],
    days: set[int],
    verdicts: np.ndarray,
) -> None:
    """(device, capture_ms) is unique across partitions; the primary key of one sees only its own."""
    index = segment.index
    several = np.array(
        [len(devices.get(n, _NOBODY).classes) > 1 for n in index["device"].tolist()], dtype=bool
    )
    near_midnight = index["capture_ms"] % MS_PER_DAY < MAX_CLOCK_AHEAD_MS
    for ordinal in np.flatnonzero((several | near_midnight) & (verdicts == Verdict.STORED)).tolist():
        chunk = index[ordinal]
        device = devices[int(chunk["device"])]
        for day in candidate_days(int(chunk["capture_ms"]), device.classes):
            if day == segment.expires_on or day not in days:
                continue
            stored = _stored(connection, day, chunk)
            if stored is not None and stored.epoch == device.epoch:
                verdicts[ordinal] = stored.verdict(chunk)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A row that is already there at a chunk's device and time."""

    segment_id: int
    ordinal: int
    length: int
    crc32: int
    crc64: int
    epoch: int

    def verdict(self, chunk: np.void) -> Verdict:
        """ "The same chunk" means same length, CRC-32 and CRC-64 of the plaintext (design §2.8)."""
        same = (
            self.length == chunk["length"]
            and self.crc32 == chunk["crc32"]
            and self.crc64 == int(chunk["crc64"].view(np.int64))
        )
        return Verdict.DUPLICATE if same else Verdict.CONFLICT


def _stored(connection: sqlite3.Connection, day: int, chunk: np.void) -> _Stored | None:
    row = connection.execute(
        f"SELECT segment_id, ordinal, length, crc32, crc64, epoch FROM {partition(day)}"
        " WHERE device = ? AND capture_ms = ?",
        (int(chunk["device"]), int(chunk["capture_ms"])),
    ).fetchone()
    return None if row is None else _Stored(*row)


def row_values(index: np.ndarray, segment_id: int, ordinals: np.ndarray) -> list[tuple[object, ...]]:
    """Rows for a chunk table, in its column order, of the named ordinals. SQLite's integers are signed."""
    part = index[ordinals]
    nonces = part["nonce"].tobytes()
    return list(
        zip(
            part["device"].tolist(),
            part["capture_ms"].tolist(),
            [segment_id] * len(part),
            ordinals.tolist(),
            part["offset"].tolist(),
            part["length"].tolist(),
            part["duration_ms"].tolist(),
            part["crc32"].tolist(),
            part["crc64"].astype("<u8").view("<i8").tolist(),
            [nonces[i : i + 12] for i in range(0, len(nonces), 12)],
            part["media"].tolist(),
            part["epoch"].tolist(),
            strict=True,
        )
    )


def insert_rows(connection: sqlite3.Connection, day: int, rows: list[tuple[object, ...]]) -> int:
    """Insert what is not there yet; returns how many were inserted."""
    before = connection.total_changes
    connection.executemany(
        f"INSERT INTO {partition(day)} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        rows,
    )
    return connection.total_changes - before


def _insert(
    connection: sqlite3.Connection,
    segment: SegmentCommit,
    devices: dict[int, _Device],
    verdicts: np.ndarray,
    now_ms: int,
) -> None:
    ordinals = np.flatnonzero(verdicts == Verdict.STORED)
    rows = row_values(segment.index, segment.segment_id, ordinals)
    if insert_rows(connection, segment.expires_on, rows) == len(rows):
        return
    for ordinal, values in zip(ordinals.tolist(), rows, strict=True):
        chunk = segment.index[ordinal]
        stored = _stored(connection, segment.expires_on, chunk)
        assert stored is not None, "inserted or in conflict"
        if (stored.segment_id, stored.ordinal) == (segment.segment_id, ordinal):
            continue
        if stored.epoch == devices[int(chunk["device"])].epoch:
            verdicts[ordinal] = stored.verdict(chunk)
            continue
        # The row is of before an erasure: its key is going or gone. The new chunk takes its place.
        mark_dead(connection, stored.segment_id, [stored.ordinal], now_ms)
        connection.execute(
            f"REPLACE INTO {partition(segment.expires_on)} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )


def _finish(
    connection: sqlite3.Connection, segment: SegmentCommit, verdicts: np.ndarray, now_ms: int
) -> None:
    refused = np.flatnonzero(verdicts != Verdict.STORED).astype("<u4")
    live = len(verdicts) - len(refused)
    connection.execute(
        "UPDATE segments SET state = ?, size_bytes = ?, chunks = ?, live_chunks = ?, crc32 = ?, refused = ?,"
        " delete_after_ms = ? WHERE segment_id = ?",
        (
            SegmentState.COMMITTED if live else SegmentState.DELETING,
            segment.size_bytes,
            len(verdicts),
            live,
            segment.crc32,
            refused.tobytes(),
            None if live else now_ms,  # nobody can be reading what was never served
            segment.segment_id,
        ),
    )


def mark_dead(
    connection: sqlite3.Connection, segment_id: int, ordinals: Iterable[int], delete_after_ms: int
) -> bool:
    """Note that these ordinals of a segment are no longer served; a segment without live chunks becomes a
    tombstone. The caller removes the chunk rows in the same transaction. Returns whether it became one."""
    dead = np.fromiter(ordinals, dtype="<u4")
    connection.execute(
        "UPDATE segments SET live_chunks = live_chunks - ?, refused = CAST(refused || ? AS BLOB)"
        " WHERE segment_id = ?",
        (len(dead), dead.tobytes(), segment_id),
    )
    cursor = connection.execute(
        "UPDATE segments SET state = ?, delete_after_ms = ? WHERE segment_id = ? AND state = ? AND live_chunks = 0",
        (SegmentState.DELETING, delete_after_ms, segment_id, SegmentState.COMMITTED),
    )
    return cursor.rowcount > 0
