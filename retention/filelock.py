"""One lock for all processes of a host that write the same file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.disk import DISK_FULL, is_full, make_room
from storage.errors import WorldError

POLL_S = 0.005


@contextmanager
def holding(path: Path, wait_s: float, *, name: str) -> Iterator[None]:
    """Hold `flock` on the file at `path`, made when missing (mode 0600) and never removed.

    Blocks the thread. The lock belongs to this call: the threads of one process exclude each other too,
    and a second call inside the first waits in vain. The kernel frees the lock of a holder that dies.

    Args:
        wait_s: longest wait, in steps of `POLL_S`; 0 tries once.
        name: of what the lock guards, for the codes of errors.

    Raises:
        WorldError: `{name}_busy`, it is held longer than that; `data_disk_full` or `{name}_unavailable`, the file
            system refused.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if is_full(error):
            raise WorldError(make_room(path), subject=str(path), code=DISK_FULL) from error
        detail = f"the lock file cannot be opened: {error.strerror}; correct its permissions"
        raise WorldError(detail, subject=str(path), code=f"{name}_unavailable") from error
    try:
        if not _acquired(lock, tries=1 + round(wait_s / POLL_S)):
            detail = f"another process or thread has held the lock for {wait_s:g} s; try again"
            raise WorldError(detail, subject=str(path), code=f"{name}_busy")
        try:
            yield
        finally:
            # Said aloud: a child forked meanwhile has the open file too, and would keep the lock.
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)


def _acquired(lock: int, tries: int) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(POLL_S)
        else:
            return True
    return False
