"""The catalog as ingest uses it: keys are prepared, segments committed, races decided."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
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
from storage.media_facts import FACTS_BYTES, PARAMETERS_AT
from storage.rows.recordings import (
    FIRST_PART_MS,
    FMP4,
    MAX_CLOCK_AHEAD_MS,
    PreparedKey,
    SegmentCommit,
    SegmentState,
    SentInit,
    Verdict,
)
from storage.sql.base import OnDatabase
from storage.sql.chunktables import chunk_days, chunk_table, create_chunk_table
from storage.sql.connection import Connection, Excludes, Taken, writing
from storage.sql.known import DEVICES, NOBODY, devices_of
from storage.sql.newrows import NewRows


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
        if count == 0:
            return []
        # Time first, so that a listing is roughly in order of writing; 48 random bits make the
        # key new even when a restored catalog hands out an old id again.
        names = [f"{now_ms:011x}{secrets.token_hex(6)}" for _ in range(count)]
        keys = [f"v1/{class_days}/{day}/{worker}/{name}" for name in names]
        rows = connection.execute(
            "INSERT INTO segments (key, class_days, expires_on, prepared_ms) VALUES"
            f" {', '.join(['(?, ?, ?, ?)'] * count)} RETURNING segment_id, key",
            [value for key in keys for value in (key, class_days, expires_on, now_ms)],
        ).fetchall()
        return [PreparedKey(segment_id, key, now_ms) for segment_id, key in sorted(rows)]

    @writing(Excludes.NOTHING)
    def release(self, connection: Connection, segment_ids: Sequence[int]) -> None:
        connection.executemany(
            "DELETE FROM segments WHERE segment_id = ? AND state = ?",
            [(i, SegmentState.PREPARED) for i in segment_ids],
        )

    def make_ready(self, day: int) -> None:
        with self.db.read() as connection:
            classes = connection.execute(
                "SELECT DISTINCT retention_days FROM plans WHERE ends_on IS NULL OR ends_on >= ?", (day,)
            ).fetchall()
        self.db.make_days_ready({expiry_day(d, days) for (days,) in classes for d in (day, day + 1)})

    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        return self._committed(segments, now_ms, whole=False)

    def commit_whole(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        try:
            return self._committed(segments, now_ms, whole=True)
        except _NotWhole as lost:
            return lost.verdicts

    def _committed(self, segments: Sequence[SegmentCommit], now_ms: int, *, whole: bool) -> list[np.ndarray]:
        self.db.make_days_ready({s.expires_on for s in segments})
        for commit in (self._commit, self._commit_carefully):
            with suppress(_NotThisWay, Taken):
                return commit(segments, now_ms=now_ms, whole=whole)
        return self._commit_alone(segments, now_ms=now_ms, whole=whole)

    @writing(Excludes.DECISIONS)
    def _commit(
        self, connection: Connection, segments: Sequence[SegmentCommit], *, now_ms: int, whole: bool
    ) -> list[np.ndarray]:
        return _decided(Committing(connection, segments).segments(segments, now_ms), whole)

    @writing(Excludes.DECISIONS)
    def _commit_carefully(
        self, connection: Connection, segments: Sequence[SegmentCommit], *, now_ms: int, whole: bool
    ) -> list[np.ndarray]:
        """With a chunk whose place is taken, on an engine that is told so by an error."""
        return _decided(Committing(connection, segments, careful=True).segments(segments, now_ms), whole)

    @writing()
    def _commit_alone(
        self, connection: Connection, segments: Sequence[SegmentCommit], *, now_ms: int, whole: bool
    ) -> list[np.ndarray]:
        """With a class that the catalog did not know: other commits decide by a device's classes where to look."""
        connection.exclude_commits()
        committing = Committing(connection, segments, careful=True, alone=True)
        return _decided(committing.segments(segments, now_ms), whole)

    @writing(Excludes.NOTHING)
    def note_init(self, connection: Connection, device: int, sent: SentInit) -> None:
        connection.execute(
            "INSERT INTO inits (device, epoch, number, expires_on, at_ms)"
            " SELECT device, :epoch, :number, :expires_on, :at_ms FROM devices"
            " WHERE device = :device AND erase_epoch = :epoch"
            " ON CONFLICT (device) DO UPDATE SET epoch = excluded.epoch, number = excluded.number,"
            " expires_on = excluded.expires_on, at_ms = excluded.at_ms",
            {**sent._asdict(), "device": device},
        )

    def sent_init(self, device: int) -> SentInit | None:
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT i.epoch, i.number, i.expires_on, i.at_ms FROM inits i JOIN devices d USING (device)"
                " WHERE device = ? AND i.epoch = d.erase_epoch",
                (device,),
            ).fetchone()
            return None if row is None else SentInit(*row)


