"""What Linux says about processes: CPU time and memory of a whole session, and how busy the machine was.

Figures are sums over all processes of a session (see `bench.children`): supervisor, workers, API process.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LOOKS = 20
"""At the children of a process, until none is reaped meanwhile."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PARENT, _SESSION, _TIMES, _REAPED = 1, 3, slice(11, 15), slice(13, 15)
"""Positions in /proc/PID/stat after the command's name: parent; session; utime, stime, cutime, cstime; the last two."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `peak_bytes` (VmHWM) and `rss_bytes` count a page that processes share once for each of them;
    `pss_bytes` divides it between them. Socket buffers belong to the kernel and are in none."""

    peak_bytes: int
    rss_bytes: int
    pss_bytes: int
    processes: int


def stat_fields(text: str) -> list[str]:
    """Split a /proc/PID/stat line after the name, which may itself hold spaces and parentheses."""
    return text[text.rindex(")") + 2 :].split()


def session_stats(session: int) -> dict[int, list[str]]:
    """Return the stat fields of every process of a session, by process id.

    Zombies are among them (state `Z`): their CPU time is theirs until the parent takes it over.
    """
    found: dict[int, list[str]] = {}
    for entry in os.listdir(PROC):
        if not entry.isdigit():
            continue
        try:
            fields = stat_fields((PROC / entry / "stat").read_text())
        except (OSError, ValueError):
            continue  # it ended while we looked
        if int(fields[_SESSION]) == session:
            found[int(entry)] = fields
    return found


def session_cpu_s(session: int) -> float:
    """Return CPU seconds used so far, with those of children that ended (their parent holds them)."""
    return sum(sum(map(int, fields[_TIMES])) for fields in session_stats(session).values()) / _TICKS_PER_S


def serving_cpu_s(parent: int, word: bytes) -> dict[int, float]:
    """Return CPU seconds used so far by each living child of a process whose command line has a word."""
    found: dict[int, float] = {}
    for entry in os.listdir(PROC):
        if entry.isdigit():
            try:
                fields = stat_fields((PROC / entry / "stat").read_text())
                if int(fields[_PARENT]) == parent and word in (PROC / entry / "cmdline").read_bytes():
                    found[int(entry)] = sum(map(int, fields[_TIMES])) / _TICKS_PER_S
            except (OSError, ValueError):
                continue  # it ended while we looked
    return found


def spent_s(before: dict[int, float], after: dict[int, float]) -> float:
    """Return CPU seconds between two looks, of those that lived at the second one."""
    return sum(used_s - before.get(pid, 0.0) for pid, used_s in after.items())


def children_cpu_s(parent: int) -> float:
    """Return CPU seconds used so far by a process and its children, those that it has reaped included. (A server of
    PostgreSQL gives each of its processes a session of its own.)"""
    total = 0
    for _ in range(LOOKS):
        reaped, total = _reaped(parent), 0
        for entry in os.listdir(PROC):
            if entry.isdigit():
                try:
                    fields = stat_fields((PROC / entry / "stat").read_text())
                except (OSError, ValueError):
                    continue  # it ended while we looked
                if int(entry) == parent or int(fields[_PARENT]) == parent:
                    total += sum(map(int, fields[_TIMES]))
        if _reaped(parent) == reaped:
            break  # else a child may be in none of the sums, or in two
    return total / _TICKS_PER_S


def _reaped(parent: int) -> list[str]:
    try:
        return stat_fields((PROC / str(parent) / "stat").read_text())[_REAPED]
    except OSError:
        return []


def session_memory(session: int) -> Memory:
    """Sum the memory of a session's processes."""
    pids = session_stats(session)
    status = [_kilobytes(PROC / str(pid) / "status", ("VmHWM", "VmRSS")) for pid in pids]
    rollup = [_kilobytes(PROC / str(pid) / "smaps_rollup", ("Pss",)) for pid in pids]
    return Memory(
        peak_bytes=sum(x.get("VmHWM", 0) for x in status) * 1024,
        rss_bytes=sum(x.get("VmRSS", 0) for x in status) * 1024,
        pss_bytes=sum(x.get("Pss", 0) for x in rollup) * 1024,
        processes=len(pids),
    )


def _kilobytes(path: Path, names: tuple[str, ...]) -> dict[str, int]:
    try:
        text = path.read_text()
    except OSError:
        return {}
    pattern = rf"^({'|'.join(names)}):\s+(\d+) kB$"
    return {name: int(value) for name, value in re.findall(pattern, text, re.MULTILINE)}


def machine_busy_s() -> float:
    """Return the seconds all cores together have been busy since boot (not idle, not waiting for I/O)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, (PROC / "stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S
