"""What is in the vault on PostgreSQL: counts for reports, and every key for the proof that an erasure holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from storage._key_files import MASTER_MAGIC, read_key_file
from storage._key_wrapping import WrappingKeys
from storage.errors import CorruptError
from storage.postgres.vault_database import VaultDatabase, month_table, months_of, state
from storage.postgres.vault_hosts import rotation_of
from storage.postgres.vault_rotation import written_ms
from storage.sql.connection import Connection
from storage.vault import Inventory, KeyCount, KeyId

PAGE_ROWS = 1000
MAX_TOLD = 20


def take_inventory(connection: Connection, master_key: Path) -> Inventory:
    """See `Vault.inventory`. Raises as `Vault`."""
    current, month_floor = state(connection)
    wrapping_keys = {number: 0 for number, _ in read_key_file(master_key, MASTER_MAGIC)}
    months: dict[int, KeyCount] = {}
    counting = "SELECT wrapping_key_id, count(wrapped), count(*) FROM {} GROUP BY 1"
    for month in months_of(connection):
        live = rows = 0
        for number, alive, count in connection.execute(counting.format(month_table(month))).fetchall():
            if alive:
                wrapping_keys[number] = wrapping_keys.get(number, 0) + alive
            live, rows = live + alive, rows + count
        months[month] = KeyCount(live, rows - live)
    account_keys = 0
    for number, _, count in connection.execute(counting.format("vault_account_keys")).fetchall():
        wrapping_keys[number] = wrapping_keys.get(number, 0) + count
        account_keys += count
    [erased] = connection.execute("SELECT count(*) FROM vault_floors").fetchone()
    rotation = rotation_of(connection, current)
    rotated_ms = written_ms(master_key) if rotation is None else rotation[0]
    return Inventory(months, month_floor, erased, account_keys, current, wrapping_keys, rotated_ms)


def count_of_devices(
    connection: Connection, devices: Iterable[int], below_epochs: Mapping[int, int]
) -> dict[int, KeyCount]:
    """See `Vault.count_of`."""
    wanted = sorted(set(devices))
    only = [below_epochs[device] - 1 if device in below_epochs else None for device in wanted]
    counts = {device: KeyCount(0, 0) for device in wanted}
    for month in months_of(connection):
        rows = connection.execute(
            f"SELECT k.device, count(k.wrapped), count(*) FROM {month_table(month)} k"
            " JOIN unnest(?::bigint[], ?::bigint[]) AS w (device, epoch)"
            " ON k.device = w.device AND (w.epoch IS NULL OR k.epoch = w.epoch) GROUP BY 1",
            (wanted, only),
        )
        for device, live, count in rows.fetchall():
            before = counts[device]
            counts[device] = KeyCount(before.live + live, before.destroyed + count - live)
    return counts


def every_key(
    database: VaultDatabase, wrapping_keys: WrappingKeys, device: int | None
) -> Iterator[tuple[KeyId, bytes]]:
    """See `Vault.every_key`."""
    for key_id, wrapping_key_id, wrapped in _every_row(database, device):
        try:
            yield key_id, wrapping_keys.unwrap(wrapping_key_id, key_id, wrapped)
        except CorruptError:
            continue  # nobody can unwrap it


def damage_of(database: VaultDatabase, wrapping_keys: WrappingKeys) -> list[str]:
    """Rows that do not unwrap, the first `MAX_TOLD`. See `Vault.damage`."""
    told: list[str] = []
    for key_id, wrapping_key_id, wrapped in _every_row(database, None):
        try:
            wrapping_keys.unwrap(wrapping_key_id, key_id, wrapped)
        except CorruptError as error:
            told.append(str(error))
            if len(told) == MAX_TOLD:
                break
    return told


def _every_row(database: VaultDatabase, device: int | None) -> Iterator[tuple[KeyId, object, bytes]]:
    for month in database.reading(months_of):
        after: tuple[int, int] | None = (-1, -1)
        while after is not None:
            rows = database.reading(partial(_page, month, after, device))
            for number, epoch, wrapping_key_id, wrapped in rows:
                yield KeyId(number, epoch, month), wrapping_key_id, bytes(wrapped)
            after = (rows[-1][0], rows[-1][1]) if len(rows) == PAGE_ROWS else None


def _page(month: int, after: tuple[int, int], device: int | None, connection: Connection) -> list[Any]:
    if month not in months_of(connection):
        return []
    return connection.execute(
        f"SELECT device, epoch, wrapping_key_id, wrapped FROM {month_table(month)}"
        " WHERE (device, epoch) > (?, ?) AND (?::bigint IS NULL OR device = ?::bigint)"
        " AND wrapped IS NOT NULL ORDER BY device, epoch LIMIT ?",
        (*after, device, device, PAGE_ROWS),
    ).fetchall()
