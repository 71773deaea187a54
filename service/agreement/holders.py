"""Which process works on something, told by its name in the books: so that who finds the work of one that was killed
need not wait for it. Linux; elsewhere nobody can tell, and every holder counts as alive."""

from __future__ import annotations

import os
from pathlib import Path

from storage.clock import machine_boot_id

_PROC = Path("/proc")
_ENDED = frozenset("ZX")
"""States of a process that runs no more: killed, and not yet waited for."""


def this_process() -> str:
    """The name of this process, which no other of this host has or had since it booted; "" where there is no /proc."""
    started = _started(os.getpid())
    return f"{machine_boot_id().hex()}:{os.getpid()}:{started}" if started else ""


def may_be_alive(holder: str) -> bool:
    """False only when the process of that name has certainly ended.

    A process that is not seen from here (another container's) counts as ended: what is guarded by a holder must be
    harmless to do twice.
    """
    boot_id, _, rest = holder.partition(":")
    pid, _, started = rest.partition(":")
    if not pid.isdecimal() or not started:
        return True
    return boot_id == machine_boot_id().hex() and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When it started, in ticks since boot; "" for one that has ended."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # what is before may hold anything
    return "" if state in _ENDED else fields[18]
