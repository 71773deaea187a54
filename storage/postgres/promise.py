"""What the server's settings promise for a commit that was acknowledged. Pure, but for `PostgresDatabase.promise`."""

from __future__ import annotations

from collections.abc import Mapping

from storage.promise import Promise, Survives

SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "wal_level")
"""What `promise_of` asks for. As of the service's own connections: a role or a database may have its own values."""


def promise_of(settings: Mapping[str, str]) -> Promise:
    """The promise that these values of `SETTINGS` give."""
    synchronous = settings["synchronous_commit"]
    unsafe = [f"{name} is off" for name in ("fsync", "full_page_writes") if settings[name] == "off"]
    if synchronous == "off":
        return Promise(
            Survives.NOTHING,
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
            " loses what its newest backup does not hold" + _no_backups(settings),
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


def _no_backups(settings: Mapping[str, str]) -> str:
    if settings["wal_level"] != "minimal":
        return ""
    return ". wal_level is minimal: neither a base backup nor a standby can be made. Set it to replica"
