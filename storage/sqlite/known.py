"""What commits know of devices: read in one statement, remembered while it is certain that nobody changed it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

MAX_KNOWN_DEVICES = 32_768
"""Devices remembered between commits, in some 4 MB: more than a worker serves while their facts stay the same."""


class Device(NamedTuple):
    """What a commit re-reads of a device. (A tuple, of which most devices of a service share one.)"""

    epoch: int
    classes: tuple[int, ...] = ()
    used_on: int = 0
    deletions: tuple[tuple[int, int], ...] = ()


NOBODY = Device(epoch=-1)

Moment = tuple[sqlite3.Connection, int, int]
"""A state of the database as one connection sees it: the two numbers change with whatever is written."""


def moment_of(connection: sqlite3.Connection) -> Moment:
    """The state that the transaction under way sees.

    SQLite's `data_version` changes with every transaction that any other connection commits, of this process or
    another one; `total_changes` grows with every row that this connection writes, and stays so when that is undone.
    """
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return connection, version, connection.total_changes


class KnownDevices:
    """Devices as the last commit left them, for the next one: given out only at the very moment they are of.

    For several threads: `take` is called inside a write transaction, of which there is one at a time; a `keep` that
    comes late keeps what no moment will fit.
    """

    def __init__(self) -> None:
        self._kept: tuple[Moment, dict[int, Device]] | None = None

    def take(self, connection: sqlite3.Connection) -> dict[int, Device]:
        """Called first in a write transaction. What was kept is the caller's alone now, to add to and to keep again
        when the transaction is durable; nothing of one that is undone is ever seen again."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0] != moment_of(connection) or len(kept[1]) > MAX_KNOWN_DEVICES:
            return {}
        return kept[1]

    def keep(self, moment: Moment, devices: dict[int, Device]) -> None:
        """Called after the transaction at whose end it was `moment`, with what is true of the devices then."""
        self._kept = (moment, devices)


def read_devices(connection: sqlite3.Connection, numbers: Collection[int]) -> dict[int, Device]:
    """What the catalog says of these devices; those that it does not know are left out."""
    devices = {}
    with_deletions = []
    for number, epoch, classes, has_deletions, used_on in connection.execute(
        "SELECT device, erase_epoch, classes, has_deletions, used_on FROM json_each(?) JOIN devices ON device = value",
        (json.dumps([*numbers]),),
    ).fetchall():
        devices[number] = _device(epoch, classes, used_on)
        if has_deletions:
            with_deletions.append(number)
    for number in with_deletions:
        ranges = connection.execute("SELECT from_ms, to_ms FROM deletions WHERE device = ?", (number,))
        devices[number] = devices[number]._replace(deletions=tuple(ranges.fetchall()))
    return devices


@lru_cache(maxsize=1024)
def _device(epoch: int, classes: str, used_on: int) -> Device:
    return Device(epoch, tuple(json.loads(classes)), used_on)
