"""`clipkeep check` and `clipkeep catalog rebuild`: the catalog against the objects, both ways (invariants 3 to 6).

Both may run beside a service. So nothing is called broken on one look: what changed between the listing of the
store and the reading of the catalog is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retention.account_keys import count_unused, wrong_account_keys
from retention.sweep import SEGMENT_PREFIX
from service.folder import Opened
from storage import checksums
from storage.catalog.check import CheckCatalog
from storage.catalog.continuity import ContinuityCatalog
from storage.days import month_of_day
from storage.errors import CatalogCorrupt, CorruptError, NotFound, ObjectMissing, SegmentCorrupt
from storage.media_facts import FACTS_BYTES
from storage.objects import ObjectInfo
from storage.recover import load_index, load_index_of, read_again_if_corrupt
from storage.rows.clips import clip_of_key
from storage.rows.recordings import ChunkRow, SegmentRow, SegmentState
from storage.segment import TAG_BYTES, Footer, decrypt_chunk, parse_segment
from storage.vault import KeyId, Outcome, key_destroyed

MAX_LISTED = 1000
"""Findings kept in a report; the count goes on."""
MAX_NAMED = 20
"""Devices named in a sentence."""
MAX_ORPHANS = 100_000
"""Orphans remembered for a repair: some 30 MB. The next repair goes on."""

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Lost:
    """Objects of another catalog than this one: it was restored, or made anew, and they hold what was recorded since.

    Times are Unix ms, None when there is nothing.
    """

    objects: int = 0
    chunks: int = 0
    devices: set[int] = field(default_factory=set)
    from_ms: int | None = None
    to_ms: int | None = None

    def add(self, index: np.ndarray) -> None:
        self.objects += 1
        self.chunks += len(index)
        if len(index):
            self.devices.update(index["device"].tolist())
            first, last = int(index["capture_ms"].min()), int(index["capture_ms"].max())
            self.from_ms = first if self.from_ms is None else min(first, self.from_ms)
            self.to_ms = last if self.to_ms is None else max(last, self.to_ms)

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "devices": sorted(self.devices)[:MAX_LISTED],
            "device_count": len(self.devices),
        }

    def told(self) -> str:
        """For people."""
        devices = sorted(self.devices)
        named = ", ".join(map(str, devices[:MAX_NAMED])) + (", …" if len(devices) > MAX_NAMED else "")
        return (
            f"{self.objects} objects with {self.chunks} chunks are of a newer catalog than this one: recordings of"
            f" {len(devices)} devices ({named}), from {_time(self.from_ms)} to {_time(self.to_ms)}, were acknowledged"
            " and are not served. This catalog was restored or made anew. Put the newer one back; when only its chunk"
            " tables are damaged, `clipkeep catalog rebuild` mends them. Without it nothing can tell what in these"
            ' objects was refused, deleted or erased: see "A restored catalog" in docs/operations.md'
        )


def _time(ms: int | None) -> str:
    return "?" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class CheckResult:
    """What a check found. `broken` is empty when all is sound."""

    segments: int = 0
    chunks: int = 0
    objects: int = 0
    object_bytes: int = 0
    unused_account_keys: int = 0
    """Keys in the vault that no account ever had: a few are made ahead; the sweep destroys those that get old."""
    broken_count: int = 0
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    orphan_count: int = 0
    """Of what is broken: objects that the catalog does not know."""
    repaired: int = 0
    """Of these: made tombstones, for the sweep to delete."""
    orphans: list[ObjectInfo] = field(default_factory=list)
    """At most MAX_ORPHANS of them. Not in the report."""
    lost: Lost = field(default_factory=Lost)

    def found(self, what: str) -> None:
        self.broken_count += 1
        if len(self.broken) < MAX_LISTED:
            self.broken.append(what)

    def found_orphan(self, info: ObjectInfo) -> None:
        self.found(f"{info.key}: an object that the catalog does not know, {info.size_bytes} bytes")
        self.orphan_count += 1
        if len(self.orphans) < MAX_ORPHANS:
            self.orphans.append(info)

    def note_repaired(self, keys: set[str]) -> None:
        """These orphans are tombstones by now."""
        self.repaired = len(keys)
        self.broken_count -= len(keys)
        self.broken = [what for what in self.broken if what.partition(":")[0] not in keys]
        self.notes += [f"{key}: marked, for the sweep to delete" for key in sorted(keys)[:MAX_LISTED]]

    def as_dict(self) -> dict[str, Any]:
        document = asdict(self)
        del document["orphans"]
        document["lost"] = self.lost.as_dict()
        return document


def all_segments(opened: Opened) -> Iterator[SegmentRow]:
    """Every segment row, in order of id."""
    after_id = 0
    while batch := opened.catalog.segments(after_id=after_id):
        yield from batch
        after_id = batch[-1].segment_id


def check_folder(opened: Opened, *, deep: bool, progress: Progress) -> CheckResult:
    """Compare catalog and store.

    Args:
        deep: let the engine check the files of catalog and key store, read every committed object, and decrypt every
            chunk that has a row.
    """
    result = CheckResult()
    if deep:
        for sentence in (*opened.catalog.damage(), *opened.vault.damage()):
            result.found(sentence)
        result.notes += opened.catalog.unlooked()
    damaged = result.broken_count > 0
    try:
        _check_both_ways(opened, deep, result, progress)
    except CorruptError as error:
        if not damaged:
            raise
        result.found(f"{error}; what comes after it was not checked")  # named above already, by the engine
    return result


def _check_both_ways(opened: Opened, deep: bool, result: CheckResult, progress: Progress) -> None:
    for sentence in opened.catalog.broken_rows():
        result.found(sentence)
    for sentence in wrong_account_keys(opened.catalog, opened.vault):
        result.found(sentence)
    result.unused_account_keys = count_unused(opened.catalog, opened.vault)
    counts = opened.catalog.totals().segments
    expected = counts["committed"] + counts["deleting"]
    committed = []
    for info, row in _side_by_side(opened.store.list(SEGMENT_PREFIX), _segments_by_key(opened)):
        if info is not None:
            result.objects += 1
            result.object_bytes += info.size_bytes
            progress("objects", result.objects, max(expected, result.objects + 1))  # there may be more
        if row is None:
            assert info is not None
            _check_orphan(opened, info, result)
        elif row.state is SegmentState.COMMITTED:
            result.segments += 1
            result.chunks += row.live_chunks
            _check_object(opened, row, info, result)
            if deep:
                committed.append(row)
    progress("objects", result.objects, result.objects)
    if deep:
        _check_contents(opened, committed, result, progress)


def _segments_by_key(opened: Opened) -> Iterator[SegmentRow]:
    after_key = ""
    while batch := opened.catalog.segments_by_key(after_key=after_key):
        yield from batch
        after_key = batch[-1].key


def _side_by_side(
    objects: Iterator[ObjectInfo], rows: Iterator[SegmentRow]
) -> Iterator[tuple[ObjectInfo | None, SegmentRow | None]]:
    """Merge what is in order of key: an object and its row, or one without the other. Neither side is held in memory,
    and neither is of one moment: what has no other side is looked at again."""
    info, row = next(objects, None), next(rows, None)
    while info is not None or row is not None:
        if row is None or (info is not None and info.key < row.key):
            yield info, None
            info = next(objects, None)
        elif info is None or row.key < info.key:
            yield None, row
            row = next(rows, None)
        else:
            yield info, row
            info, row = next(objects, None), next(rows, None)


def _check_object(opened: Opened, row: SegmentRow, info: ObjectInfo | None, result: CheckResult) -> None:
    if info is None:
        try:
            info = opened.store.head(row.key)  # put after the listing
        except ObjectMissing:
            if _state_now(opened, row) is SegmentState.COMMITTED:
                result.found(f"{row.key}: committed with {row.live_chunks} chunks, but the object is missing")
            return
    if info.size_bytes != row.size_bytes:
        result.found(f"{row.key}: {info.size_bytes} bytes in the store, {row.size_bytes} in the catalog")


def _check_orphan(opened: Opened, info: ObjectInfo, result: CheckResult) -> None:
    try:
        opened.store.head(info.key)
    except ObjectMissing:
        return  # swept meanwhile
    if opened.catalog.segment_with_key(info.key) is not None:
        return  # prepared since the rows were read
    if _is_lost(opened, info, result):
        return
    age_s = opened.clock.now_ms() / 1000 - info.modified_s
    if age_s < 2 * opened.config.segments.prepare_ttl_s:
        result.notes.append(f"{info.key}: not in the catalog yet, {age_s:.0f} s old")
    else:
        result.found_orphan(info)


def _is_lost(opened: Opened, info: ObjectInfo, result: CheckResult) -> bool:
    """Whether an object says that it is a segment which this catalog never gave to it. It is not an orphan."""
    try:
        footer, index = load_index(opened.store, info.key)
    except (ObjectMissing, CorruptError):
        return False
    if not is_anothers(opened.catalog, info.key, footer.segment_id):
        return False
    result.lost.add(index)
    result.found_orphan(info)
    return True


class NumbersCatalog(CheckCatalog, ContinuityCatalog, Protocol):
    """Segments, and how far their numbers are."""


def is_anothers(catalog: NumbersCatalog, key: str, segment_id: int) -> bool:
    """Whether this catalog never reached that segment number, or gave it to another key: the object is of a newer one.
    Asked after the object was found: what is stored has been prepared before."""
    rows = catalog.segments(after_id=segment_id - 1, limit=1)
    given_again = any(row.segment_id == segment_id and row.key != key for row in rows)
    return given_again or segment_id > catalog.highest_segment_id()


def _as_before(opened: Opened, row: SegmentRow) -> bool:
    """Whether a segment's row is still the one that was read: neither swept nor partly deleted meanwhile."""
    return opened.catalog.segments(after_id=row.segment_id - 1, limit=1) == [row]


