"""The entitlement bitmap against a plain set of days, and against files that are not one."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention.bitmap import ALL_DEVICES, BUSY, ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap, Row
from retention.blocks import MAP_BYTES, block_shift
from retention.header import HEADER_BYTES, MAX_ROWS
from retention.row import MAX_EPOCH, RING_DAYS, ROW, ROW_BYTES, pack, unpack
from storage.errors import BitmapCorrupt, CallerError, NotFound, WorldError

ROWS = 64
U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
EPOCHS = st.integers(0, MAX_EPOCH)
FIRST_DAYS = st.integers(0, 40_000)
FLAGS = st.integers(0, 15)
LIMIT_CLASSES = st.integers(0, 127)
NO_DEVICE = (0, 0, 0, 0, False, False, 0)


SPANS = st.tuples(st.integers(0, RING_DAYS), st.integers(0, RING_DAYS)).map(
    lambda ends: (1 << max(ends)) - (1 << min(ends))
)
DAYS = st.integers(0, (1 << RING_DAYS) - 1) | SPANS | st.tuples(SPANS, SPANS).map(lambda two: two[0] | two[1])


def rows(flags: st.SearchStrategy[int] = FLAGS) -> st.SearchStrategy[Row]:
    return st.builds(Row, flags, st.integers(0, 255), FIRST_DAYS, U32, EPOCHS, DAYS, U16, LIMIT_CLASSES)


def days_of(row: Row) -> set[int]:
    return {row.first_day + i for i in range(RING_DAYS) if row.days >> i & 1}


def whole(first_day: int, flags: int = PRESENT) -> Row:
    return Row(flags, 30, first_day, 1, 0, (1 << RING_DAYS) - 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    EntitlementBitmap.create(tmp_path / "bitmap", ROWS)
    return tmp_path / "bitmap"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EntitlementBitmap]:
    """One bitmap for all examples of a property; each example writes what it reads."""
    path = tmp_path_factory.mktemp("bitmap") / "bitmap"
    EntitlementBitmap.create(path, ROWS)
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        yield bitmap


def put(bitmap: EntitlementBitmap, *numbered: tuple[int, Row]) -> None:
    with bitmap.locked():
        for device, row in numbered:
            bitmap.write(device, row)


def put_and_fail(bitmap: EntitlementBitmap, device: int, row: Row) -> None:
    with bitmap.locked():
        bitmap.write(device, row)
        raise RuntimeError("the catalog did not commit")


# ---- rows -------------------------------------------------------------------------------------------


@given(rows())
def test_pack_and_unpack_are_inverse(row: Row) -> None:
    raw = pack(row)
    assert len(raw) == ROW_BYTES
    assert unpack(raw) == row
    assert pack(unpack(raw)) == raw


@given(rows())
def test_a_row_is_laid_out_as_the_dtype_says(row: Row) -> None:
    seen = np.frombuffer(pack(row), ROW)[0]
    assert ROW.itemsize == ROW_BYTES
    fields = ("flags", "class_days", "first_day", "viewer_generation", "token_generation")
    assert seen["seq"] == 0
    assert int(seen["epoch_and_limits"]) == row.limit_class * 2**24 + row.erase_epoch
    assert {field: int(seen[field]) for field in fields} == {field: getattr(row, field) for field in fields}
    bits = np.unpackbits(seen["ring"], bitorder="little")
    assert {int(i) for i in np.flatnonzero(bits)} == {day % RING_DAYS for day in days_of(row)}


@pytest.mark.parametrize(
    "row",
    [
        Row(16, 1, 0, 0, 0, 0),
        Row(-1, 1, 0, 0, 0, 0),
        Row(1, 256, 0, 0, 0, 0),
        Row(1, 1, -1, 0, 0, 0),
        Row(1, 1, 2**16, 0, 0, 0),
        Row(1, 1, 0, 0, 0, 0, 2**16),
        Row(1, 1, 0, 0, 0, 0, -1),
        Row(1, 1, 0, 2**32, 0, 0),
        Row(1, 1, 0, 0, 2**24, 0),
        Row(1, 1, 0, 0, -1, 0),
        Row(1, 1, 0, 0, 0, 0, 0, 128),
        Row(1, 1, 0, 0, 0, 0, 0, -1),
        Row(1, 1, 0, 0, 0, 1 << RING_DAYS),
        Row(1, 1, 0, 0, 0, -1),
    ],
)
def test_a_row_out_of_bounds_is_refused_and_changes_nothing(path: Path, row: Row) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, (3, whole(0)))
        with pytest.raises(CallerError) as caught, bitmap.locked():
            bitmap.write(3, row)
        assert caught.value.code == "bad_row"
        assert bitmap.read(3) == whole(0)


# ---- probe against a set of days --------------------------------------------------------------------


@given(row=rows(st.integers(0, 7).map(lambda f: f * 2 | PRESENT)), data=st.data())
def test_the_bitmap_equals_a_set_of_days(shared: EntitlementBitmap, row: Row, data: st.DataObject) -> None:
    """Invariants 2 and 12: exactly the entitled days pass, whatever the window's place in the ring."""
    put(shared, (7, row))
    days = days_of(row)
    near = st.integers(row.first_day - 800, row.first_day + 2 * RING_DAYS + 800)
    capture_day, today = data.draw(near), data.draw(near)
    head = (row.flags, row.class_days, row.token_generation, row.erase_epoch)
    assert shared.probe(7, capture_day, today) == (*head, today in days, capture_day in days, row.limit_class)
    assert shared.probe(7, today, today) == (*head, today in days, today in days, row.limit_class)
    assert row.allows(today) == (today in days)
    assert shared.read(7) == row


