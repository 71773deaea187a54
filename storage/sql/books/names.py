"""What owners call their devices."""

from __future__ import annotations

import json
from collections.abc import Sequence

from storage.rows.devices import DeviceName
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table

NAMES = Table("device_names", DeviceName, ("device",), "device's name", private=("name", "label"))
_READABLE = "EXISTS (SELECT 1 FROM account_keys k WHERE k.account = device_names.account)"
"""Of an account that has ended nothing is left to be read, also where a host of an earlier release has ended it."""


class Names(OnBooks):
    def put_device_name(self, row: DeviceName) -> None:
        if row.name or row.label:
            NAMES.store(self._writer, self._keys, row)
        else:
            self._writer.execute("DELETE FROM device_names WHERE device = ?", (row.device,))

    def device_names(self, devices: Sequence[int]) -> dict[int, DeviceName]:
        where = f"{self._reader.among('device', '?')} AND {_READABLE}"
        rows = NAMES.select(self._reader, self._keys, where, (json.dumps(list(devices)),))
        return {row.device: row for row in rows}

    def named_devices(self, account: int, *, after: int = 0, limit: int = 1000) -> list[DeviceName]:
        where = f"account = ? AND device > ? AND {_READABLE} ORDER BY device LIMIT ?"
        return NAMES.select(self._reader, self._keys, where, (account, after, limit))