def _state_now(opened: Opened, row: SegmentRow) -> SegmentState | None:
    found = opened.catalog.segments(after_id=row.segment_id - 1, limit=1)
    return found[0].state if found and found[0].segment_id == row.segment_id else None


# --- every byte -----------------------------------------------------------------------------------------------------


def _check_contents(
    opened: Opened, committed: list[SegmentRow], result: CheckResult, progress: Progress
) -> None:
    by_id = {row.segment_id: row for row in committed}
    done = 0
    for day in sorted({row.expires_on for row in committed}):
        try:
            for segment_id, rows in groupby(opened.catalog.day_rows(day), key=lambda row: row.segment_id):
                if segment_id in by_id:
                    _check_segment(opened, by_id[segment_id], list(rows), result)
                    done += 1
                    progress("segments", done, len(committed))
        except CatalogCorrupt as error:
            result.found(f"day {day}: {error}")


def _check_segment(opened: Opened, segment: SegmentRow, rows: list[ChunkRow], result: CheckResult) -> None:
    try:
        body, footer, index = read_again_if_corrupt(lambda: _read_segment(opened, segment))
    except (CorruptError, ObjectMissing) as error:
        if _state_now(opened, segment) is SegmentState.COMMITTED:
            result.found(str(error))
        return
    if (footer.segment_id, footer.expires_on) != (segment.segment_id, segment.expires_on):
        result.found(f"{segment.key}: the object is that of another segment, number {footer.segment_id}")
        return
    refused = set(np.frombuffer(segment.refused, dtype="<u4").tolist())
    ordinals = {row.ordinal for row in rows}
    if ordinals != set(range(len(index))) - refused and _as_before(opened, segment):
        result.found(f"{segment.key}: its rows are not the chunks that its commit accepted")
    keys = _keys_of(opened, segment, {_key_id(row) for row in rows})
    for row in rows:
        what = _fault_of(opened, row, index, body, keys[_key_id(row)])
        if what:
            result.found(f"device {row.device} at {row.capture_ms}: {what}")