@pytest.mark.parametrize("first_day", [0, 1, 7, 8, 383, 384, 385, 20_454, 2**16 - 1])
def test_days_outside_the_window_are_denied_though_their_bit_is_set(path: Path, first_day: int) -> None:
    """Invariant 2."""
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, (1, whole(first_day)))
        edges = [first_day - 1, first_day, first_day + RING_DAYS - 1, first_day + RING_DAYS]
        assert [bitmap.probe(1, day, day)[4:6] for day in edges] == [
            (False, False),
            (True, True),
            (True, True),
            (False, False),
        ]


def test_a_window_that_moves_on_keeps_the_days_it_keeps(shared: EntitlementBitmap) -> None:
    row = Row(PRESENT, 30, 20_000, 1, 0, 1 << 300)
    moved = Row(PRESENT, 30, 20_250, 1, 0, 1 << 50)
    ring = slice(16, None)
    assert pack(row)[ring] == pack(moved)[ring]


@pytest.mark.parametrize("device", [-1, 0, ROWS, ROWS + 1, 2**32, 2**70])
def test_no_such_device(path: Path, device: int) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        assert bitmap.probe(device, 5, 5) == NO_DEVICE
        assert bitmap.read(device) is None
        with pytest.raises(CallerError) as caught, bitmap.locked():
            bitmap.write(device, whole(0))
        assert caught.value.code == "device_out_of_range"


def test_a_device_that_is_not_present_shows_nothing_of_its_row(path: Path) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, (1, whole(0, SUSPENDED | ERASED)))
        assert bitmap.probe(1, 5, 5) == NO_DEVICE
        assert bitmap.read(1) is None


