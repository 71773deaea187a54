"""A full disk under the data folder, told from everything else that can fail: what is full, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

DISK_FULL = "data_disk_full"
"""Code of every error that a full disk under the data folder causes. A full store is `store_full`."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # EFBIG: the process's own file size limit
_NOT_OFFERED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_COPY_BYTES = 1 << 16
_LEAST_FREE_BYTES = 1 << 16
"""A disk with less counts as full when something on it failed for a reason that does not say."""


def is_full(error: OSError) -> bool:
    """Whether this error says that there is no space."""
    return error.errno in _FULL


def looks_full(path: Path) -> bool:
    """Whether the disk of `path` has next to nothing left, in bytes or in files."""
    try:
        found = os.statvfs(path if path.exists() else path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _LEAST_FREE_BYTES or (found.f_files > 0 and not found.f_favail)


def make_room(path: Path) -> str:
    """What is full and what to do about it, to stand in an error about `path`."""
    return (
        f"the disk of the data folder is full ({path.parent}): free some space or grow it. It goes on by itself then,"
        " and trying again is safe"
    )


def allocate(fd: int, start: int, length: int) -> None:
    """Make a file system promise space for these bytes of a file, whose content stays.

    Raises:
        OSError: it has none, or refuses for another reason.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, start, length)
            return
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
    for at in range(start, start + length, _COPY_BYTES):
        piece = min(_COPY_BYTES, start + length - at)
        os.pwrite(fd, os.pread(fd, piece, at).ljust(piece, b"\0"), at)
