"""What a commit that was acknowledged survives, whatever engine made it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Survives(IntEnum):
    """What a commit that was acknowledged survives; each also survives what the ones before it do."""

    NOTHING = 0
    """A crash of the server's processes may lose it."""
    SERVER_CRASH = 1
    """A crash of the server's processes, and perhaps not that of its machine."""
    MACHINE_CRASH = 2
    """A power cut of the machine, its disk being whole."""
    PRIMARY_LOSS = 3
    """The loss of the server's machine and disk, once a synchronous standby takes over."""

    @property
    def word(self) -> str:
        """As configuration, logs and `/readyz` have it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Promise:
    """`survives`, and what a log line or a person is told: `said`, in a sentence or two."""

    survives: Survives
    said: str


OF_A_FILE = Promise(
    Survives.MACHINE_CRASH,
    "what is acknowledged survives a power cut; the loss of the disk loses what its newest backup does not hold",
)
"""SQLite syncs each commit to the disk."""