# ---- scans ------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    table=st.lists(rows(), min_size=1, max_size=ROWS - 1),
    today=st.integers(0, 41_000),
    grace_days=st.integers(0, 500),
    data=st.data(),
)
def test_scans_equal_a_plain_loop(
    shared: EntitlementBitmap, table: list[Row], today: int, grace_days: int, data: st.DataObject
) -> None:
    anchor = data.draw(st.sampled_from(table)).first_day
    today = data.draw(st.sampled_from([today, anchor, anchor + 383, anchor + 384, anchor + grace_days]))
    grace_days = min(grace_days, today)
    put(shared, *enumerate(table, 1), *((d, Row(0, 0, 0, 0, 0, 0)) for d in range(len(table) + 1, ROWS)))

    def devices(keep: list[bool]) -> list[int]:
        return [device for device, kept in enumerate(keep, 1) if kept]

    ended = [
        row.flags & (TERMINATED | ERASED) == TERMINATED
        or (
            row.flags & (PRESENT | TERMINATED | ERASED) == PRESENT
            and all(day < today - grace_days for day in days_of(row))
        )
        for row in table
    ]
    found = shared.ended_devices(today, grace_days)
    assert found.dtype == np.uint32
    assert found.tolist() == devices(ended)
    rolling = [bool(row.flags & PRESENT) and row.first_day + RING_DAYS - today < grace_days for row in table]
    assert shared.devices_needing_roll(today, grace_days).tolist() == devices(rolling)


def test_suspension_is_no_lapse(path: Path) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, (1, whole(100, PRESENT | SUSPENDED)), (2, Row(PRESENT | SUSPENDED, 7, 100, 1, 0, 1)))
        assert bitmap.ended_devices(110, 3).tolist() == [2]


@pytest.mark.parametrize(("today", "grace_days"), [(5, -1), (5, 6), (-1, 0), (2**32, 0)])
def test_a_scan_of_no_such_days_is_refused(path: Path, today: int, grace_days: int) -> None:
    with EntitlementBitmap.open(path) as bitmap, pytest.raises(CallerError) as caught:
        bitmap.ended_devices(today, grace_days)
    assert caught.value.code == "bad_days"


def test_a_big_bitmap_is_sparse_and_its_scans_find_rows_between_the_holes(tmp_path: Path) -> None:
    path = tmp_path / "bitmap"
    EntitlementBitmap.create(path, 20_000_000)
    here = [1, 2, 63, 64, 5_000_000, 19_999_998, 19_999_999]
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        assert bitmap.ended_devices(1000, 3).tolist() == []
        put(bitmap, *((device, Row(PRESENT, 7, 0, 1, 0, 0)) for device in here))
        assert bitmap.ended_devices(1000, 3).tolist() == here
    # Three blocks of 2 MiB: each is allocated as a whole before the first row in it is written.
    assert os.stat(path).st_blocks * 512 < 8 << 20


# ---- the header and the lock ------------------------------------------------------------------------


