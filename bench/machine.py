"""Facts that a figure means nothing without: machine, versions, commit. And how the cores are shared out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError

PACKAGES = (
    *("clipkeep", "trio", "httptools", "boto3", "botocore", "awscrt", "cryptography", "isal", "numpy"),
    *("starlette", "uvicorn", "uvloop"),
)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the server has, and which load generator, null store and harness share.

    Both empty when there are too few to keep them apart: then nothing is pinned, and figures are low.
    """

    server: tuple[int, ...]
    load: tuple[int, ...]


def share_out(cpus: Sequence[int], workers: int) -> Cores:
    """Give the server one core per worker and the load all others; nobody any when there are not enough."""
    if workers < 1:
        raise BenchError("at least one worker is needed", subject=f"workers={workers}")
    if len(cpus) <= workers:
        return Cores((), ())
    ordered = sorted(cpus)
    return Cores(tuple(ordered[:workers]), tuple(ordered[workers:]))


def usable_cpus() -> list[int]:
    """Return the cores that this process may use.

    Raises:
        BenchError: not on Linux: CPU time and memory are read from /proc.
    """
    if not hasattr(os, "sched_getaffinity") or not Path("/proc/self/smaps_rollup").exists():
        raise BenchError("this bench reads CPU time and memory from /proc: run it on Linux")
    return sorted(os.sched_getaffinity(0))


def describe() -> dict[str, Any]:
    """Return what is recorded with every result."""
    from service.compiled import COMPILED

    return {
        "machine": {
            "cpu": _field("/proc/cpuinfo", r"^model name\s*:\s*(.+)$"),
            "cores": os.cpu_count(),
            "usable_cores": len(usable_cpus()),
            "memory_bytes": int(_field("/proc/meminfo", r"^MemTotal:\s+(\d+) kB$") or 0) * 1024,
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "load_average_1min": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": commit(),
        "hot_path": "compiled" if COMPILED else "Python",
    }


def commit() -> str | None:
    """Return the checkout's git commit, `+changes` when files differ from it, None outside a checkout."""
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(ROOT),
                "describe",
                "--always",
                "--abbrev=12",
                "--exclude=*",
                "--dirty=+changes",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _field(path: str, pattern: str) -> str | None:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1] if found else None