def _read_segment(opened: Opened, segment: SegmentRow) -> tuple[bytes, Footer, np.ndarray]:
    body = opened.store.get_range(segment.key, 0, segment.size_bytes)
    return body, *parse_segment(body, subject=segment.key)


def _key_id(row: ChunkRow) -> KeyId:
    return KeyId(row.device, row.epoch, month_of_day(row.expires_on))


def _keys_of(opened: Opened, segment: SegmentRow, ids: set[KeyId]) -> dict[KeyId, Outcome]:
    """Of the chunks of a segment: data keys, or the one key of a kept clip for all of them."""
    clip = clip_of_key(segment.key)
    if clip is None:
        return opened.vault.get_each(ids)
    id_ = opened.catalog.clip_key(clip)
    key = opened.vault.account_keys([id_]).get(id_) if id_ is not None else None
    return {key_id: key_destroyed(key_id) if key is None else key for key_id in ids}


def _fault_of(opened: Opened, row: ChunkRow, index: np.ndarray, body: bytes, key: Outcome) -> str:
    """What is wrong with one chunk; empty when nothing is."""
    if row.ordinal >= len(index) or _place(row) != _place_of(index[row.ordinal]):
        return f"the row points at another chunk of {row.segment_key}"
    entry = index[row.ordinal]
    if (row.media, row.facts or _NO_FACTS) != (int(entry["media"]), entry["facts"].tobytes()):
        return f"its media facts are not those in the index of {row.segment_key}"
    if not isinstance(key, bytes):
        return "" if _is_going(opened, row) else f"its data key is gone: {key}"
    try:
        stored = body[row.offset : row.offset + row.length + TAG_BYTES]
        data = decrypt_chunk(AESGCM(key), row.nonce, stored, device=row.device, capture_ms=row.capture_ms)
    except CorruptError as error:
        return error.detail
    if (checksums.crc32(data), checksums.crc64nvme(data)) != (int(entry["crc32"]), int(entry["crc64"])):
        return f"its checksums are not those in the index of {row.segment_key}"
    return ""