def test_a_new_bitmap_is_private_empty_and_of_the_promised_size(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == HEADER_BYTES + ROWS * ROW_BYTES
    with EntitlementBitmap.open(path) as bitmap:
        assert bitmap.capacity_rows == ROWS
        header = (bitmap.last_change, bitmap.closed_through, bitmap.segment_high_water, bitmap.unfinished)
        assert header == (0, 0, 0, 0)
        assert bitmap.boot_id == bytes(16)


def test_what_a_writer_notes_is_seen_by_readers_that_are_open_and_survives(path: Path) -> None:
    with EntitlementBitmap.open(path) as reader:
        with EntitlementBitmap.open(path, writable=True) as writer, writer.locked():
            writer.set_last_change(2**64 - 1)
            writer.raise_closed_through(20_500)
            writer.raise_closed_through(20_499)
            writer.raise_segment_high_water(2**63)
            writer.raise_segment_high_water(1)
            writer.set_boot_id(b"0123456789abcdef")
            writer.write(1, whole(9))
        assert reader.last_change == 2**64 - 1
        assert reader.closed_through == 20_500
        assert reader.segment_high_water == 2**63
        assert reader.boot_id == b"0123456789abcdef"
        assert reader.read(1) == whole(9)
    with EntitlementBitmap.open(path, writable=True) as again, again.locked():
        again.set_last_change(4)
        assert (again.last_change, again.closed_through) == (4, 20_500)
        with pytest.raises(CallerError):
            again.set_boot_id(b"short")


def test_the_stamp_is_one_word_and_a_file_of_before_has_none(path: Path) -> None:
    with EntitlementBitmap.open(path) as reader, EntitlementBitmap.open(path, writable=True) as feed:
        assert reader.asked_ns == 0, "the place was zero in every release before"
        assert reader.is_stale(10**15, 10**9)
        feed.stamp(2**64 - 1)
        assert reader.asked_ns == 2**64 - 1
        assert path.read_bytes()[112:120] == b"\xff" * 8
        feed.stamp(10**15)
        assert not reader.is_stale(10**15 + 10**9, 10**9)
        assert reader.is_stale(10**15 + 10**9 + 1, 10**9)
        assert reader.is_stale(10**15 - 1, 10**9), "of another boot"
        assert not reader.is_stale(0, 0), "home is on this host"
        with pytest.raises(CallerError) as caught:
            reader.stamp(1)
        assert caught.value.code == "bitmap_read_only"


def test_rows_are_written_under_a_lock_of_their_own_beside_who_changes_rights(path: Path) -> None:
    with (
        EntitlementBitmap.open(path, writable=True) as one,
        EntitlementBitmap.open(path, writable=True) as feed,
        one.locked(),
    ):
        one.write(1, whole(1))
        with feed.writing(), feed.writing():
            feed.write(2, whole(2))
            with pytest.raises(WorldError) as caught, one.writing(wait_s=0):
                pass
        assert caught.value.code == "bitmap_busy"
        assert one.unfinished == 1, "the mark of who changes rights stays his"
        assert (one.read(1), one.read(2)) == (whole(1), whole(2))


def test_writing_needs_the_lock(path: Path) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        writes = [
            lambda: bitmap.write(1, whole(0)),
            lambda: bitmap.set_last_change(1),
            lambda: bitmap.raise_closed_through(1),
            lambda: bitmap.raise_segment_high_water(1),
            lambda: bitmap.set_boot_id(bytes(16)),
            bitmap.settle,
        ]
        for write in writes:
            with pytest.raises(CallerError) as caught:
                write()
            assert caught.value.code == "bitmap_not_locked"
    with EntitlementBitmap.open(path) as bitmap, pytest.raises(CallerError) as caught, bitmap.locked():
        pass
    assert caught.value.code == "bitmap_read_only"


def test_the_lock_is_one_for_all_who_have_the_file_open(path: Path) -> None:
    with (
        EntitlementBitmap.open(path, writable=True) as one,
        EntitlementBitmap.open(path, writable=True) as other,
    ):
        with one.locked():
            for bitmap in (one, other):
                with pytest.raises(WorldError) as caught, bitmap.locked(wait_s=0.01):
                    pass
                assert caught.value.code == "bitmap_busy"
            one.write(1, whole(0))
        with other.locked(wait_s=0):
            other.write(1, whole(1))
        assert one.read(1) == whole(1)


def test_a_change_that_failed_names_its_device_until_it_is_settled(path: Path) -> None:
    """Invariant 1: a revocation whose commit failed must not deny the device for ever."""
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        with pytest.raises(RuntimeError):
            put_and_fail(bitmap, 5, whole(0, PRESENT | TERMINATED))
        assert bitmap.unfinished == 5
        put(bitmap, (6, whole(0)))
        assert bitmap.unfinished == 5  # 6 is finished, 5 still is not
        with pytest.raises(RuntimeError):
            put_and_fail(bitmap, 6, whole(0))
        assert bitmap.unfinished == ALL_DEVICES
        with bitmap.locked():
            bitmap.write(5, whole(0))
            bitmap.settle()
        assert bitmap.unfinished == 0


def test_a_full_disk_is_said_before_a_row_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, far = tmp_path / "bitmap", 1_000_000
    EntitlementBitmap.create(path, 2_000_000)

    def full(fd: int, start: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with EntitlementBitmap.open(path, writable=True) as bitmap:
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(WorldError) as caught, bitmap.locked():
                bitmap.write(far, whole(5))
            assert caught.value.code == "data_disk_full"
            assert str(path) in str(caught.value)
            assert (bitmap.read(far), bitmap.unfinished) == (None, 0)
            put(bitmap, (1, whole(0)))  # a block that has its place needs no more
        put(bitmap, (far, whole(5)))
        assert (bitmap.read(1), bitmap.read(far)) == (whole(0), whole(5))


def test_a_disk_that_promises_no_space_is_written_to_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What macOS and some file systems lack. The rows of an older layout's file stay."""
    path = tmp_path / "bitmap"
    EntitlementBitmap.create(path, 100_000)
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, (1, whole(0)), (60_000, whole(1)))
    as_layout_1(path)
    monkeypatch.setattr(os, "posix_fallocate", refuse_to_allocate)
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        assert [bitmap.read(device) for device in (1, 60_000)] == [whole(0), whole(1)]
        assert bitmap.ended_devices(2000, 3).tolist() == [1, 60_000]


def refuse_to_allocate(fd: int, start: int, length: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def as_layout_1(path: Path) -> None:
    """Make a file what an earlier release left: no map of blocks."""
    with path.open("r+b") as file:
        constants = bytearray(file.read(60))
        constants[8:12] = (1).to_bytes(4, "little")
        file.seek(0)
        file.write(constants + zlib.crc32(constants).to_bytes(4, "little"))
        file.seek(2048)
        file.write(bytes(2048))


def test_an_older_layout_gets_its_map_of_blocks(tmp_path: Path) -> None:
    path, here = tmp_path / "bitmap", [1, 64, 700_000, 1_999_999]
    EntitlementBitmap.create(path, 2_000_000)
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, *((device, whole(device % 100)) for device in here))
        with bitmap.locked():
            bitmap.set_last_change(7)
    as_layout_1(path)
    with EntitlementBitmap.open(path) as reader:
        assert [reader.read(device) for device in here] == [whole(device % 100) for device in here]
        for further in (1_000_000, 1_500_000):
            with EntitlementBitmap.open(path, writable=True) as bitmap:
                assert [bitmap.read(device) for device in here] == [whole(device % 100) for device in here]
                assert bitmap.ended_devices(2000, 3).tolist() == sorted(here)
                assert bitmap.last_change == 7
                put(bitmap, (further, whole(further % 100)))
            here.append(further)
        assert [reader.read(device) for device in here] == [whole(device % 100) for device in here]


def test_devices_that_nobody_has_take_no_memory_of_the_disk(tmp_path: Path) -> None:
    """A stranger may name any number. On a tmpfs each page that is read would be taken from the disk."""
    path = tmp_path / "bitmap"
    EntitlementBitmap.create(path, MAX_ROWS)
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        for device in range(100_000, MAX_ROWS, MAX_ROWS // 5000):
            assert bitmap.probe(device, 1, 1) == NO_DEVICE
            assert bitmap.read(device) is None
        assert resident_kib(path) < 1024  # and not 4 KiB for each of the 5000


def resident_kib(path: Path) -> int:
    """Memory of this process that is pages of a file."""
    mapped = Path("/proc/self/smaps").read_text().split(str(path))[1]
    return int(mapped.split("Rss:")[1].split()[0])


@pytest.mark.parametrize(
    ("size_bytes", "shift"),
    [(4096, 21), (1 << 35, 21), ((1 << 35) + 1, 22), (1 << 36, 22), (4096 + (1 << 38), 25)],
)
def test_the_map_has_a_bit_for_each_block(size_bytes: int, shift: int) -> None:
    assert block_shift(size_bytes) == shift
    assert (size_bytes - 1) >> shift < 8 * MAP_BYTES


def test_a_row_that_stays_odd_is_denied_until_it_is_written_again(path: Path) -> None:
    """Invariant 2: nothing is granted on a row that may be half of one and half of another."""
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        put(bitmap, (1, whole(0)), (2, whole(0)))
        with path.open("r+b") as raw:
            raw.seek(HEADER_BYTES + ROW_BYTES)
            raw.write(b"\x07")
        assert bitmap.probe(1, 5, 5) == (BUSY, 0, 0, 0, False, False, 0)
        assert bitmap.probe(2, 5, 5)[4:6] == (True, True)
        with pytest.raises(WorldError) as caught:
            bitmap.read(1)
        assert caught.value.code == "row_unfinished"
        put(bitmap, (1, whole(1)))
        assert bitmap.read(1) == whole(1)


def test_seq_goes_round(path: Path) -> None:
    with EntitlementBitmap.open(path, writable=True) as bitmap:
        with path.open("r+b") as raw:
            raw.seek(HEADER_BYTES + ROW_BYTES)
            raw.write((0xFFFC).to_bytes(2, "little"))
        for first_day in range(4):
            put(bitmap, (1, whole(first_day)))
            assert bitmap.read(1) == whole(first_day)
        assert int.from_bytes(path.read_bytes()[HEADER_BYTES + ROW_BYTES :][:2], "little") == 4


# ---- files that are no bitmap -----------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BitmapCorrupt) as caught:
        EntitlementBitmap.open(path)
    assert caught.value.subject == str(path)
    assert "move the file aside" in caught.value.detail
    return caught.value.detail


def test_any_flipped_bit_of_the_constant_header_is_refused(path: Path) -> None:
    intact = path.read_bytes()
    named = set()
    for bit in range(64 * 8):
        broken = bytearray(intact)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        named.add(refusal(path).split(": ")[1])
    assert named == {"magic", "layout version", "header CRC-32"}
    path.write_bytes(intact)
    EntitlementBitmap.open(path).close()


@pytest.mark.parametrize("size", [0, 1, 63, 64, HEADER_BYTES - 1, HEADER_BYTES, -1, +1, ROW_BYTES])
def test_a_file_of_another_size_is_refused(path: Path, size: int) -> None:
    promised = HEADER_BYTES + ROWS * ROW_BYTES
    actual = promised + size if size in (-1, 1, ROW_BYTES) else size
    os.truncate(path, actual)
    assert f"{actual} " in refusal(path)


@given(st.binary(max_size=2 * HEADER_BYTES))
def test_noise_is_refused(shared: EntitlementBitmap, noise: bytes) -> None:
    path = shared._path.with_name("noise")
    path.write_bytes(noise)
    refusal(path)


def test_missing_existing_and_unusable_paths_are_coded_errors(path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        EntitlementBitmap.open(path.with_name("none"))
    assert missing.value.code == "bitmap_missing"
    with pytest.raises(CallerError) as existing:
        EntitlementBitmap.create(path, ROWS)
    assert existing.value.code == "bitmap_exists"
    for writable in (False, True):
        with pytest.raises(WorldError) as folder:
            EntitlementBitmap.open(path.parent, writable=writable)
        assert folder.value.code == "bitmap_unavailable"
    with pytest.raises(WorldError):
        EntitlementBitmap.create(path.parent / "no" / "folder", ROWS)


@pytest.mark.parametrize("capacity_rows", [-1, 0, 1, MAX_ROWS + 1])
def test_a_capacity_out_of_bounds_is_refused(tmp_path: Path, capacity_rows: int) -> None:
    with pytest.raises(CallerError) as caught:
        EntitlementBitmap.create(tmp_path / "bitmap", capacity_rows)
    assert caught.value.code == "bad_capacity"
    assert list(tmp_path.iterdir()) == []


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorldError):
        EntitlementBitmap.create(tmp_path / "bitmap", ROWS)
    assert list(tmp_path.iterdir()) == []
