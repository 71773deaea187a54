"""The catalog as ingest uses it: keys are prepared, segments committed, races decided."""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from storage.catalog.ingest import IngestCatalog
from storage.days import (
    MS_PER_DAY,
    class_between,
    day_of_ms,
    expiry_day,
    ms_of_day,
    recorded_day,
    to_date,
)
from storage.errors import CallerError
from storage.media_facts import FACTS_BYTES
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS, PreparedKey, SegmentCommit, SegmentState, Verdict
from storage.segment import INDEX_DTYPE
from storage.sql.base import OnDatabase
from storage.sql.chunktables import (
    agreement_version,
    chunk_days,
    chunk_table,
    closed_through,
    create_chunk_table,
)
from storage.sql.connection import Connection, Excludes, writing
from storage.sql.known import NOBODY, read_devices


class Commits(OnDatabase, IngestCatalog):
    @writing(Excludes.NOTHING)
    def prepare(
        self,
        connection: Connection,
        *,
        worker: str,
        class_days: int,
        expires_on: int,
        count: int,
        now_ms: int,
    ) -> list[PreparedKey]:
        day = to_date(expires_on).isoformat()
        prepared = []
        for _ in range(count):
            # Time first, so that a listing is roughly in order of writing; 48 random bits make the
            # key new even when a restored catalog hands out an old id again.
            name = f"{now_ms:011x}{secrets.token_hex(6)}"
            key = f"v1/{class_days}/{day}/{worker}/{name}"
            [segment_id] = connection.execute(
                "INSERT INTO segments (key, class_days, expires_on, prepared_ms) VALUES (?, ?, ?, ?)"
                " RETURNING segment_id",
                (key, class_days, expires_on, now_ms),
            ).fetchone()
            prepared.append(PreparedKey(segment_id, key, now_ms))
        return prepared

    @writing(Excludes.NOTHING)
    def release(self, connection: Connection, segment_ids: Sequence[int]) -> None:
        connection.executemany(
            "DELETE FROM segments WHERE segment_id = ? AND state = ?",
            [(i, SegmentState.PREPARED) for i in segment_ids],
        )

    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        self.db.make_days_ready({s.expires_on for s in segments})
        try:
            return self._commit(segments, now_ms=now_ms)
        except _UnknownClass:
            return self._commit_alone(segments, now_ms=now_ms)

    @writing(Excludes.DECISIONS)
    def _commit(
        self, connection: Connection, segments: Sequence[SegmentCommit], *, now_ms: int
    ) -> list[np.ndarray]:
        return Committing(connection, (s.index for s in segments)).segments(segments, now_ms)

    @writing()
    def _commit_alone(
        self, connection: Connection, segments: Sequence[SegmentCommit], *, now_ms: int
    ) -> list[np.ndarray]:
        """With a class that the catalog did not know: other commits decide by a device's classes where to look."""
        connection.exclude_commits()
        return Committing(connection, (s.index for s in segments), alone=True).segments(segments, now_ms)


class _UnknownClass(Exception):
    """A commit depends on a class that the catalog does not know, and other commits are beside it."""


