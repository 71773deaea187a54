"""Files are copied as they are: private, durable, with their holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.backups.manifest import Kept
from storage.disk import is_full
from storage.errors import WorldError

COPY_BYTES = 1 << 20
_ZEROS = bytes(COPY_BYTES)


def copy_file(source: Path, to: Path) -> tuple[int, str]:
    """Copy into a new file, mode 0600, durable but for its folder. Where the source has a hole, as a sparse file, the
    copy has one too: it takes no more of the disk.

    Returns:
        Its bytes, holes included, and the SHA-256 of them in hex.

    Raises:
        OSError.
    """
    seen = sha256()
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        made = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            at = 0
            for start, end in _data_of(fd, size):
                _hash_zeros(seen, start - at)
                for at in range(start, end, COPY_BYTES):
                    data = os.pread(fd, min(COPY_BYTES, end - at), at)
                    os.pwrite(made, data, at)
                    seen.update(data)
                at = end
            _hash_zeros(seen, size - at)
            os.ftruncate(made, size)
            os.fsync(made)
        finally:
            os.close(made)
    finally:
        os.close(fd)
    return size, seen.hexdigest()


def _data_of(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are no holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size  # this file system knows of no holes
        yield start, min(end, size)
        at = end


def _hash_zeros(seen: Any, count: int) -> None:
    for at in range(0, count, COPY_BYTES):
        seen.update(_ZEROS[: min(COPY_BYTES, count - at)])


def copy_tree(root: Path, path: str, to: Path) -> list[Kept]:
    """Copy a file, or a folder with all in it, to the same path under `to`. What is not there, or goes meanwhile (a
    notice that somebody forwards), is left out; so are links, which lead elsewhere.

    Raises:
        OSError.
    """
    source = root / path
    if source.is_symlink() or not source.exists():
        return []
    if source.is_dir():
        (to / path).mkdir(mode=0o700, parents=True, exist_ok=True)
        names = sorted(each.name for each in source.iterdir())
        return [kept for name in names for kept in copy_tree(root, f"{path}/{name}", to)]
    (to / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        size, hex_digest = copy_file(source, to / path)
    except FileNotFoundError:
        return []
    return [Kept(path, size, hex_digest)]


def write_file(path: Path, data: bytes) -> None:
    """Write a new file, mode 0600, durable but for its folder. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folders(root: Path) -> None:
    """Make the names in a folder, and in those in it, durable. Raises OSError."""
    for folder, _, _ in os.walk(root):
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    """Make the names in one folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def kept_file(root: Path, path: str) -> Kept:
    """What a file that is there already is. Raises OSError."""
    seen, size = sha256(), 0
    with (root / path).open("rb") as file:
        while data := file.read(COPY_BYTES):
            seen.update(data)
            size += len(data)
    return Kept(path, size, seen.hexdigest())


def refused(path: Path, error: OSError) -> WorldError:
    """What a person is told of a file system that refused."""
    subject = str(error.filename or path)
    if is_full(error):
        return WorldError(
            "the disk is full; nothing of this backup is left there. Make room, and run it again",
            subject=subject,
            code="backup_full",
        )
    return WorldError(
        f"the file system refused: {error.strerror or error}; correct the path or its permissions",
        subject=subject,
        code="backup_unavailable",
    )
