"""Erasure records as the transactions of others write them: marking and un-indexing."""

from __future__ import annotations

from storage.rows.devices import DeviceFacts
from storage.sql.connection import Connection

_ACTORS = ("sweep", "owner")
"""Who a change's `what` may begin with, before a colon; everybody else is the operator."""


def note_marked(
    connection: Connection, old: DeviceFacts, new: DeviceFacts, *, what: str, now_ms: int
) -> None:
    """Begin a record when a change gives a device a new erase epoch. Of `what` only who is kept: the rest may be
    what a person wrote."""
    if new.erase_epoch <= old.erase_epoch:
        return
    actor = what.partition(":")[0]
    connection.execute(
        # Not ON CONFLICT: a row that is refused so has used up a number.
        "INSERT INTO erasures (device, epoch, why, who, marked_ms) SELECT :device, :epoch, :why, :who, :now_ms"
        " WHERE NOT EXISTS (SELECT 1 FROM erasures WHERE device = :device AND epoch = :epoch)",
        {
            "device": new.device,
            "epoch": new.erase_epoch,
            "why": new.erase_reason,
            "who": actor if actor in _ACTORS else "operator",
            "now_ms": now_ms,
        },
    )


def note_unindexed(connection: Connection, device: int, epoch: int, chunks: int) -> None:
    """Count rows that left the index, in the transaction in which they left."""
    if chunks:
        connection.execute(
            "UPDATE erasures SET unindexed_chunks = unindexed_chunks + ? WHERE device = ? AND epoch = ?",
            (chunks, device, epoch),
        )


def note_all_unindexed(connection: Connection, device: int, epoch: int, *, now_ms: int) -> None:
    """No row of before this epoch is left; what erasures before it left undone is done with it."""
    connection.execute(
        "UPDATE erasures SET unindexed_ms = ? WHERE device = ? AND epoch <= ? AND unindexed_ms IS NULL",
        (now_ms, device, epoch),
    )