class Committing:
    """What one transaction that adds chunk rows has read, and keeps up to date as it writes.

    Args:
        connection: inside a write transaction.
        indexes: of all segments whose rows may be added.
        alone: whether this transaction excludes all other commits. Only then may it add a class to a device.
    """

    def __init__(self, connection: Connection, indexes: Iterable[np.ndarray], *, alone: bool = False) -> None:
        self.connection = connection
        self._alone = alone
        self.closed_through = closed_through(connection)
        self._days = self._open_days()
        self._numbers = {number for index in indexes for number in index["device"].tolist()}
        self._devices = read_devices(connection, self._numbers)

    def _open_days(self) -> set[int]:
        return {day for day in chunk_days(self.connection) if day > self.closed_through}

    def note_used(self, day: int) -> None:
        """Note that the devices uploaded on `day`, under the agreement that is current: a statement for each, on the
        first commit of its day, and of a version, only."""
        known = set(map(self._devices.get, self._numbers))
        version = agreement_version(self.connection)
        noted = {
            d: d._replace(used_on=max(day, d.used_on), used_version=version)
            for d in known
            if d is not None and (d.used_on < day or d.used_version < version)
        }
        if not noted:
            return
        # In order, so that two commits of the same devices wait one way.
        unnoted = [number for number in sorted(self._numbers) if self._devices.get(number) in noted]
        self.connection.executemany(
            f"UPDATE devices SET used_on = {self.connection.larger('used_on', '?')}, used_version = ?"
            " WHERE device = ?",
            [(day, version, n) for n in unnoted],
        )
        for number in unnoted:
            self._devices[number] = noted[self._devices[number]]

    def segments(self, segments: Sequence[SegmentCommit], now_ms: int) -> list[np.ndarray]:
        """Commit segments. Returns a verdict per ordinal of each, uint8."""
        self._exclude_elsewhere(segments)
        self.note_used(day_of_ms(now_ms))
        return [self.segment(s, now_ms) for s in segments]

    def _exclude_elsewhere(self, segments: Sequence[SegmentCommit]) -> None:
        """Keep out commits of the same devices that look, as this one will, into tables that others insert into: a
        primary key would stop the later one only if it inserted into the same table."""
        devices: set[int] = set()
        for segment in segments:
            if not self.all_plain(segment.index, segment.expires_on):
                none = np.zeros(len(segment.index), dtype=np.uint8)
                careful = self.not_plain(segment.index, segment.expires_on, none)
                devices.update(segment.index["device"][careful].tolist())
        if devices and not self._alone:
            self.connection.exclude_devices(devices)
            self._days = self._open_days()  # who had these devices before may have made a day's table

    def segment(self, segment: SegmentCommit, now_ms: int) -> np.ndarray:
        """Commit one segment. Returns a verdict per ordinal, uint8."""
        verdicts = np.zeros(len(segment.index), dtype=np.uint8)
        row = self.connection.execute(
            f"SELECT state, expires_on FROM segments WHERE segment_id = ?{self.connection.locking}",
            (segment.segment_id,),
        ).fetchone()
        if row is None or row[0] != SegmentState.PREPARED:
            verdicts[:] = Verdict.RECLAIMED
            return verdicts
        if row[1] != segment.expires_on:
            raise CallerError(
                f"its key was prepared for day {row[1]}, not for day {segment.expires_on}",
                subject=f"segment {segment.segment_id}",
                code="wrong_day",
            )
        if segment.expires_on <= self.closed_through:
            verdicts[:] = Verdict.EXPIRED
        else:
            if not self.all_plain(segment.index, segment.expires_on):
                self.refuse_lost(segment.index, verdicts)
                self._refuse_stored_elsewhere(segment, verdicts, now_ms)
            if not verdicts.all():
                self._insert(segment, verdicts, now_ms)
        finish_segment(self.connection, segment, verdicts, now_ms)
        return verdicts

    def all_plain(self, index: np.ndarray, expires_on: int) -> bool:
        """Whether one look shows that `refuse_lost` and `not_plain` would name none of these chunks. It does for
        nearly all segments, and costs a fifth of asking those two."""
        kinds = set(
            zip(map(self._devices.get, index["device"].tolist()), index["epoch"].tolist(), strict=True)
        )
        classes: set[int] = set()
        for device, epoch in kinds:
            if device is None or device.epoch != epoch or device.deletions or len(device.classes) != 1:
                return False
            classes.update(device.classes)
        if len(classes) != 1:
            return False
        captured_from_ms = ms_of_day(recorded_day(expires_on, classes.pop()))
        times = index["capture_ms"]
        return bool(
            captured_from_ms + MAX_CLOCK_AHEAD_MS <= times.min()
            and times.max() < captured_from_ms + MS_PER_DAY
        )

    def refuse_lost(self, index: np.ndarray, verdicts: np.ndarray) -> None:
        """Mark chunks whose device was erased, or whose range was deleted, since their admission."""
        numbers, inverse = np.unique(index["device"], return_inverse=True)
        found = [self._devices.get(n, NOBODY) for n in numbers.tolist()]
        epochs = np.array([d.epoch for d in found], dtype=np.int64)
        verdicts[index["epoch"] != epochs[inverse]] = Verdict.ERASED
        for place, device in enumerate(found):
            for from_ms, to_ms in device.deletions:
                inside = (index["capture_ms"] >= from_ms) & (index["capture_ms"] < to_ms) & (inverse == place)
                verdicts[inside & (verdicts == Verdict.STORED)] = Verdict.DELETED

    def _refuse_stored_elsewhere(self, segment: SegmentCommit, verdicts: np.ndarray, now_ms: int) -> None:
        """(device, capture_ms) is unique across partitions; the primary key of one sees only its own."""
        index = segment.index
        for ordinal in self.not_plain(index, segment.expires_on, verdicts):
            chunk = index[ordinal]
            for day in self.known_days(chunk, segment.expires_on):
                if day == segment.expires_on or day not in self._days:
                    continue
                stored = _stored(self.connection, day, chunk)
                if stored is None:
                    continue
                if stored.epoch == self._devices[int(chunk["device"])].epoch:
                    verdicts[ordinal] = stored.verdict(chunk)
                    break
                # The row is of before an erasure: were it to stay, a reader could find it for the new chunk.
                self.connection.execute(
                    f"DELETE FROM {chunk_table(day)} WHERE device = ? AND capture_ms = ?",
                    (int(chunk["device"]), int(chunk["capture_ms"])),
                )
                mark_dead(self.connection, stored.segment_id, [stored.ordinal], now_ms)

    def not_plain(self, index: np.ndarray, expires_on: int, verdicts: np.ndarray) -> list[int]:
        """Ordinals still STORED which may be in more partitions than this one, or in one where nobody would
        look: all but those of devices of one class, captured away from midnight, expiring as that class says."""
        numbers, inverse = np.unique(index["device"], return_inverse=True)
        classes = [self._devices.get(n, NOBODY).classes for n in numbers.tolist()]
        recorded_on = [recorded_day(expires_on, c[0]) if len(c) == 1 else -1 for c in classes]
        day, into_day_ms = np.divmod(index["capture_ms"], MS_PER_DAY)
        fits = day == np.array(recorded_on, dtype=np.int64)[inverse]
        plain = fits & (into_day_ms >= MAX_CLOCK_AHEAD_MS)
        return np.flatnonzero(~plain & (verdicts == Verdict.STORED)).tolist()

    def known_days(self, chunk: np.void, expires_on: int) -> list[int]:
        """Every expiry day that a row of this device and time may have, `expires_on` being one.

        Readers look for a chunk only where its device's classes say. A class that the catalog does not know
        (a plan change that reached the bitmap, but was never committed) is noted here, in the transaction that
        first depends on it: what was acknowledged is found.

        Raises:
            _UnknownClass: there is such a class, and this transaction is not alone.
        """
        number, capture_ms = int(chunk["device"]), int(chunk["capture_ms"])
        device = self._devices[number]
        days = candidate_days(capture_ms, device.classes)
        if expires_on in days:
            return days
        if not self._alone:
            raise _UnknownClass
        classes = (*device.classes, class_between(day_of_ms(capture_ms), expires_on))
        self._devices[number] = device._replace(classes=classes)
        self.connection.execute(
            "UPDATE devices SET classes = ? WHERE device = ?", (json.dumps(sorted(classes)), number)
        )
        return candidate_days(capture_ms, classes)

    def insert(self, expires_on: int, rows: list[tuple[object, ...]]) -> int:
        """Insert what is not there yet; returns how many were inserted."""
        if expires_on not in self._days:
            create_chunk_table(self.connection, expires_on)
            self._days.add(expires_on)
        return self.connection.insert_chunks(chunk_table(expires_on), rows)

    def _insert(self, segment: SegmentCommit, verdicts: np.ndarray, now_ms: int) -> None:
        ordinals = np.flatnonzero(verdicts == Verdict.STORED)
        rows = row_values(segment.index, segment.segment_id, ordinals)
        if self.insert(segment.expires_on, rows) == len(rows):
            return
        for ordinal, values in zip(ordinals.tolist(), rows, strict=True):
            verdicts[ordinal] = self._insert_one(segment, ordinal, values, now_ms)

    def _insert_one(
        self, segment: SegmentCommit, ordinal: int, values: tuple[object, ...], now_ms: int
    ) -> Verdict:
        """What became of one chunk of a segment of which a row was in the way of some."""
        chunk = segment.index[ordinal]
        while True:
            stored = _stored(self.connection, segment.expires_on, chunk)
            if stored is None:
                # What was in the way was removed meanwhile, by an engine that lets others write beside this.
                self.insert(segment.expires_on, [values])
                continue
            if (stored.segment_id, stored.ordinal) == (segment.segment_id, ordinal):
                return Verdict.STORED
            if stored.epoch == self._devices[int(chunk["device"])].epoch:
                return stored.verdict(chunk)
            # The row is of before an erasure: its key is going or gone. The new chunk takes its place.
            mark_dead(self.connection, stored.segment_id, [stored.ordinal], now_ms)
            self.connection.execute(
                f"DELETE FROM {chunk_table(segment.expires_on)} WHERE device = ? AND capture_ms = ?",
                (int(chunk["device"]), int(chunk["capture_ms"])),
            )
            self.insert(segment.expires_on, [values])


