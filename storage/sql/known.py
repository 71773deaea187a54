"""What a commit re-reads of the devices whose chunks it commits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from storage.sql.connection import Connection


class Device(NamedTuple):
    """What a commit re-reads of a device. (A tuple, of which most devices of a service share one.)"""

    epoch: int
    classes: tuple[int, ...] = ()
    used_on: int = 0
    used_version: int = 0
    deletions: tuple[tuple[int, int], ...] = ()


NOBODY = Device(epoch=-1)

DEVICES = "SELECT device, erase_epoch, classes, has_deletions, used_on, used_version FROM devices"
"""What `devices_of` takes the rows of."""


def devices_of(connection: Connection, rows: Iterable[tuple[Any, ...]]) -> dict[int, Device]:
    """What the catalog says of these devices, with their deleted ranges."""
    devices = {}
    with_deletions = []
    for number, epoch, classes, has_deletions, *used in rows:
        devices[number] = _device(epoch, classes, *used)
        if has_deletions:
            with_deletions.append(number)
    for number in with_deletions:
        ranges = connection.execute("SELECT from_ms, to_ms FROM deletions WHERE device = ?", (number,))
        devices[number] = devices[number]._replace(deletions=tuple(ranges.fetchall()))
    return devices


@lru_cache(maxsize=1024)
def _device(epoch: int, classes: str, used_on: int, used_version: int) -> Device:
    return Device(epoch, tuple(json.loads(classes)), used_on, used_version)
