"""What the server's settings promise for a commit that was acknowledged. Pure, but for `PostgresDatabase.promise`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
"""What `promise_of` asks for. As of the service's own connections: a role or a database may have its own values."""


class Survives(IntEnum):
    """What a commit that was acknowledged survives; each also survives what the ones before it do."""

    SERVER_CRASH = 0
    """A crash of the server's processes, and perhaps not that of its machine."""
    MACHINE_CRASH = 1
    """A power cut of the server's machine, its disk being whole."""
    PRIMARY_LOSS = 2
    """The loss of the server's machine and disk, once a synchronous standby takes over."""


@dataclass(frozen=True, slots=True)
class Promise:
    """`survives`, and what a log line or a person is told: `said`, in a sentence or two."""

    survives: Survives | None
    """None: a crash may lose commits that were acknowledged."""
    said: str


def promise_of(settings: Mapping[str, str]) -> Promise:
    """The promise that these values of `SETTINGS` give."""
    synchronous = settings["synchronous_commit"]
    unsafe = [f"{name} is off" for name in ("fsync", "full_page_writes") if settings[name] == "off"]
    if synchronous == "off":
        return Promise(
            None,
            "synchronous_commit is off: a crash of PostgreSQL loses chunks that were acknowledged. Set it to on",
        )
    if unsafe:
        return Promise(
            Survives.SERVER_CRASH,
            f"{' and '.join(unsafe)}: a power cut may lose the whole catalog. Set both to on",
        )
    if not settings["synchronous_standby_names"].strip():
        return Promise(
            Survives.MACHINE_CRASH,
            "what is acknowledged survives a power cut; without a synchronous standby the loss of the server's disk"
            " loses what its newest backup does not hold",
        )
    if synchronous == "local":
        return Promise(
            Survives.MACHINE_CRASH,
            "synchronous_commit is local: commits do not wait for the standbys in synchronous_standby_names, so the"
            " loss of the primary may lose what was acknowledged last. Set it to on",
        )
    where = "has reached the memory of" if synchronous == "remote_write" else "is on the disk of"
    return Promise(
        Survives.PRIMARY_LOSS,
        f"what is acknowledged {where} a synchronous standby, and survives the loss of the primary",
    )
