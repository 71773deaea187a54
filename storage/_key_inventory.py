"""What is in a key store: counts for reports, and every key for the proof that an erasure holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from storage._key_accounts import has_account_keys
from storage._key_database import KeyDatabase, whole_number
from storage._key_files import MASTER_MAGIC, read_key_file
from storage._key_tables import ZEROS, current_wrapping_key, month_floor_of, months_of
from storage._key_wrapping import WrappingKeys
from storage.errors import CorruptError
from storage.vault import Inventory, KeyCount, KeyId

PAGE_ROWS = 1000


def take_inventory(connection: sqlite3.Connection, master: Path) -> Inventory:
    """Raises as `KeyStore`."""
    months: dict[int, KeyCount] = {}
    wrapping_keys = {number: 0 for number, _ in read_key_file(master, MASTER_MAGIC)}
    for month in months_of(connection):
        live = 0
        for number, count in connection.execute(
            f"SELECT wrapping_key_id, count(*) FROM month_{month} WHERE wrapped <> {ZEROS} GROUP BY 1"
        ):
            wrapping_keys[number] = wrapping_keys.get(number, 0) + count
            live += count
        rows = whole_number(connection, f"SELECT count(*) FROM month_{month}")
        months[month] = KeyCount(live, rows - live)
    account_keys = 0
    if has_account_keys(connection):
        for number, count in connection.execute(
            "SELECT wrapping_key_id, count(*) FROM account_keys WHERE NOT free GROUP BY 1"
        ):
            wrapping_keys[number] = wrapping_keys.get(number, 0) + count
            account_keys += count
    return Inventory(
        months,
        month_floor_of(connection),
        whole_number(connection, "SELECT count(*) FROM floors"),
        account_keys,
        current_wrapping_key(connection),
        wrapping_keys,
        master.stat().st_mtime_ns // 1_000_000,
    )


def count_of_devices(
    connection: sqlite3.Connection, devices: Iterable[int], below_epochs: Mapping[int, int]
) -> dict[int, KeyCount]:
    """See `KeyStore.count_of`."""
    months = months_of(connection)
    counts: dict[int, KeyCount] = {}
    for device in devices:
        live = destroyed = 0
        only = below_epochs[device] - 1 if device in below_epochs else None
        for month in months:
            for (gone,) in connection.execute(
                f"SELECT wrapped = {ZEROS} FROM month_{month} WHERE device = ?1 AND (?2 IS NULL OR epoch = ?2)",
                (device, only),
            ):
                live, destroyed = live + (not gone), destroyed + gone
        counts[device] = KeyCount(live, destroyed)
    return counts


def every_key(
    database: KeyDatabase, wrapping_keys: WrappingKeys, device: int | None
) -> Iterator[tuple[KeyId, bytes]]:
    """See `KeyStore.every_key`."""
    with database.transaction("DEFERRED") as connection:
        months = months_of(connection)
    for month in months:
        after_slot: int | None = -1
        while after_slot is not None:
            page, after_slot = _page(database, month, after_slot, device)
            for key_id, wrapping_key_id, wrapped in page:
                try:
                    yield key_id, wrapping_keys.unwrap(wrapping_key_id, key_id, wrapped)
                except CorruptError:
                    continue  # nobody can unwrap it


def _page(
    database: KeyDatabase, month: int, after_slot: int, device: int | None
) -> tuple[list[tuple[KeyId, object, object]], int | None]:
    with database.transaction("DEFERRED") as connection:
        if month not in months_of(connection):
            return [], None
        rows = connection.execute(
            f"SELECT slot, device, epoch, wrapping_key_id, wrapped FROM month_{month} WHERE slot > ?1"
            f" AND (?2 IS NULL OR device = ?2) AND wrapped <> {ZEROS} ORDER BY slot LIMIT ?3",
            (after_slot, device, PAGE_ROWS),
        ).fetchall()
    page: list[tuple[KeyId, object, object]] = [
        (KeyId(number, epoch, month), wrapping_key_id, wrapped)
        for _, number, epoch, wrapping_key_id, wrapped in rows
    ]
    return page, (rows[-1][0] if len(rows) == PAGE_ROWS else None)