def candidate_days(capture_ms: int, classes: Iterable[int]) -> list[int]:
    """Every expiry day that a chunk of this capture time may have been given.

    `expires_on` is the day of min(capture, server clock) + class + 1. The server's day is the day before the
    capture's only when the capture was ahead, that is within MAX_CLOCK_AHEAD_MS after midnight.
    """
    day, into_day_ms = divmod(capture_ms, MS_PER_DAY)
    found = []
    for days in classes:
        found.append(expiry_day(day, days))
        if into_day_ms < MAX_CLOCK_AHEAD_MS:
            found.append(expiry_day(day - 1, days))
    return found


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


def _stored(connection: Connection, day: int, chunk: np.void) -> _Stored | None:
    row = connection.execute(
        f"SELECT segment_id, ordinal, length, crc32, crc64, epoch FROM {chunk_table(day)}"
        f" WHERE device = ? AND capture_ms = ?{connection.locking}",
        (int(chunk["device"]), int(chunk["capture_ms"])),
    ).fetchone()
    return None if row is None else _Stored(*row)


_INDEX_ROW = struct.Struct(f"<qqIIIIII12sB{FACTS_BYTES}s")
"""A row of `INDEX_DTYPE`, its CRC-64 signed, as SQLite's integers are."""
assert _INDEX_ROW.size == INDEX_DTYPE.itemsize

