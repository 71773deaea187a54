"""What a catalog's conformance suites are given: the catalog, days, and the shortest way to make a device or a segment.

Captures are on `DAY` unless a test says otherwise, and kept for `WEEK` or `MONTH`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from storage.catalog import Catalog
from storage.days import MS_PER_DAY, ms_of_day
from storage.media_facts import FACTS_BYTES
from storage.rows.devices import EraseState, PlanRow
from storage.rows.recordings import ChunkRow, SegmentCommit, SegmentRow, Verdict
from storage.segment import INDEX_DTYPE, MAGIC, TAG_BYTES

Opener = Callable[[], Catalog]

DAY = 20_000

NOON = ms_of_day(DAY) + MS_PER_DAY // 2

NOW = NOON

WEEK, MONTH = 7, 30

ENDS = DAY + WEEK + 1
"""The expiry day of what was captured on DAY and is kept for a WEEK."""

AFTER = ms_of_day(ENDS) + 1
"""A time at which that day may be closed."""

STORED, DUPLICATE, CONFLICT = Verdict.STORED, Verdict.DUPLICATE, Verdict.CONFLICT

ERASED, EXPIRED, DELETED, RECLAIMED = Verdict.ERASED, Verdict.EXPIRED, Verdict.DELETED, Verdict.RECLAIMED


@dataclass(frozen=True)
class Upload:
    """A chunk as a commit sees it; `content` stands for its bytes."""

    device: int
    capture_ms: int
    content: int = 0
    epoch: int = 0


def index_of(*uploads: Upload) -> np.ndarray:
    index = np.zeros(len(uploads), INDEX_DTYPE)
    offset = len(MAGIC)
    for row, upload in zip(index, uploads, strict=True):
        content = upload.content.to_bytes(8, "little")
        row["device"], row["capture_ms"], row["epoch"] = upload.device, upload.capture_ms, upload.epoch
        row["length"], row["offset"] = 1000 + upload.content, offset
        row["crc32"] = zlib.crc32(content)
        row["crc64"] = (1 << 63) + zlib.crc32(content, 1)  # above what fits a signed number
        row["duration_ms"], row["media"] = 2000, 1
        row["facts"] = np.void(bytes([1 + upload.content % 255]) * FACTS_BYTES)
        row["nonce"] = np.void(repr((upload, offset)).encode()[-12:])
        offset += int(row["length"]) + TAG_BYTES
    return index


def segment_of(
    catalog: Catalog, *uploads: Upload, expires_on: int = ENDS, index: np.ndarray | None = None
) -> SegmentCommit:
    """A segment whose key is prepared and whose object, one would think, is stored."""
    [key] = catalog.prepare(worker="w0", class_days=31, expires_on=expires_on, count=1, now_ms=NOW)
    rows = index_of(*uploads) if index is None else index
    return SegmentCommit(key.segment_id, expires_on, 1_000_000, 0xFFFFFFFF, rows)


def verdicts(found: np.ndarray) -> list[Verdict]:
    assert found.dtype == np.uint8
    return [Verdict(v) for v in found.tolist()]


def commit(catalog: Catalog, *uploads: Upload, expires_on: int = ENDS) -> list[Verdict]:
    [found] = catalog.commit([segment_of(catalog, *uploads, expires_on=expires_on)], now_ms=NOW)
    return verdicts(found)


def add_device(catalog: Catalog, *classes: int) -> int:
    plans = [PlanRow(0, "monthly", DAY, None, days) for days in classes or (WEEK,)]
    return catalog.add_devices(1, account=1, plans=plans, now_ms=NOW)[0].device


def add_class(catalog: Catalog, device: int, days: int) -> None:
    plan = PlanRow(0, "annual", DAY, None, days)
    catalog.update_device(device, lambda old: replace(old, plans=(plan,)), what="retention", now_ms=NOW)


def erase(catalog: Catalog, device: int, state: EraseState = EraseState.ERASING) -> None:
    catalog.update_device(
        device,
        lambda old: replace(old, erase_state=state, erase_epoch=old.erase_epoch + 1),
        what="erase",
        now_ms=NOW,
    )


def lease(catalog: Catalog, holder: str = "sweeper", now_ms: int = NOW) -> int:
    fence = catalog.acquire_lease("sweep", holder=holder, ttl_ms=60_000, now_ms=now_ms)
    assert fence is not None
    return fence


def segments(catalog: Catalog) -> list[SegmentRow]:
    found: list[SegmentRow] = []
    while batch := catalog.segments(after_id=found[-1].segment_id if found else 0, limit=7):
        found += batch
    return found


def day_rows(catalog: Catalog) -> dict[int, list[ChunkRow]]:
    days = {row.expires_on for row in segments(catalog)}
    found = {day: list(catalog.day_rows(day)) for day in sorted(days)}
    return {day: rows for day, rows in found.items() if rows}


def everything(catalog: Catalog) -> tuple[object, ...]:
    """All that the interface tells, to say that nothing changed."""
    facts = catalog.devices(limit=100_000)
    return segments(catalog), day_rows(catalog), facts, catalog.totals(), catalog.newest_change()


def only_segment(catalog: Catalog) -> SegmentRow:
    [row] = segments(catalog)
    return row


def refused(row: SegmentRow) -> list[int]:
    return sorted(np.frombuffer(row.refused, dtype="<u4").tolist())


def captures(rows: list[ChunkRow]) -> list[int]:
    return [row.capture_ms for row in rows]


class OnCatalog:
    """A suite's fixtures. `opener` is the implementer's: see `storage.contracts`."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def catalog(self, opener: Opener) -> Iterator[Catalog]:
        catalog = opener()
        yield catalog
        catalog.close()

    @pytest.fixture
    def sound(self, catalog: Catalog) -> Iterator[None]:
        """After the test the catalog's own rows must agree (invariant 4). Used by all tests but those that break it."""
        yield
        assert list(catalog.broken_rows()) == []