class _NotWhole(Exception):
    """Of segments that belong together a chunk would be lost: the transaction is undone."""

    def __init__(self, verdicts: list[np.ndarray]) -> None:
        super().__init__()
        self.verdicts = verdicts


def _decided(verdicts: list[np.ndarray], whole: bool) -> list[np.ndarray]:
    if whole and any((each > Verdict.DUPLICATE).any() for each in verdicts):
        raise _NotWhole(verdicts)
    return verdicts


class _NotThisWay(Exception):
    """A commit depends on a class that the catalog does not know, and other commits are beside it."""


class Committing:
    """What one transaction that adds chunk rows has read, in one round trip, and keeps up to date as it writes.

    Args:
        connection: inside a write transaction.
        segments: those to be committed. Their rows are locked until the transaction ends.
        indexes: of segments that are committed already, and whose chunk rows may be added too.
        careful: whether rows whose place is taken are told from the others. Else the engine may raise Taken, and the
            transaction is to be done again.
        alone: whether this transaction excludes all other commits. Only then may it add a class to a device.
    """

    def __init__(
        self,
        connection: Connection,
        segments: Sequence[SegmentCommit] = (),
        *,
        indexes: Iterable[np.ndarray] = (),
        careful: bool = False,
        alone: bool = False,
    ) -> None:
        self.connection = connection
        self._careful = careful
        self._alone = alone
        self._numbers = {
            number
            for index in (*(s.index for s in segments), *indexes)
            for number in index["device"].tolist()
        }
        wanted = {s.expires_on for s in segments}
        [[closed, self._version, has_tables]], devices, prepared = connection.together(
            [
                (
                    "SELECT (SELECT value FROM meta WHERE name = 'closed_through'),"
                    " (SELECT coalesce(max(version), 0) FROM agreements),"
                    f" (SELECT count(*) FROM days WHERE {connection.among('expires_on', '?')})",
                    (_json(wanted),),
                ),
                (f"{DEVICES} WHERE {connection.among('device', '?')}", (_json(self._numbers),)),
                (
                    "SELECT segment_id, state, expires_on FROM segments"
                    f" WHERE {connection.among('segment_id', '?')} ORDER BY segment_id{connection.locking}",
                    (_json(s.segment_id for s in segments),),
                ),
            ]
        )
        self.closed_through = int(closed)
        self._with_table = wanted if has_tables == len(wanted) else self._open_days()
        self._devices = devices_of(connection, devices)
        self._states = {segment_id: (state, expires_on) for segment_id, state, expires_on in prepared}
        self._days: set[int] = set()
        """Where a chunk may be stored, for those that may be stored elsewhere: see `_exclude_elsewhere`."""

    def _open_days(self) -> set[int]:
        return {day for day in chunk_days(self.connection) if day > self.closed_through}

    def note_used(self, day: int) -> None:
        """Note that the devices uploaded on `day`, under the agreement that is current: one statement, on the first
        commit of its day, and of a version, only."""
        version = self._version
        unnoted = {
            number: device
            for number, device in self._devices.items()
            if number in self._numbers and (device.used_on < day or device.used_version < version)
        }
        if not unnoted:
            return
        self.connection.execute(
            f"UPDATE devices SET used_on = {self.connection.larger('used_on', '?')}, used_version = ?"
            # In order, so that two commits of the same devices wait one way.
            f" WHERE device IN (SELECT device FROM devices WHERE {self.connection.among('device', '?')}"
            f" ORDER BY device{self.connection.locking})",
            (day, version, _json(unnoted)),
        )
        for number, device in unnoted.items():
            self._devices[number] = device._replace(used_on=max(day, device.used_on), used_version=version)

    def segments(self, segments: Sequence[SegmentCommit], now_ms: int) -> list[np.ndarray]:
        """Commit segments. Returns a verdict per ordinal of each, uint8."""
        pairs = [(segment, self._first_verdicts(segment)) for segment in segments]
        plain: list[tuple[SegmentCommit, np.ndarray]] = []
        others: list[tuple[SegmentCommit, np.ndarray]] = []
        for segment, verdicts in pairs:
            if not verdicts.any():
                (plain if self.all_plain(segment.index, segment.expires_on) else others).append(
                    (segment, verdicts)
                )
        self._exclude_elsewhere(segment for segment, _ in others)
        self.note_used(day_of_ms(now_ms))
        # These look nowhere else. So they come first, for the others to find them there.
        for day in sorted({segment.expires_on for segment, _ in plain}):
            self._store(day, [pair for pair in plain if pair[0].expires_on == day], now_ms)
        for segment, verdicts in others:
            self.refuse_lost(segment.index, verdicts)
            self._refuse_stored_elsewhere(segment, verdicts, now_ms)
            self._store(segment.expires_on, [(segment, verdicts)], now_ms)
        finish_segments(self.connection, [pair for pair in pairs if self._is_prepared(pair[0])], now_ms)
        return [verdicts for _, verdicts in pairs]

    def _is_prepared(self, segment: SegmentCommit) -> bool:
        return bool(self._states.get(segment.segment_id, (None, 0))[0] == SegmentState.PREPARED)

    def _first_verdicts(self, segment: SegmentCommit) -> np.ndarray:
        """What the segment's own row says: the same of all chunks."""
        verdicts = np.zeros(len(segment.index), dtype=np.uint8)
        _, expires_on = self._states.get(segment.segment_id, (None, 0))
        if not self._is_prepared(segment):
            verdicts[:] = Verdict.RECLAIMED
        elif expires_on != segment.expires_on:
            raise CallerError(
                f"its key was prepared for day {expires_on}, not for day {segment.expires_on}",
                subject=f"segment {segment.segment_id}",
                code="wrong_day",
            )
        elif segment.expires_on <= self.closed_through:
            verdicts[:] = Verdict.EXPIRED
        return verdicts

    def _exclude_elsewhere(self, segments: Iterable[SegmentCommit]) -> None:
        """Keep out commits of the same devices that look, as this one will, into tables that others insert into: a
        primary key would stop the later one only if it inserted into the same table."""
        devices: set[int] = set()
        for segment in segments:
            none = np.zeros(len(segment.index), dtype=np.uint8)
            careful = self.not_plain(segment.index, segment.expires_on, none)
            devices.update(segment.index["device"][careful].tolist())
        if devices:
            if not self._alone:
                self.connection.exclude_devices(devices)
            self._days = self._open_days()  # who had these devices before may have made a day's table

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
        if times.min() < 0:
            times = times[times >= 0]
        return not len(times) or bool(
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
        plain = fits & (into_day_ms >= MAX_CLOCK_AHEAD_MS) | (index["capture_ms"] < 0)
        return np.flatnonzero(~plain & (verdicts == Verdict.STORED)).tolist()

    def known_days(self, chunk: np.void, expires_on: int) -> list[int]:
        """Every expiry day that a row of this device and time may have, `expires_on` being one.

        Readers look for a chunk only where its device's classes say. A class that the catalog does not know
        (a plan change that reached the bitmap, but was never committed) is noted here, in the transaction that
        first depends on it: what was acknowledged is found.

        Raises:
            _NotThisWay: there is such a class, and this transaction is not alone.
        """
        number, capture_ms = int(chunk["device"]), int(chunk["capture_ms"])
        device = self._devices[number]
        days = candidate_days(capture_ms, device.classes)
        if expires_on in days:
            return days
        if not self._alone:
            raise _NotThisWay
        classes = (*device.classes, class_between(day_of_ms(capture_ms), expires_on))
        self._devices[number] = device._replace(classes=classes)
        self.connection.execute(
            "UPDATE devices SET classes = ? WHERE device = ?", (json.dumps(sorted(classes)), number)
        )
        return candidate_days(capture_ms, classes)

    def insert(self, expires_on: int, rows: NewRows) -> Sequence[int]:
        """Insert what is not there yet. Returns the places in `rows` of those whose device and time is taken."""
        if expires_on not in self._with_table:
            create_chunk_table(self.connection, expires_on)
            self._with_table.add(expires_on)
            self._days.add(expires_on)
        return self.connection.insert_chunks(chunk_table(expires_on), rows, self._careful)

    def _store(self, day: int, pairs: Sequence[tuple[SegmentCommit, np.ndarray]], now_ms: int) -> None:
        """Insert what is still STORED of segments of one day: fragments after the init segments that they need."""
        if not any((segment.index["media"] == FMP4).any() for segment, _ in pairs):
            self._insert(day, pairs, now_ms)
            return
        inits = [
            (segment, np.where(segment.index["capture_ms"] < 0, verdicts, _LATER))
            for segment, verdicts in pairs
        ]
        self._insert(day, inits, now_ms)
        for (segment, verdicts), (_, of_inits) in zip(pairs, inits, strict=True):
            is_init = segment.index["capture_ms"] < 0
            verdicts[is_init] = of_inits[is_init]
        self._refuse_without_init(day, pairs)
        self._note_inits(day, pairs)
        rest = [
            (segment, np.where(segment.index["capture_ms"] < 0, _LATER, verdicts))
            for segment, verdicts in pairs
        ]
        self._insert(day, rest, now_ms)
        for (segment, verdicts), (_, of_rest) in zip(pairs, rest, strict=True):
            is_chunk = segment.index["capture_ms"] >= 0
            verdicts[is_chunk] = of_rest[is_chunk]

    def _refuse_without_init(self, day: int, pairs: Sequence[tuple[SegmentCommit, np.ndarray]]) -> None:
        """Nobody could play fragments whose init segment was deleted since their worker saw it, or is another one that
        has its number by chance."""
        fragments = [
            np.flatnonzero(
                (segment.index["media"] == FMP4)
                & (segment.index["capture_ms"] >= 0)
                & (verdicts == Verdict.STORED)
            )
            for segment, verdicts in pairs
        ]
        devices = {
            device
            for (segment, _), places in zip(pairs, fragments, strict=True)
            for device in segment.index["device"][places].tolist()
        }
        if not devices:
            return
        stored: set[tuple[int, int]] = set()
        if day in self._with_table:
            rows = self.connection.execute(
                f"SELECT device, capture_ms, epoch FROM {chunk_table(day)}"
                f" WHERE {self.connection.among('device', '?')} AND capture_ms < 0",
                (_json(devices),),
            )
            stored = {
                (int(device), -capture_ms)
                for device, capture_ms, epoch in rows
                if epoch == self._devices[int(device)].epoch
            }
        for (segment, verdicts), places in zip(pairs, fragments, strict=True):
            others = {
                (int(chunk["device"]), -int(chunk["capture_ms"]))
                for chunk, verdict in zip(segment.index, verdicts, strict=True)
                if chunk["capture_ms"] < 0 and verdict == Verdict.CONFLICT
            }
            numbers = _init_numbers(segment.index)
            for place in places.tolist():
                named = int(segment.index["device"][place]), int(numbers[place])
                if named not in stored or named in others:
                    verdicts[place] = Verdict.NO_INIT

    def _note_inits(self, day: int, pairs: Sequence[tuple[SegmentCommit, np.ndarray]]) -> None:
        """What a device sent last is stored for a later day now; or nothing is noted of it, as after an erasure."""
        noted = sorted(
            (int(chunk["device"]), int(chunk["epoch"]), -int(chunk["capture_ms"]), day)
            for segment, verdicts in pairs
            for chunk in segment.index[_of_inits(segment.index) & (verdicts == Verdict.STORED)]
        )
        if noted:
            self.connection.executemany(
                "INSERT INTO inits (device, epoch, number, expires_on, at_ms) VALUES (?, ?, ?, ?, 0)"
                " ON CONFLICT (device) DO UPDATE SET expires_on = excluded.expires_on"
                " WHERE inits.number = excluded.number AND inits.expires_on < excluded.expires_on",
                noted,
            )

    def _insert(self, day: int, pairs: Sequence[tuple[SegmentCommit, np.ndarray]], now_ms: int) -> None:
        """Insert the chunks that are still STORED of segments of one day, and judge those whose place is taken."""
        of = {segment.segment_id: (segment, verdicts) for segment, verdicts in pairs}
        parts = [
            NewRows.of(segment.index, segment.segment_id, ordinals)
            for segment, verdicts in pairs
            if len(ordinals := np.flatnonzero(verdicts == Verdict.STORED))
        ]
        if not parts:
            return
        rows = NewRows.joined(parts)
        for place in self.insert(day, rows):
            segment, verdicts = of[int(rows.segment_ids[place])]
            ordinal = int(rows.ordinals[place])
            verdicts[ordinal] = self._insert_one(segment, ordinal, now_ms)

    def _insert_one(self, segment: SegmentCommit, ordinal: int, now_ms: int) -> Verdict:
        """What became of one chunk whose place another row had."""
        chunk = segment.index[ordinal]
        row = NewRows.of(segment.index, segment.segment_id, np.array([ordinal]))
        while True:
            stored = _stored(self.connection, segment.expires_on, chunk)
            if stored is None:
                # What was in the way was removed meanwhile, by an engine that lets others write beside this.
                self.insert(segment.expires_on, row)
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
            self.insert(segment.expires_on, row)


def _of_inits(index: np.ndarray) -> np.ndarray:
    """bool per ordinal: it is an init segment."""
    return (index["capture_ms"] < 0) & (index["capture_ms"] > FIRST_PART_MS)


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


_LATER = np.uint8(255)
"""In place of a verdict: not asked yet."""


def _init_numbers(index: np.ndarray) -> np.ndarray:
    """The init segment that each chunk's facts name, uint32."""
    facts = np.frombuffer(index["facts"].tobytes(), dtype=np.uint8).reshape(-1, FACTS_BYTES)
    return facts[:, PARAMETERS_AT : PARAMETERS_AT + 4].copy().view("<u4")[:, 0]


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


def finish_segments(
    connection: Connection, segments: Sequence[tuple[SegmentCommit, np.ndarray]], now_ms: int
) -> None:
    """Make prepared segments committed, or tombstones where nothing of them is served. With each come its verdicts."""
    if not segments:
        return
    values: list[object] = [now_ms]  # nobody can be reading what was never served
    for segment, verdicts in segments:
        refused = np.flatnonzero(verdicts != Verdict.STORED).astype("<u4")
        live = len(verdicts) - len(refused)
        values += (
            segment.segment_id,
            segment.size_bytes,
            len(verdicts),
            live,
            segment.crc32,
            refused.tobytes(),
        )
    connection.last(
        f"UPDATE segments SET state = CASE WHEN v.column4 > 0 THEN {SegmentState.COMMITTED:d}"
        f" ELSE {SegmentState.DELETING:d} END, size_bytes = v.column2, chunks = v.column3,"
        " live_chunks = v.column4, crc32 = v.column5, refused = v.column6,"
        " delete_after_ms = CASE WHEN v.column4 > 0 THEN NULL ELSE ? END"
        f" FROM (VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * len(segments))}) AS v"
        " WHERE segments.segment_id = v.column1",
        values,
    )


def _json(numbers: Iterable[int]) -> str:
    return json.dumps(sorted(set(numbers)))


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