CHUNK_COLUMNS = (
    "capture_ms",
    "crc64",
    "device",
    "epoch",
    '"offset"',  # a word of PostgreSQL's own
    "length",
    "crc32",
    "duration_ms",
    "nonce",
    "media",
    "facts",
    "segment_id",
    "ordinal",
)
"""The columns of `row_values`."""


def row_values(index: np.ndarray, segment_id: int, ordinals: np.ndarray) -> list[tuple[object, ...]]:
    """Rows for a chunk table, in the order of `CHUNK_COLUMNS`, of the named ordinals, which ascend."""
    part = index if len(ordinals) == len(index) else index[ordinals]
    rows = zip(_INDEX_ROW.iter_unpack(part.tobytes()), ordinals.tolist(), strict=True)
    return [(*row, segment_id, ordinal) for row, ordinal in rows]


def finish_segment(connection: Connection, segment: SegmentCommit, verdicts: np.ndarray, now_ms: int) -> None:
    """Make a prepared segment committed, or a tombstone when nothing of it is served."""
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
    connection: Connection, segment_id: int, ordinals: Iterable[int], delete_after_ms: int | None
) -> bool:
    """Note that these ordinals of a segment are no longer served. The caller removes their chunk rows in the
    same transaction, and names none twice.

    Args:
        delete_after_ms: when a segment left without live chunks, which becomes a tombstone, may be deleted;
            None lets it be, to go with its day.

    Returns:
        Whether the segment became a tombstone.
    """
    dead = np.fromiter(ordinals, dtype="<u4")
    connection.execute(
        f"UPDATE segments SET live_chunks = live_chunks - ?, refused = {connection.joined('refused', '?')}"
        " WHERE segment_id = ?",
        (len(dead), dead.tobytes(), segment_id),
    )
    if delete_after_ms is None:
        return False
    cursor = connection.execute(
        "UPDATE segments SET state = ?, delete_after_ms = ?, retry_at_ms = 0, attempts = 0"
        " WHERE segment_id = ? AND state = ? AND live_chunks = 0",
        (SegmentState.DELETING, delete_after_ms, segment_id, SegmentState.COMMITTED),
    )
    return cursor.rowcount > 0
