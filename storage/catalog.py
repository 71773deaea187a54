"""The catalog interface: the database of accounts, devices, plans, segments and chunks.

It stores facts and decides races; it knows no rule of the agreement (those are pure functions in
`retention`, handed in where a decision must be taken inside a transaction) and has no clock (`now_ms`, Unix
milliseconds, is an argument). Days are day numbers (`storage.days`).

All methods block and may be called from several threads and processes at once. Every method that changes
something is one transaction, durable when it returns. Errors: `CatalogUnavailable` when the database
cannot be read or written; `NotFound` for an unknown device.

`tests/storage/catalog_contract.py` is the conformance suite of an implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from storage.continuity import Continuity
from storage.records import Records

if TYPE_CHECKING:
    from storage.books import Books

T = TypeVar("T")

MAX_CLOCK_AHEAD_MS = 600_000
"""How far a device's clock may be ahead. Not configurable: a commit derives from it in which partitions the same
(device, capture_ms) could already be."""


MAX_CAPTURE_MS = 1 << 62
"""Above every capture time."""


class SegmentState(IntEnum):
    """A key is in exactly one of these, or absent (invariant 4)."""

    PREPARED = 0  # reserved; a PUT may be under way
    COMMITTED = 1  # its chunks are served
    DELETING = 2  # un-indexed; the tombstone that the sweep works off


class Verdict(IntEnum):
    """What a commit decided about one chunk."""

    STORED = 0
    DUPLICATE = 1  # the same chunk is already stored
    CONFLICT = 2  # other bytes are stored at this device and time
    ERASED = 3  # the device's erase epoch has moved on since admission
    EXPIRED = 4  # its expiry day has been swept
    DELETED = 5  # its owner or an operator deleted this range
    RECLAIMED = 6  # the segment's key was no longer prepared: nothing of it is stored


class EraseState(IntEnum):
    """How far the destruction of a device's recordings has come."""

    NONE = 0
    ERASING = 1  # decided; keys are to be destroyed next
    ERASED = 2  # keys are gone


@dataclass(frozen=True, slots=True)
class PreparedKey:
    """A segment key reserved before its first byte is written (invariant 5)."""

    segment_id: int
    key: str
    prepared_ms: int


class SegmentMark(NamedTuple):
    """What was stored at one moment, by segment numbers: all up to `newest`, less the ranges `unused`.

    A worker prepares numbers in blocks and uses them for minutes, so a chunk that is stored later may be in a segment
    of a lower number. `unused`: (first, last) of each range that was prepared and not committed then, ascending; the
    newest MAX_UNUSED_RANGES.
    """

    newest: int
    unused: tuple[tuple[int, int], ...] = ()


NOTHING_STORED = SegmentMark(0)
MAX_UNUSED_RANGES = 64
"""Of a `SegmentMark`: a range for each worker, retention class and day of expiry, and some more for puts under way."""


@dataclass(frozen=True, slots=True)
class SegmentCommit:
    """A segment whose object is durable in the store. `index` has dtype `segment.INDEX_DTYPE`."""

    segment_id: int
    expires_on: int
    size_bytes: int
    crc32: int
    index: np.ndarray


@dataclass(frozen=True, slots=True)
class SegmentRow:
    segment_id: int
    key: str
    class_days: int
    expires_on: int
    state: SegmentState
    prepared_ms: int
    size_bytes: int
    chunks: int
    live_chunks: int
    crc32: int
    refused: bytes
    """uint32 ordinals that are not served: lost at commit, or deleted since. A rebuild honours them."""


class ChunkRow(NamedTuple):
    """Where one chunk is, and everything needed to read it. (A tuple: a day's listing makes 20,000 of them.)"""

    device: int
    capture_ms: int
    duration_ms: int
    """How long it plays; 0: neither the device nor the media could tell, as of a single frame."""
    expires_on: int
    segment_id: int
    segment_key: str
    ordinal: int
    offset: int
    length: int
    crc32: int
    nonce: bytes
    media: int
    epoch: int
    facts: bytes = b""
    """Packed; `storage.media_facts.unpack_facts` reads it, whatever it is."""

    def is_same_chunk(self, other: ChunkRow) -> bool:
        """Whether both are of one and the same ciphertext, wherever a rewrite has put it."""
        mine = (self.device, self.capture_ms, self.epoch, self.nonce)
        return mine == (other.device, other.capture_ms, other.epoch, other.nonce)


