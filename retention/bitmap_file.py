"""The file of an entitlement bitmap: made, opened, given what an older layout lacked. `retention.bitmap` maps it."""

from __future__ import annotations

import os
from pathlib import Path

from retention.blocks import MAP_BYTES, MIN_BLOCK_BYTES, Blocks, written_ranges
from retention.filelock import holding
from retention.header import (
    BLOCKS,
    HEADER_BYTES,
    checked_capacity,
    constants_of,
    file_bytes,
    has_blocks,
    new_header,
)
from storage.disk import DISK_FULL, is_full, make_room
from storage.errors import CallerError, ClipkeepError, NotFound, WorldError

LOCK_WAIT_S = 10.0
"""Writers hold the lock for milliseconds; only a roll or a rebuild of millions of rows takes longer."""


def create_file(path: Path, capacity_rows: int) -> None:
    """See `EntitlementBitmap.create`."""
    header = new_header(capacity_rows)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise CallerError("there is a bitmap already", subject=str(path), code="bitmap_exists") from error
    except OSError as error:
        raise unavailable(path, error) from error
    try:
        size_bytes = file_bytes(capacity_rows)
        os.ftruncate(fd, size_bytes)
        blocks = memoryview(bytearray(MAP_BYTES))
        Blocks(fd, size_bytes, blocks).allocate(0)
        os.pwrite(fd, header[: BLOCKS.start] + blocks, 0)
        os.fsync(fd)
        _fsync_folder(path.parent)
    except OSError as error:
        path.unlink()
        raise unavailable(path, error) from error
    finally:
        os.close(fd)


def open_file(path: Path, *, writable: bool) -> tuple[int, int, bool]:
    """Open and check. A file of an older layout that is opened for writing gets its map of blocks.

    Returns:
        The file descriptor, which is the caller's to close; the capacity in rows; whether there is a map of blocks.

    Raises:
        NotFound, BitmapCorrupt, WorldError: see `EntitlementBitmap.open`.
    """
    try:
        fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    except FileNotFoundError as error:
        detail = "no entitlement bitmap here; `clipkeep init` makes one"
        raise NotFound(detail, subject=str(path), code="bitmap_missing") from error
    except OSError as error:
        raise unavailable(path, error) from error
    try:
        header = os.pread(fd, HEADER_BYTES, 0)
        capacity_rows = checked_capacity(path, header, os.fstat(fd).st_size)
        if writable and not has_blocks(header):
            header = _add_blocks(path, fd, capacity_rows)
        return fd, capacity_rows, has_blocks(header)
    except OSError as error:
        os.close(fd)
        raise unavailable(path, error) from error
    except ClipkeepError:
        os.close(fd)
        raise


def lock_of(path: Path) -> Path:
    """The file by which the writers of a bitmap exclude each other."""
    return path.with_name(path.name + ".lock")


def rows_lock_of(path: Path) -> Path:
    """The file by which those exclude each other who write rows at this moment; held for milliseconds."""
    return path.with_name(path.name + ".rows.lock")


def unavailable(path: Path, error: OSError) -> WorldError:
    """What the file system's refusal is to who uses the bitmap."""
    if is_full(error):
        return WorldError(make_room(path), subject=str(path), code=DISK_FULL)
    detail = f"the file system refused: {error.strerror}; correct its permissions"
    return WorldError(detail, subject=str(path), code="bitmap_unavailable")


def _add_blocks(path: Path, fd: int, capacity_rows: int) -> bytes:
    """Give a file of an older layout its map of blocks, and all that is written in it its place. Returns its header."""
    with holding(lock_of(path), LOCK_WAIT_S, name="bitmap"):
        header = os.pread(fd, HEADER_BYTES, 0)
        if not has_blocks(header):  # nobody was faster
            size_bytes = file_bytes(capacity_rows)
            found = memoryview(bytearray(MAP_BYTES))
            blocks = Blocks(fd, size_bytes, found)
            for start, stop in written_ranges(fd, 0, size_bytes):
                for offset in range(start, stop, MIN_BLOCK_BYTES):
                    blocks.allocate(offset)
                blocks.allocate(stop - 1)
            os.pwrite(fd, found, BLOCKS.start)
            os.fsync(fd)
            os.pwrite(fd, constants_of(capacity_rows), 0)  # last: from here on the map is believed
            os.fsync(fd)
            header = os.pread(fd, HEADER_BYTES, 0)
        return header


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
