"""What `bench sweep` acts on: a catalog full of days, and a bucket by arithmetic.

The catalog is the real one on disk, its rows put there by SQL in bulk (a commit per segment would take hours). The
bucket holds an object for every segment in it, but as a rule for making names, not as bytes: what is measured is what
a sweep asks of a store, and a model of one answers the same for millions of objects without their memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from storage.days import ms_of_day, to_date
from storage.errors import ObjectMissing
from storage.media_facts import FACTS_BYTES
from storage.objects import DELETE_BATCH_KEYS, ObjectInfo, ObjectStore
from storage.open_catalog import SQLITE, create_catalog
from storage.rows.devices import PlanRow
from storage.rows.recordings import SegmentState
from storage.sql.chunktables import chunk_table, create_chunk_table
from storage.sqlite.database import SqliteConnection

FIRST_DAY = 20_254
"""The expiry day that is over; 2025-06-15."""
CLASS_DAYS = 30
SEGMENT_BYTES = 8 * 1024 * 1024
LIST_PAGE_KEYS = 1000
DEVICES_PER_DAY = 1000
"""So many cameras share a day's chunks."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How much there is."""

    days: int
    segments: int
    """Of a day."""
    chunks: int
    """Of a day."""

    @property
    def chunks_per_segment(self) -> int:
        return self.chunks // self.segments


def object_key(day: int, number: int) -> str:
    return f"v1/{CLASS_DAYS}/{to_date(day).isoformat()}/w0/{number:023x}"


def make_catalog(path: Path, shape: Shape) -> Iterator[None]:
    """Fill a new catalog; yields once before each day."""
    with closing(create_catalog(SQLITE, path)) as catalog:
        plan = PlanRow(0, "monthly", FIRST_DAY - 400, None, CLASS_DAYS)
        catalog.add_devices(DEVICES_PER_DAY, account=1, plans=[plan], now_ms=ms_of_day(FIRST_DAY))
    with closing(sqlite3.connect(path, isolation_level=None, factory=SqliteConnection)) as connection:
        # Nothing here has to survive a crash.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        for number in range(shape.days):
            yield
            connection.execute("BEGIN")
            _fill_day(connection, FIRST_DAY + number, number * shape.segments, shape)
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def _fill_day(connection: SqliteConnection, day: int, first_segment: int, shape: Shape) -> None:
    per_segment = shape.chunks_per_segment
    connection.executemany(
        "INSERT INTO segments (segment_id, key, class_days, expires_on, state, prepared_ms, size_bytes, chunks,"
        " live_chunks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(first_segment + n + 1, object_key(day, n), CLASS_DAYS, day, SegmentState.COMMITTED),
                *(ms_of_day(day - CLASS_DAYS - 1), SEGMENT_BYTES, per_segment, per_segment),
            )
            for n in range(shape.segments)
        ),
    )
    create_chunk_table(connection, day)
    # In order of the key, device and time, so that pages are filled one after the other.
    connection.execute(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :chunks)"
        f" INSERT INTO {chunk_table(day)}"
        " SELECT 1 + i / :each, :start_ms + i % :each * 2000, :first + 1 + i % :segments, i / :segments,"
        "        8 + i / :segments * 150000, 149000, 2000, i, i * 7919, randomblob(12), 1, 0,"
        f"       randomblob({FACTS_BYTES}) FROM n",
        {
            "chunks": per_segment * shape.segments,
            "each": -(-shape.chunks // DEVICES_PER_DAY),
            "start_ms": ms_of_day(day - CLASS_DAYS - 1),
            "first": first_segment,
            "segments": shape.segments,
        },
    )


class ModelStore(ObjectStore):
    """A bucket with the objects of a `Shape`, in which every call takes `latency_s`. Of what is put, it keeps all.

    Attributes:
        calls: per operation; a listing counts a call per page of 1000.
    """

    def __init__(self, shape: Shape, *, latency_s: float) -> None:
        self._shape = shape
        self._latency_s = latency_s
        self.calls: Counter[str] = Counter()
        self.deleted: set[str] = set()
        self._put: dict[str, bytes] = {}

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        time.sleep(self._latency_s)

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        self._called("put")
        self._put[key] = bytes(body)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self._called("get_range")
        if key not in self._put:
            raise ObjectMissing("this bucket is a model", subject=key)
        return self._put[key][start : start + length]

    def head(self, key: str) -> ObjectInfo:
        self._called("head")
        raise ObjectMissing("this bucket is a model", subject=key)

    def delete_many(self, keys: Sequence[str]) -> dict[str, str | None]:
        assert len(keys) <= DELETE_BATCH_KEYS
        self._called("delete_many")
        self.deleted.update(keys)
        return dict.fromkeys(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        listed = 0
        for day in range(FIRST_DAY, FIRST_DAY + self._shape.days):
            put_s = ms_of_day(day - CLASS_DAYS - 1) / 1000
            for number in range(self._shape.segments):
                key = object_key(day, number)
                if key.startswith(prefix) and key not in self.deleted:
                    if listed % LIST_PAGE_KEYS == 0:
                        self._called("list")
                    listed += 1
                    yield ObjectInfo(key, SEGMENT_BYTES, put_s)

    def server_time_s(self) -> float | None:
        self._called("server_time_s")
        return None