class LiveListRow(NamedTuple):
    """What the live playlist of a device lists, as playback stored it. `version` counts its changes, from 1."""

    version: int
    epoch: int
    state: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan as stored. Days are day numbers; `ends_on` is the last entitled day, None while it renews itself."""

    plan_id: int  # 0 for a row that is not stored yet
    kind: str
    starts_on: int
    ends_on: int | None
    retention_days: int
    cancelled_on: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """All that decides what a device may do."""

    device: int
    account: int
    token_generation: int
    erase_epoch: int
    suspended: bool = False
    terminated_ms: int | None = None
    erase_state: EraseState = EraseState.NONE
    erase_reason: str = ""
    plans: tuple[PlanRow, ...] = ()
    account_suspended: bool = (
        False  # its account is suspended or cancelled; changed through `Books.put_account` only
    )
    viewer_generation: int = (
        0  # viewer tokens of another one are void; 0..MAX_VIEWER_GENERATION, then 0 again
    )


@dataclass(frozen=True, slots=True)
class DayTotals:
    """What one expiry day holds."""

    expires_on: int
    segments: int
    chunks: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An un-indexed object that is to be deleted. `reclaimed` ones are deleted twice, one ttl apart."""

    segment_id: int
    key: str
    size_bytes: int
    attempts: int
    reclaimed: bool


