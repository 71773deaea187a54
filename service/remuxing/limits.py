"""What media jobs may take."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RemuxLimits:
    """The bounds of a `Remuxer`."""

    processes: int = 3
    """Jobs at once; each process has one."""
    job_s: float = 5.0
    """For one job; a child that takes longer is killed. 16 MiB take 0.1 s."""
    memory_bytes: int = 512 * MIB
    """Address space of a child, beside what it has when it starts."""
    max_input_bytes: int = 33 * MIB
    """Of one job: the largest chunk, its header, and another for what it needs."""
    max_waiting: int = 64
    """Jobs that wait for a process; more are refused as overload."""
    wait_s: float = 20.0
    """How long a job waits for its turn."""
    max_jobs: int = 5000
    """After which a child is replaced: what libraries lose track of goes with it."""