def _place(row: ChunkRow) -> tuple[Any, ...]:
    where = (row.device, row.capture_ms, row.epoch, row.offset, row.length)
    return (*where, row.crc32, row.duration_ms, row.nonce)


def _place_of(entry: np.void) -> tuple[Any, ...]:
    names = ("device", "capture_ms", "epoch", "offset", "length", "crc32", "duration_ms")
    return (*(int(entry[name]) for name in names), entry["nonce"].tobytes())


_NO_FACTS = bytes(FACTS_BYTES)
"""Of rows and indexes of releases that kept none."""


def _is_going(opened: Opened, row: ChunkRow) -> bool:
    """Whether a chunk without a key is no fault: its device is being erased, or its day has been swept."""
    try:
        erased = opened.catalog.device(row.device).erase_epoch != row.epoch
    except NotFound:
        return False
    clip = clip_of_key(row.segment_key)
    if clip is not None and opened.catalog.clip_key(clip) is None:
        return True  # deleted since its rows were read
    return erased or row.expires_on <= opened.catalog.closed_through


# --- rebuild --------------------------------------------------------------------------------------------------------


MAX_KEYS_TRIED = 16
"""Of a segment: chunks of erased devices have no key, and say nothing."""


def _require_own(opened: Opened, segment: SegmentRow, index: np.ndarray) -> None:
    """Make sure that an index is of the chunks in its object, by one of them that can be decrypted: rows that point at
    bytes of others would keep the rows of the true ones out of the catalog. A chunk that is damaged says nothing of
    the others.

    Raises:
        SegmentCorrupt: none of those that have a key is what the index says.
    """
    entries = index[:MAX_KEYS_TRIED]
    month = month_of_day(segment.expires_on)
    ids = [KeyId(int(entry["device"]), int(entry["epoch"]), month) for entry in entries]
    keys = _keys_of(opened, segment, set(ids))
    failed = None
    for entry, key_id in zip(entries, ids, strict=True):
        key = keys[key_id]
        if isinstance(key, bytes):
            try:
                _decrypt_entry(opened, segment.key, entry, key)
            except CorruptError as error:
                failed = error
            else:
                return
    if failed is not None:
        raise SegmentCorrupt(
            "index: of other chunks than those in the object", subject=segment.key
        ) from failed


def _decrypt_entry(opened: Opened, key: str, entry: np.void, data_key: bytes) -> None:
    stored = opened.store.get_range(key, int(entry["offset"]), int(entry["length"]) + TAG_BYTES)
    device, capture_ms = int(entry["device"]), int(entry["capture_ms"])
    decrypt_chunk(AESGCM(data_key), entry["nonce"].tobytes(), stored, device=device, capture_ms=capture_ms)


def rebuild_catalog(opened: Opened, *, progress: Progress) -> dict[str, Any]:
    """Re-create chunk rows from the objects of all committed segments.

    Returns:
        {"segments": read, "chunks": rows added, "unreadable": {key: why}}.
    """
    rows = [row for row in all_segments(opened) if row.state is SegmentState.COMMITTED]
    unreadable: dict[str, str] = {}
    read = 0

    def indexes() -> Iterator[tuple[SegmentRow, np.ndarray]]:
        nonlocal read
        for number, row in enumerate(rows):
            progress("segments", number + 1, len(rows))
            try:
                index = load_index_of(opened.store, row)
                _require_own(opened, row, index)
            except (CorruptError, ObjectMissing) as error:
                unreadable[row.key] = str(error)
                continue
            read += 1
            yield row, index

    added = opened.catalog.rebuild_chunks(indexes())
    return {"segments": read, "chunks": added, "unreadable": unreadable}