@dataclass(frozen=True, slots=True)
class Due:
    """What is due to be deleted."""

    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Orphan:
    """An object under a key of ours that the catalog does not know."""

    key: str
    class_days: int
    expires_on: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Unindexed:
    """What a change made unserved."""

    chunks: int = 0
    size_bytes: int = 0
    dead_segments: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums for reports and metrics."""

    devices: int = 0
    chunks: int = 0
    segments: dict[str, int] = field(default_factory=dict)
    segment_bytes: int = 0
    tombstones: int = 0
    oldest_tombstone_ms: int | None = None
    failing_tombstones: int = 0
    closed_through: int = 0


class Catalog(Records, Continuity, ABC):
    """See the module docstring. Grouped by who calls; what it remembers of erasures and sweeps: `storage.records`."""

    # --- ingest -------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(
        self, *, worker: str, class_days: int, expires_on: int, count: int, now_ms: int
    ) -> list[PreparedKey]:
        """Reserve `count` new segment keys, never used before, in state prepared."""

    @abstractmethod
    def release(self, segment_ids: Sequence[int]) -> None:
        """Give back prepared keys for which no PUT was ever started."""

    @abstractmethod
    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        """Make segments committed and their chunks served, in one transaction.

        Decides the races (design §2): per segment a uint8 array of `Verdict`, one per ordinal. Chunks that
        lost get no row, and their ordinals are kept on the segment row as refused. A segment without any
        stored chunk is tombstoned at once. A row of an earlier erase epoch gives way to a new chunk.

        Raises:
            CallerError: `expires_on` is not the day that the key was prepared for (`wrong_day`).
        """

    # --- reading ------------------------------------------------------------------------------------------

    @abstractmethod
    def chunk(self, device: int, capture_ms: int) -> ChunkRow | None:
        """The stored chunk, or None. Like all reading: nothing of an earlier erase epoch or of a closed day."""

    @abstractmethod
    def chunks(self, device: int, from_ms: int, to_ms: int, *, limit: int) -> list[ChunkRow]:
        """Chunks with from_ms <= capture_ms < to_ms in order of capture, at most `limit`, the earliest ones."""

    @abstractmethod
    def latest_chunks(self, device: int, *, limit: int, before_ms: int = MAX_CAPTURE_MS) -> list[ChunkRow]:
        """The newest `limit` chunks with capture_ms < before_ms, in order of capture."""

    @abstractmethod
    def chunks_stored_after(
        self, device: int, mark: SegmentMark, from_ms: int, to_ms: int, *, limit: int
    ) -> list[ChunkRow]:
        """As `chunks`, of those that were stored after `mark` was taken. What a rewrite has moved since is in it."""

    @abstractmethod
    def has_deletions(self, device: int, from_ms: int, to_ms: int) -> bool:
        """Whether `delete_range` ever deleted what was captured in a part of [from_ms, to_ms)."""

    @abstractmethod
    def segment_mark(self) -> SegmentMark:
        """What is stored now; NOTHING_STORED before the first segment key was prepared."""

    @abstractmethod
    def live_list(self, device: int) -> LiveListRow | None:
        """What `put_live_list` stored last; None before the first, and after an erasure."""

    @abstractmethod
    def put_live_list(self, device: int, row: LiveListRow) -> bool:
        """Store a live list in place of that of version `row.version - 1`, 0 for none.

        Returns:
            False, and nothing was changed: another writer was first, or the device is of another erase epoch by now.
        """

    # --- devices and plans --------------------------------------------------------------------------------

    @abstractmethod
    def add_devices(
        self, count: int, *, account: int, plans: Sequence[PlanRow], now_ms: int
    ) -> list[DeviceFacts]:
        """Make `count` devices with consecutive numbers, each with these plans, and log the changes."""

    @abstractmethod
    def device(self, device: int) -> DeviceFacts:
        """The facts of one device."""

    @abstractmethod
    def devices(self, *, after: int = 0, limit: int = 1000) -> list[DeviceFacts]:
        """Facts of devices numbered above `after`, in order."""

    @abstractmethod
    def devices_numbered(self, numbers: Sequence[int]) -> list[DeviceFacts]:
        """Facts of these devices, in order of number; numbers that no device has are left out."""

    @abstractmethod
    def update_device(
        self,
        device: int,
        change: Callable[[DeviceFacts], DeviceFacts],
        *,
        what: str,
        now_ms: int,
        before_commit: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
    ) -> tuple[DeviceFacts, int]:
        """Change one device's facts: the only way to do so.

        Reads the facts inside a write transaction, asks `change` for the new ones (it may raise to refuse;
        returning the same facts changes nothing), calls `before_commit(old, new)`, writes the difference,
        appends to the change log and commits.

        Args:
            what: a few words for the history: who and why.

        Returns:
            The new facts (plans carry their ids) and the number of the change, 0 when nothing changed.
        """

    @abstractmethod
    def books(self) -> AbstractContextManager[Books]:
        """The account books of one moment, for reading."""

    @abstractmethod
    def transact(
        self,
        work: Callable[[Books], T],
        *,
        before_change: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
        now_ms: int | None = None,
        max_device: int | None = None,
    ) -> T:
        """Do `work` on the account books in one transaction: durable when this returns, undone when it raises.
        Inside, nothing else of this catalog may be written by the same thread: it would wait for itself.

        Args:
            work: may be called again after a try that the engine took back (a lost connection, a deadlock), so it has
                no effect beside what it does with the books it is given. Everybody else's writes wait meanwhile, so
                it is for milliseconds: no gateway, no password hash.
            before_change: called as `update_device` calls `before_commit`, for every device whose facts change.
                Needed for changes of what devices may do: take `Entitlements.transact`, which gives it.
            now_ms: for the change log; needed with `before_change`, and to add devices.
            max_device: the highest number that an added device may have.

        Returns:
            What `work` returned in the try that was kept.
        """

    @abstractmethod
    def overwrite_erased(self) -> bool:
        """Finish what `Books.erase_account` could not, where somebody was reading: cut the write-ahead log, which may
        hold pages of before. Tried when the books are closed, to be called again now and then; one read when there
        is nothing to do. Returns whether nothing is left."""

    @abstractmethod
    def note_used(self, devices: Collection[int], day: int, *, version: int = 0) -> None:
        """Note that these devices were played back on `day`, while that version of the agreement was current. Commits
        note uploads themselves. Neither goes back."""

    @abstractmethod
    def changes_after(self, number: int) -> tuple[list[int], int]:
        """Devices changed after change `number`, each once, and the number of the newest change."""

    @abstractmethod
    def devices_changing_on(self, day: int) -> list[int]:
        """Devices with a plan that starts on `day` or whose last entitled day was the day before."""

    @abstractmethod
    def delete_range(
        self,
        device: int,
        from_ms: int,
        to_ms: int,
        *,
        reason: str,
        who: str,
        now_ms: int,
        delete_after_ms: int,
    ) -> Unindexed:
        """Un-serve a range of recordings for ever: chunks uploaded again later stay refused as DELETED.

        Recorded, and in force for readers and commits, with the first transaction. The rows of a long range go in
        several, so that commits do not wait; when this is killed, `finish_deletion` does the rest.

        Raises:
            CallerError: the range is empty.
        """

    @abstractmethod
    def unfinished_deletions(self) -> list[int]:
        """The ids of deletions whose rows are not all gone yet."""

    @abstractmethod
    def finish_deletion(self, deletion_id: int, *, now_ms: int, delete_after_ms: int) -> Unindexed:
        """Remove the rows that a deletion has left. Several may do so at once. Returns what this call removed."""

    # --- the sweep ----------------------------------------------------------------------------------------

    @abstractmethod
    def acquire_lease(self, name: str, *, holder: str, ttl_ms: int, now_ms: int) -> int | None:
        """Take or renew a lease. Returns its fencing token, None while another holder's has not run out.

        Args:
            holder: unique to one run of one process: who has the same name is taken for the same.
        """

    @abstractmethod
    def release_lease(self, name: str, *, fence: int) -> None:
        """Give the lease back, if it is still ours. The fence is stale from here on."""

    @abstractmethod
    def holding_lease(self, *, fence: int) -> AbstractContextManager[None]:
        """Inside, nobody can take the sweep's lease: for steps that change something outside the catalog.
        Everyone's writes wait meanwhile, so it is for milliseconds, and nothing of the catalog may be changed.

        Raises:
            LeaseLost: on entry, the lease is somebody else's.
        """

    @abstractmethod
    def open_days(self, through: int) -> list[DayTotals]:
        """Expiry days up to and including `through` which still hold committed segments or a partition."""

    @abstractmethod
    def close_day(self, day: int, *, fence: int, now_ms: int, delete_after_ms: int) -> DayTotals:
        """Un-index a whole day: `closed_through` advances, its committed segments become tombstones, its
        partition of chunk rows is dropped, all in one transaction (invariant 6).

        Raises:
            CallerError: at `now_ms` the day has not come: its chunks are live (`not_expired`).
        """

    @abstractmethod
    def require_files(self) -> None:
        """Make sure that what is committed now will be found again: the files that are open have their names still.
        Cheap, and asked once a second.

        Raises:
            CatalogUnavailable: `catalog_replaced`. Every commit raises it too.
        """

    @property
    @abstractmethod
    def closed_through(self) -> int:
        """The last expiry day already swept, 0 before the first."""

    @abstractmethod
    def advance_closed_through(self, day: int, *, fence: int) -> None:
        """Say that all days up to `day` are closed. Only ever grows."""

    @abstractmethod
    def stale_prepared(self, before_ms: int, *, limit: int) -> list[SegmentRow]:
        """Segments still prepared since before `before_ms`."""

    @abstractmethod
    def reclaim(self, segment_ids: Sequence[int], *, fence: int, now_ms: int) -> int:
        """Turn prepared keys into tombstones to be deleted at once and once more later. Returns how many."""

    @abstractmethod
    def due_tombstones(self, now_ms: int, *, after_id: int, limit: int) -> list[Tombstone]:
        """Tombstones whose time has come, with an id above `after_id`, in order of id."""

    @abstractmethod
    def due_totals(self, now_ms: int) -> Due:
        """What all pages of `due_tombstones` hold together."""

    @abstractmethod
    def deleted(self, segment_ids: Sequence[int], *, fence: int, now_ms: int, again_at_ms: int) -> int:
        """The store confirmed these: forget them, but keep reclaimed ones once more until `again_at_ms`.

        Tombstones that are not due at `now_ms` stay as they are, so that the same confirmation told twice does
        not stand for the second deletion of a reclaimed one. Returns how many were forgotten.
        """

    @abstractmethod
    def delete_failed(self, errors: dict[int, str], *, fence: int, retry_at_ms: int) -> None:
        """Set tombstones aside until `retry_at_ms`, counting the attempt and keeping the store's word. Their age,
        as `totals` tells it, stays (invariant 7)."""

    @abstractmethod
    def erasing_devices(self, *, limit: int = -1) -> list[DeviceFacts]:
        """Devices marked ERASING whose keys are still to be destroyed, and ERASED ones for which
        `unindex_device` has not ended since; at most `limit`, all when negative."""

    @abstractmethod
    def unindex_device(self, device: int, *, fence: int, now_ms: int, delete_after_ms: int) -> Unindexed:
        """Remove the rows of a device's chunks of earlier erase epochs; fully dead segments become tombstones.

        May be several transactions; each is fenced, and after a crash the same call does the rest.
        """

    @abstractmethod
    def half_dead(self, *, after_day: int, now_ms: int, limit: int) -> list[SegmentRow]:
        """Committed segments that expire after `after_day` and of whose chunks at least half are not served, but
        not all: those first whose rewrite frees most bytes for most days. Not those set aside at `now_ms`."""

    @abstractmethod
    def swap_segment(
        self,
        old_id: int,
        new: SegmentCommit,
        ordinals: np.ndarray,
        *,
        fence: int,
        now_ms: int,
        delete_after_ms: int,
    ) -> bool:
        """Let a rewritten segment take the place of the old one, in one transaction: rows that still point at the
        old one point at the new one, which is committed; the old one becomes a tombstone. Chunks that died since
        they were copied are refused in the new one.

        Args:
            new: its object is durable, its key is prepared.
            ordinals: in the old segment, of each chunk of the new one.

        Returns:
            False when there was nothing left to swap: the old segment is no longer committed, its day is closed,
            or the new one's key was reclaimed. The new segment is a tombstone then.

        Raises:
            CatalogCorrupt: the old segment has rows that the new one was not given. Nothing was changed.
        """

    @abstractmethod
    def rewrite_failed(self, segment_id: int, error: str, *, fence: int, retry_at_ms: int) -> None:
        """Leave a segment out of `half_dead` until `retry_at_ms`."""

    @abstractmethod
    def record_sweep(self, report: dict[str, Any], *, now_ms: int) -> None:
        """Keep the report of a pass."""

    @abstractmethod
    def last_sweep(self) -> dict[str, Any] | None:
        """The newest report, or None."""

    # --- check and rebuild --------------------------------------------------------------------------------

    @abstractmethod
    def segments(self, *, after_id: int = 0, limit: int = 1000) -> list[SegmentRow]:
        """Segment rows with an id above `after_id`, in order."""

    @abstractmethod
    def segments_by_key(self, *, after_key: str = "", limit: int = 1000) -> list[SegmentRow]:
        """Segment rows with a key above `after_key`, in order of key: of characters, as stores list."""

    @abstractmethod
    def segment_with_key(self, key: str) -> SegmentRow | None:
        """The segment of this key, in whatever state."""

    @abstractmethod
    def adopt_orphans(
        self, orphans: Sequence[Orphan], *, fence: int, now_ms: int, delete_after_ms: int
    ) -> int:
        """Make tombstones of objects that the catalog does not know, so that sweeps delete them. Keys that it knows
        by now stay as they are. Returns how many are new."""

    @abstractmethod
    def day_rows(self, day: int) -> Iterator[ChunkRow]:
        """Yield the chunk rows of one expiry day in order of (segment_id, ordinal)."""

    @abstractmethod
    def damage(self) -> list[str]:
        """What the engine itself finds wrong with its files, each as a sentence: all that is stored is read from the
        disk anew, and every index compared with its table. At most some 1000. Minutes for a large catalog, beside a
        service.

        Raises:
            CatalogUnavailable: it could not be asked.
        """

    @abstractmethod
    def broken_rows(self) -> Iterator[str]:
        """Yield a sentence per disagreement among the catalog's own rows (invariant 4)."""

    @abstractmethod
    def rebuild_chunks(self, segments: Iterable[tuple[SegmentRow, np.ndarray]]) -> int:
        """Re-create the chunk rows from the indexes of committed segments, less what was refused and what
        belongs to an earlier erase epoch, a deleted range or a closed day. Existing rows stay. What it leaves
        out is noted as refused; a segment left without live chunks goes with its day, nothing is tombstoned.

        The catalog's own row counts, found by key; the `SegmentRow` may be of a while ago. Returns how many
        rows were added.

        Raises:
            SegmentCorrupt: an index has another number of chunks than the catalog says its segment has (what
                earlier calls or batches added stays). `recover.load_index_of` tells beforehand.
        """

    @abstractmethod
    def highest_segment_id(self) -> int:
        """The highest segment id ever prepared, as far as this catalog knows."""

    @abstractmethod
    def newest_change(self) -> int:
        """The number of the newest change in the change log."""

    @abstractmethod
    def totals(self) -> Totals:
        """Sums over everything; may take a while on a large catalog."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""
