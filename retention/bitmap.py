"""The entitlement bitmap: one memory-mapped file that every process of a host asks before each chunk.

A header of 4096 bytes (`retention.header`), then `capacity_rows` rows of 64 bytes (`retention.row`):
device number n is row n, row 0 is unused. The file is sparse, of fixed size, and never renamed or cut
while it is in use: a reader maps it once and sees every later change. It is allocated block by block before it is
written, and holes are never touched (`retention.blocks`). It lives on a little-endian machine, on a local file system
(network ones do not keep the mappings of two hosts coherent), without copy-on-write (`chattr +C` on btrfs), which could
find the disk full at a store into the mapping.

The catalog is the truth: the bitmap is rebuilt from it after a reboot (`boot_id` is not this boot's), so
nothing here is ever flushed to disk but the header at creation.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from retention.bitmap_file import LOCK_WAIT_S, create_file, lock_of, open_file, rows_lock_of, unavailable
from retention.blocks import MAP_BYTES, MIN_BLOCK_BYTES, Blocks, written_ranges
from retention.filelock import holding
from retention.header import (
    ASKED,
    BLOCKS,
    BOOT_ID,
    CLOSED_THROUGH,
    HEADER_BYTES,
    HOME_DAY,
    LAST_CHANGE,
    LIMITS,
    MAX_ROWS,
    SEGMENT_HIGH_WATER,
    UNFINISHED,
    file_bytes,
)
from retention.row import (
    EPOCH_BITS,
    ERASED,
    HEAD,
    MAX_EPOCH,
    PRESENT,
    RING_DAYS,
    RING_OFFSET,
    ROW,
    ROW_BYTES,
    SEQ_BYTES,
    SUSPENDED,
    TERMINATED,
    VIEWER_GENERATION_OFFSET,
    Row,
    ended,
    pack,
    unpack,
    window_ends_before,
)
from storage.errors import CallerError, WorldError
from storage.open_files import identity, what_to_do
from storage.rows.packages import MAX_LIMIT_CLASS

__all__ = [
    "ALL_DEVICES",
    "BUSY",
    "ERASED",
    "PRESENT",
    "ROW",
    "SUSPENDED",
    "TERMINATED",
    "EntitlementBitmap",
    "Row",
]

BUSY = 128
"""The only flag of a probe that met a row being written and gave up: denied, but worth another try."""
ALL_DEVICES = (1 << 32) - 1
"""Value of `unfinished` when more than one device is concerned. Never a device: row 2^32-1 is refused."""

READ_TRIES = 64
"""A row is odd for 0.2 µs and a try takes 0.1: ample for a writer that runs, and little is lost (5 µs) on a
row whose writer was killed."""
WRITE_ROWS = 256
"""Rows that are odd together in `write_rows`: few enough for a reader to try again in vain only seldom."""
SCAN_ROWS = 16384
"""Rows per step of a scan, 1 MiB: they stay in the cache over all columns of the step."""

Probe = tuple[int, int, int, int, bool, bool, int]
_NO_DEVICE: Probe = (0, 0, 0, 0, False, False, 0)
_GAVE_UP: Probe = (BUSY, 0, 0, 0, False, False, 0)


class EntitlementBitmap:
    """One open bitmap. Made by `create` or `open`; a context manager that closes it.

    Reads may come from any thread or process at any time. Writes happen inside `locked()`, by who changes the catalog;
    or inside `writing()` alone, by who follows its change log.
    """

    @classmethod
    def create(cls, path: Path, capacity_rows: int) -> None:
        """Make an empty bitmap for the devices 1 to `capacity_rows - 1`: sparse, mode 0600, durable. Its first block
        has its place on the disk.

        Raises:
            CallerError: `bad_capacity` outside 2..2^32, or `bitmap_exists`.
            WorldError: `data_disk_full` or `bitmap_unavailable`, the file system refused; nothing is left behind.
        """
        create_file(path, capacity_rows)

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> EntitlementBitmap:
        """Map the bitmap at `path`.

        Raises:
            NotFound: `bitmap_missing`.
            BitmapCorrupt: cut, flipped, or of another layout; names the field.
            WorldError: `bitmap_unavailable`, the file system refused.
        """
        fd, capacity_rows, has_blocks = open_file(path, writable=writable)
        try:
            return cls(path, fd, capacity_rows, writable, has_blocks)
        except OSError as error:
            os.close(fd)
            raise unavailable(path, error) from error

    def __init__(self, path: Path, fd: int, capacity_rows: int, writable: bool, has_blocks: bool) -> None:
        """Private: see `create` and `open`. Takes over `fd`, whose header has been checked."""
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(fd, file_bytes(capacity_rows), access=access)
        self._words = memoryview(self._map)[:HEADER_BYTES].cast("Q")
        self._seqs = memoryview(self._map).cast("H")
        # An older layout's file that nobody opened for writing yet has no map: it is read as it always was.
        self._block_map = memoryview(self._map)[BLOCKS] if has_blocks else memoryview(b"\xff" * MAP_BYTES)
        self._blocks = Blocks(fd, file_bytes(capacity_rows), self._block_map)
        self._rows: NDArray[np.void] = np.frombuffer(self._map, ROW, capacity_rows, HEADER_BYTES)
        self._fd = fd
        self._path = path
        self._writable = writable
        self._holder: int | None = None
        self._writer: int | None = None
        self._unsettled = 0
        self.capacity_rows = capacity_rows

    def close(self) -> None:
        """Let go of the file. Nothing may be asked afterwards. Closing twice is harmless."""
        if not self._map.closed:
            del self._rows
            self._words.release()
            self._seqs.release()
            self._block_map.release()
            self._map.close()
            os.close(self._fd)

    def __enter__(self) -> EntitlementBitmap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def require_file(self) -> None:
        """Make sure that the file that is mapped still has its name: what others write is not seen in another one.

        Raises:
            WorldError: `bitmap_replaced`.
        """
        mapped = os.fstat(self._fd)
        if identity(self._path) != (mapped.st_dev, mapped.st_ino):
            raise WorldError(what_to_do(self._path), subject=str(self._path), code="bitmap_replaced")

    # ---- the hot path -------------------------------------------------------------------------------

    def probe(self, device: int, capture_day: int, today: int) -> Probe:
        """Answer all that admission and playback ask of a device. No lock, no I/O once the page is there.

        Args:
            device: any integer.
            capture_day, today: day numbers, any integers.

        Returns:
            (flags, class_days, token_generation, erase_epoch, today_ok, capture_ok, limit_class). The two `ok`
            are the bits of the days; flags do not change them, so a caller can name the reason it refuses. All
            zero for a device that is 0, beyond capacity or not PRESENT; flags BUSY and else zero when the
            row was being written for the whole of `READ_TRIES`.
        """
        if not self._is_there(device):
            return _NO_DEVICE
        raw = self._raw(device)
        if raw is None:
            return _GAVE_UP
        flags, class_days, first_day, token_generation, packed = HEAD.unpack_from(raw)
        if not flags & PRESENT:
            return _NO_DEVICE
        # 384 is a multiple of 8, so a day's bit within its byte is `day & 7` without another modulus.
        today_ok = capture_ok = (
            0 <= today - first_day < RING_DAYS
            and raw[RING_OFFSET + (today % RING_DAYS >> 3)] >> (today & 7) & 1 == 1
        )
        if capture_day != today:
            capture_ok = (
                0 <= capture_day - first_day < RING_DAYS
                and raw[RING_OFFSET + (capture_day % RING_DAYS >> 3)] >> (capture_day & 7) & 1 == 1
            )
        epoch, limit_class = packed & MAX_EPOCH, packed >> EPOCH_BITS
        return flags, class_days, token_generation, epoch, today_ok, capture_ok, limit_class

    def viewer_generation(self, device: int) -> int:
        """What viewer tokens of the device have to carry; 0 for a device that has no row.

        Two bytes, read at once: they need no sequence lock, for they change alone.
        """
        if not self._is_there(device):
            return 0
        return self._seqs[(HEADER_BYTES + device * ROW_BYTES + VIEWER_GENERATION_OFFSET) // SEQ_BYTES]

    def limits_word(self, limit_class: int) -> int:
        """The limits of a class, 1..127, as `UploadLimits.word`; 0: none, or not known on this host yet."""
        return self._words[LIMITS + limit_class]

    def _is_there(self, device: int) -> bool:
        """Whether the device can have a row: a number within capacity, in a block that was ever written to."""
        return 0 < device < self.capacity_rows and self._blocks.has(HEADER_BYTES + device * ROW_BYTES)

    def _raw(self, device: int) -> bytes | None:
        """Copy a row that no writer touched meanwhile; None when that did not happen in `READ_TRIES`.

        A sequence lock: the row counts when seq was even before the copy and is the same after it. That
        needs the three reads to happen in this order, and a writer's three stores to be seen in theirs.
        x86-64 promises both (total store order: loads stay in order, stores stay in order, and so do the
        stores of one string copy against the next), and the compiler cannot move reads across the
        interpreter's calls. arm64 promises neither, and Python has no fence to ask for. There some hundred
        instructions between the reads make a mixed row very unlikely, not impossible; what limits the harm
        is that a chunk's commit reads the erase epoch again in the catalog, and playback asks again at every
        chunk.

        seq comes round after 32768 writes of one row, and a reader that stands still in the middle of its
        copy for exactly that many would be fooled: half a second of nothing else. One byte would come round
        after 128 writes, which a reader can sleep through (a test caught it).
        """
        seqs = self._seqs
        start = HEADER_BYTES + device * ROW_BYTES
        at = start // SEQ_BYTES
        for _ in range(READ_TRIES):
            seq = seqs[at]
            raw = self._map[start : start + ROW_BYTES]
            if seqs[at] == seq and not seq & 1:
                return raw
        return None

    def read(self, device: int) -> Row | None:
        """Return the row of a device, None when there is none.

        Raises:
            WorldError: `row_unfinished`: its writer is at it still, or was killed in the middle.
        """
        if not self._is_there(device):
            return None
        raw = self._raw(device)
        if raw is None:
            detail = "the row is half written; the next start or the next change of this device repairs it"
            raise WorldError(detail, subject=f"device {device}", code="row_unfinished")
        row = unpack(raw)
        return row if row.flags & PRESENT else None

    # ---- the header ---------------------------------------------------------------------------------

    @property
    def last_change(self) -> int:
        """Number of the last change applied from the catalog's change log; 0 in a new bitmap."""
        return self._words[LAST_CHANGE]

    @property
    def closed_through(self) -> int:
        """Last expiry day already swept, a day number; 0 in a new bitmap."""
        return self._words[CLOSED_THROUGH]

    @property
    def segment_high_water(self) -> int:
        """Highest segment id ever prepared; 0 in a new bitmap."""
        return self._words[SEGMENT_HIGH_WATER]

    @property
    def boot_id(self) -> bytes:
        """16 bytes: the boot in which the rows were last rebuilt; zeros in a new bitmap."""
        return self._map[BOOT_ID]

    @property
    def unfinished(self) -> int:
        """The device whose rows may be ahead of the catalog, ALL_DEVICES when several are, 0 when none.

        A revocation is written here first and committed after. Whoever dies in between, or whose commit
        fails, leaves a row that no change in the log will ever correct: the device would stay denied. So
        `write` marks the device, a clean end of `locked()` takes the mark away, and the next holder of the
        lock who finds one writes those rows again from the catalog and calls `settle`.
        """
        return self._words[UNFINISHED]

    @property
    def asked_ns(self) -> int:
        """CLOCK_BOOTTIME, in ns, before the feed last read the change log of which this bitmap has all; 0: never."""
        return self._words[ASKED]

    @property
    def least_day(self) -> int:
        """The day number before which nothing is entitled, whatever this host's clock says: the later of the last
        expiry day that was swept and the day by home's clock."""
        return max(self._words[CLOSED_THROUGH], self._words[HOME_DAY])

    def is_stale(self, boottime_ns: int, max_stale_ns: int) -> bool:
        """Whether home may know what the rows do not: the feed has not asked for too long. One word is read.

        Args:
            boottime_ns: CLOCK_BOOTTIME now. It runs on while the machine sleeps, and nobody sets it.
            max_stale_ns: how long ago the feed may have asked; 0: home is on this host, whose rows are never stale.
        """
        return max_stale_ns != 0 and not 0 <= boottime_ns - self._words[ASKED] <= max_stale_ns

    # ---- writers ------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Hold the host's one writer lock: `flock` on the sibling file `<name>.lock`.

        Blocks the thread. Not re-entrant: a second `locked()` inside the first waits in vain. The kernel
        frees the lock of a holder that dies.

        Raises:
            WorldError: `bitmap_busy`, another writer holds it longer than that.
            CallerError: `bitmap_read_only`, the bitmap was not opened for writing.
        """
        self._require_writable()
        with holding(lock_of(self._path), wait_s, name="bitmap"):
            self._holder = threading.get_ident()
            self._unsettled = self.unfinished
            try:
                yield
                self._words[UNFINISHED] = self._unsettled
            finally:
                self._holder = None

    @contextmanager
    def writing(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Hold the lock of those who write rows at this moment: `flock` on `<name>.rows.lock`. For milliseconds, and
        never while a catalog is asked: who holds `locked()` may wait for a catalog, whoever holds this does not.

        Every writer has it, those inside `locked()` for each write by itself. Inside this one a thread may write. A
        call inside another one of the same thread is harmless.

        Raises:
            WorldError: `bitmap_busy`, as `locked`.
            CallerError: `bitmap_read_only`.
        """
        if self._writer == threading.get_ident():
            yield
            return
        self._require_writable()
        with holding(rows_lock_of(self._path), wait_s, name="bitmap"):
            self._writer = threading.get_ident()
            try:
                yield
            finally:
                self._writer = None

    def _require_writable(self) -> None:
        if not self._writable:
            detail = "the bitmap is open for reading only"
            raise CallerError(detail, subject=str(self._path), code="bitmap_read_only")

    def _check_locked(self) -> None:
        if threading.get_ident() not in (self._holder, self._writer):
            detail = "the bitmap is written only by the thread inside its `locked()` or `writing()`"
            raise CallerError(detail, subject=str(self._path), code="bitmap_not_locked")

    def write(self, device: int, row: Row) -> None:
        """Replace the row of a device. All processes see it when this returns.

        Raises:
            CallerError: `bitmap_not_locked`; `device_out_of_range`; `bad_row`.
            WorldError: `data_disk_full` or `bitmap_unavailable`. The row is unchanged.
        """
        body = pack(row)[SEQ_BYTES:]
        start = HEADER_BYTES + device * ROW_BYTES
        self._check_locked()
        with self.writing():
            self._begin_writing(device, device, [start])
            at = start // SEQ_BYTES
            seq = self._seqs[at]
            # These go through the mapping: no system call lets go of the interpreter's lock while seq is odd,
            # so the other threads of this process find the row busy for some 0.2 µs, not for milliseconds.
            self._seqs[at] = seq | 1
            self._map[start + SEQ_BYTES : start + ROW_BYTES] = body
            self._seqs[at] = (seq | 1) + 1 & 0xFFFF

    def write_rows(self, devices: NDArray[np.integer], rows: NDArray[np.void]) -> None:
        """Replace the rows of many devices, as `write` does that of one. Readers find those of `WRITE_ROWS` devices
        busy at a time, for some 20 µs.

        Args:
            devices: (n,), no number twice.
            rows: (n,) of ROW, as `retention.row.pack` would make them. Their seq is ignored. Not modified.

        Raises:
            CallerError, WorldError: as `write`. What was written before stays.
        """
        self._check_locked()
        if len(devices):
            with self.writing():
                self._write_rows(devices, rows)

    def _write_rows(self, devices: NDArray[np.integer], rows: NDArray[np.void]) -> None:
        blocks = np.unique((HEADER_BYTES + devices.astype(np.int64) * ROW_BYTES) // MIN_BLOCK_BYTES)
        self._begin_writing(int(devices.min()), int(devices.max()), (blocks * MIN_BLOCK_BYTES).tolist())
        for first in range(0, len(devices), WRITE_ROWS):
            numbers, new = devices[first : first + WRITE_ROWS], rows[first : first + WRITE_ROWS].copy()
            seqs = self._rows["seq"]
            odd = seqs[numbers] | 1
            seqs[numbers] = odd
            new["seq"] = odd
            self._rows[numbers] = new
            seqs[numbers] = odd + np.uint16(1)  # it comes round

    def _begin_writing(self, lowest: int, highest: int, offsets: Iterable[int]) -> None:
        """Before rows are touched: give the blocks of these offsets their place, and mark the devices unfinished. Who
        follows the log marks nothing: what a kill leaves half written is in the log after `last_change`.
        Raises as `write`; then nothing was marked."""
        # The last 32-bit number means ALL_DEVICES.
        if not 0 < lowest <= highest < min(self.capacity_rows, ALL_DEVICES):
            detail = f"the bitmap has room for the devices 1 to {self.capacity_rows - 1}"
            wrong = lowest if lowest <= 0 else highest
            raise CallerError(detail, subject=f"device {wrong}", code="device_out_of_range")
        try:
            for offset in offsets:
                self._blocks.allocate(offset)
        except OSError as error:
            raise unavailable(self._path, error) from error
        if self._holder != threading.get_ident():
            return
        mark = lowest if lowest == highest else ALL_DEVICES
        self._words[UNFINISHED] = mark if self.unfinished in (0, mark) else ALL_DEVICES

    def set_limits(self, words: Mapping[int, int]) -> None:
        """Note the limits of all limit classes, before rows name them.

        Args:
            words: by class, 1..127, as `UploadLimits.word`.
        """
        self._check_locked()
        for limit_class in range(1, MAX_LIMIT_CLASS + 1):
            self._words[LIMITS + limit_class] = words.get(limit_class, 0)

    def settle(self) -> None:
        """Take away the mark that this holder found in `unfinished`, the rows being written anew."""
        self._check_locked()
        self._words[UNFINISHED] = self._unsettled = 0

    def set_last_change(self, number: int) -> None:
        """Note the last change applied, 0..2^64-1. It may go back: a restored catalog counts anew."""
        self._check_locked()
        self._words[LAST_CHANGE] = number

    def stamp(self, asked_ns: int) -> None:
        """Note when the feed asked, one store: see `asked_ns`. 0: from here on the rows are stale. The feed's alone."""
        self._require_writable()
        self._words[ASKED] = asked_ns

    def set_home_day(self, day: int) -> None:
        """Note the day by home's clock, one store. It may go back, as that clock may. The feed's alone."""
        self._require_writable()
        self._words[HOME_DAY] = day

    def lower_closed_through(self, day: int) -> None:
        """Take back that days after `day` are closed; see `retention.reopening`. Not for a running service."""
        self._check_locked()
        self._words[CLOSED_THROUGH] = min(day, self.closed_through)

    def raise_closed_through(self, day: int) -> None:
        """Note that all expiry days up to `day` are swept. A lower day than is noted changes nothing."""
        self._check_locked()
        with self.writing():
            self._words[CLOSED_THROUGH] = max(day, self.closed_through)

    def raise_segment_high_water(self, segment_id: int) -> None:
        """Note that ids up to `segment_id` were prepared. A lower id than is noted changes nothing."""
        self._check_locked()
        self._words[SEGMENT_HIGH_WATER] = max(segment_id, self.segment_high_water)

    def set_boot_id(self, boot_id: bytes) -> None:
        """Note the boot, 16 bytes, in which all rows were rebuilt. Last step of a rebuild."""
        self._check_locked()
        if len(boot_id) != 16:
            raise CallerError(f"a boot id has 16 bytes, not {len(boot_id)}", code="bad_boot_id")
        self._map[BOOT_ID] = boot_id

    # ---- scans --------------------------------------------------------------------------------------
    # They take no lock and may see a row half written. They nominate; the catalog decides.

    def ended_devices(self, today: int, grace_days: int) -> NDArray[np.uint32]:
        """Return the devices, ascending, that are TERMINATED, or PRESENT with no entitled day from
        `today - grace_days` on. Not ERASED ones; suspension makes no difference.

        Among them are devices that never had a plan, whose next plan starts beyond the row's reach, or whose
        retention is shorter than the grace, so that the row begins after the days of grace do.

        Raises:
            CallerError: `bad_days`, a day number or a grace that is negative.
        """
        if not 0 <= grace_days <= today < MAX_ROWS:
            raise CallerError(f"no such days: {today}, grace {grace_days}", code="bad_days")
        return self._scan(lambda rows: ended(rows, today, grace_days))

    def devices_needing_roll(self, today: int, horizon_days: int) -> NDArray[np.uint32]:
        """Return the PRESENT devices, ascending, whose window `[first_day, first_day + 384)` ends less
        than `horizon_days` after `today`."""
        return self._scan(lambda rows: window_ends_before(rows, today + horizon_days))

    def _scan(self, pick: Callable[[NDArray[np.void]], NDArray[np.intp]]) -> NDArray[np.uint32]:
        """Apply `pick` to blocks of rows; it returns positions within the block."""
        found = [
            (pick(self._rows[start : min(start + SCAN_ROWS, stop)]) + start).astype(np.uint32)
            for first, stop in self._written_rows()
            for start in range(first, stop, SCAN_ROWS)
        ]
        return np.concatenate(found) if found else np.empty(0, np.uint32)

    def _written_rows(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of rows that cover all but the file's holes: a bitmap made for ten million devices
        that has three of them is not read, nor its holes brought into the page cache."""
        for start, stop in self._blocks.spans():
            for data, hole in written_ranges(self._fd, max(start, HEADER_BYTES), stop):
                first = max(1, (data - HEADER_BYTES) // ROW_BYTES)
                yield first, (hole - HEADER_BYTES + ROW_BYTES - 1) // ROW_BYTES
