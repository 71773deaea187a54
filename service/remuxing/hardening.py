"""What a child gives up before it looks at media. Nothing here needs privileges.

Not opening files is a limit of 0 open files: what is open stays, and nothing new can be, no socket either. So all that
the jobs need must be loaded before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def keep_freed_memory() -> None:
    """Have the C library keep what was freed of large blocks for the next job: each job needs the same again, and
    getting it from the kernel, page by page, is a third of its time. Not where the library has no `mallopt`."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes; the largest chunk is half of it
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def lock_down(memory_bytes: int) -> None:
    """No core dumps, no tracing, no new files or sockets, no writing of files, no new programs with more rights, and
    `memory_bytes` beside the address space in use. The kernel, where memory runs out, ends this process before others.

    Raises:
        OSError: the kernel refuses one of them.
    """
    with contextlib.suppress(OSError):  # not in every container; it only chooses whom to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
    address_space = pages * resource.getpagesize() + memory_bytes
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (most, most))
