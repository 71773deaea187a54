"""The vault in a folder: data keys of every device and month, account keys, and the token secret.

Destroying a data key is what makes a recording unrecoverable (invariant 10), so this module is about two
promises: a key that was handed out survives any crash, and a key that was destroyed stays destroyed.

The folder (mode 0700; every file in it 0600):

    master.key   the wrapping key(s); the last one is current, an earlier one is there during a rotation (and a
                 master.new or master.old beside it when that was killed; the next one overwrites them)
    tokens.key   the secret for token MACs; not wrapped, so that rotating the wrapping key breaks no token
    keys.db      SQLite, WAL. Tables:
                   state     one row: current wrapping_key_id, month_floor (the last month destroyed)
                   floors    device → lowest epoch that may still have keys
                   month_N   one table per month N (yyyymm): device, epoch, wrapping_key_id, wrapped
                   account_keys  `storage._key_accounts`; made with the first of them

**Why a table per month.** `secure_delete` overwrites a row that is deleted, but not the copies that a B-tree
leaves behind in the free space of a page when it splits or merges pages: with one table in key order, and 5,000
keys in it, one or two destroyed keys could still be read in the file after each round. So no wrapped key ever
moves here. Rows are only appended (SQLite then opens a fresh page instead of splitting one), a device's keys are
overwritten where they are, by zeros of the same length, and rows leave only from the front of a month's table
that goes as a whole.

**What destruction promises, and what it cannot.** When a `destroy_…` call returns, the wrapped keys are neither
in a row, nor in a free page of keys.db, nor in its write-ahead log, as far as a reader of these files can tell; and
no process can make or read such a key again. Out of reach are blocks that an SSD or a copying file system
retired without erasing, a file system's journal, snapshots, swap, the memory of processes that have the key
in use, and backups of this folder. What remains there is wrapped: it becomes worthless when the wrapping key has
been rotated (`rotate`) and the old one is gone, so a rotation, and the end of the backup window, are the outer ring.
A folder restored from a backup has forgotten floors: `retention.destruction` repeats `destroy_devices` and
`destroy_months` before it is used, at every start of the service and in every sweep.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from storage._key_accounts import (
    account_keys_made,
    destroy_account_keys,
    keep_account_keys,
    read_account_keys,
)
from storage._key_backup import copy_key_store
from storage._key_database import KeyDatabase, whole_number
from storage._key_files import (
    TOKENS_MAGIC,
    check_private,
    corrupt,
    read_key_file,
)
from storage._key_folder import make_folder, write_new_store
from storage._key_inventory import count_of_devices, every_key, take_inventory
from storage._key_rotation import rotate
from storage._key_tables import ZEROS, current_wrapping_key, month_floor_of, months_of
from storage._key_wrapping import WRAPPED_BYTES, WrappingKeys
from storage.errors import CorruptError, NotFound
from storage.open_files import Version, version
from storage.vault import (
    KEY_BYTES,
    MAX_IDS_PER_CALL,
    AccountKeyFacts,
    Inventory,
    KeyCount,
    KeyId,
    Outcome,
    Progress,
    Rotation,
    Vault,
    check_size,
    checked_account_ids,
    checked_floors,
    checked_id,
    faultless,
    key_destroyed,
)

__all__ = ["MAX_IDS_PER_CALL", "Inventory", "KeyCount", "KeyId", "KeyStore", "Outcome", "Rotation"]

DESTROY_BATCH_ROWS = 20_000
"""Rows that leave a month's table in one transaction, so that workers are never locked out for long."""

_EPOCH_FLOOR = "SELECT coalesce((SELECT lowest_epoch FROM floors WHERE device = ?), 0)"

R = TypeVar("R")


class KeyStore(Vault):
    """The vault in a folder. Make one with `create` or `open`.

    A write costs one fsync. One connection serves all threads in turn under a lock, which SQLite's own write lock would
    impose anyway.
    """

    def __init__(self, folder: Path, database: KeyDatabase, token_secret: bytes) -> None:
        super().__init__()
        self._folder = folder
        self._database = database
        self._token_secret = token_secret
        self._wrapping_keys = WrappingKeys(folder / "master.key")
        self._seen: list[Version | None] = []

    @classmethod
    def create(cls, folder: Path) -> KeyStore:
        """Make a key store with fresh random secrets, and open it. All of it appears at once or, after a
        crash, not at all.

        Raises:
            CallerError: `key_store_exists`: the folder is there and not empty; it is left as it is.
            WorldError: no space or no permission.
        """
        make_folder(folder, write_new_store)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, *, busy_timeout_s: float = 5.0) -> KeyStore:
        """Open an existing key store.

        Args:
            folder: what `create` made.
            busy_timeout_s: longest wait for another process's transaction. Those last well under 0.5 s, so the
                default is there for a disk that hangs, not for load.

        Raises:
            NotFound: `key_store_missing`: no such folder.
            CallerError: `key_store_permissions`: a key file may be read by others.
            CorruptError: a file is missing, cut, corrupt, or of another key store.
        """
        if not folder.is_dir():
            raise NotFound(
                "there is no key store; `clipkeep init` makes one",
                subject=str(folder),
                code="key_store_missing",
            )
        token_secret = read_key_file(folder / "tokens.key", TOKENS_MAGIC)[-1][1]
        check_private(folder / "keys.db")
        database = KeyDatabase(folder / "keys.db", busy_timeout_s=busy_timeout_s)
        store = cls(folder, database, token_secret)
        try:
            store._database.check_format()
            _again_if_corrupt(lambda: store._check_wrapping_key(store._wrapping_keys))
        except BaseException:
            store.close()
            raise
        return store

    def require_files(self) -> None:
        """keys.db is the file that is open, and the files beside it hold what this process wraps keys and makes tokens
        with. Making a key raises `key_store_replaced` too."""
        self._database.require_files()
        now = [version(self._folder / name) for name in ("tokens.key", "master.key")]
        if now == self._seen:
            return
        tokens = read_key_file(self._folder / "tokens.key", TOKENS_MAGIC)
        if tokens[-1][1] != self._token_secret:
            raise corrupt(
                self._folder / "tokens.key", "it is not the file that this process was started with"
            )
        _again_if_corrupt(lambda: self._check_wrapping_key(WrappingKeys(self._folder / "master.key")))
        self._seen = now

    @property
    def token_secret(self) -> bytes:
        return self._token_secret

    def destroy_devices(self, below_epochs: Mapping[int, int]) -> int:
        checked_floors(below_epochs)
        if not below_epochs:
            return 0
        destroyed = 0
        with self._database.transaction("IMMEDIATE") as connection:
            connection.executemany(
                "INSERT INTO floors VALUES (?, ?) ON CONFLICT (device)"
                " DO UPDATE SET lowest_epoch = max(lowest_epoch, excluded.lowest_epoch)",
                below_epochs.items(),
            )
            for month in months_of(connection):
                destroyed += connection.executemany(
                    # The same length, so that SQLite overwrites in place instead of moving the row.
                    f"UPDATE month_{month} SET wrapped = {ZEROS}"
                    f" WHERE device = ? AND epoch < ? AND wrapped <> {ZEROS}",
                    below_epochs.items(),
                ).rowcount
        self._database.scrub_log()
        return destroyed

    def destroy_months(self, through_month: int) -> int:
        checked_id(KeyId(0, 0, through_month))
        with self._database.transaction("IMMEDIATE") as connection:
            connection.execute("UPDATE state SET month_floor = max(month_floor, ?)", (through_month,))
            doomed = [month for month in months_of(connection) if month <= through_month]
        destroyed = 0
        for month in doomed:
            while (removed := self._remove_batch(month)) is not None:
                destroyed += removed
        self._database.scrub_log()
        return destroyed

    def last_month_destroyed(self) -> int:
        with self._database.transaction("DEFERRED") as connection:
            return month_floor_of(connection)

    def damage(self) -> list[str]:
        try:
            return self._database.damage()
        except CorruptError as error:
            return [str(error)]

    def count(self) -> int:
        with self._database.transaction("DEFERRED") as connection:
            floor = month_floor_of(connection)
            return sum(
                whole_number(
                    connection,
                    f"SELECT count(*) FROM month_{month} WHERE wrapped <> {ZEROS}",
                )
                for month in months_of(connection)
                if month > floor
            )

    def count_of(
        self, devices: Iterable[int], *, below_epochs: Mapping[int, int] | None = None
    ) -> dict[int, KeyCount]:
        wanted = tuple(devices)
        check_size(wanted)
        with self._database.transaction("DEFERRED") as connection:
            return count_of_devices(connection, wanted, below_epochs or {})

    def behind(self, below_epochs: Mapping[int, int]) -> dict[int, int]:
        check_size(below_epochs)
        with self._database.transaction("DEFERRED") as connection:
            return {
                device: epoch
                for device, epoch in below_epochs.items()
                if whole_number(connection, _EPOCH_FLOOR, (device,)) < epoch
            }

    def every_key(self, *, device: int | None = None) -> Iterator[tuple[KeyId, bytes]]:
        return every_key(self._database, self._wrapping_keys, device)

    def inventory(self) -> Inventory:
        with self._database.transaction("DEFERRED") as connection:
            return take_inventory(connection, self._folder / "master.key")

    def rotate(self, progress: Progress = lambda phase, done, of: None) -> Rotation:
        """See `storage._key_rotation`."""
        return rotate(self._database, self._folder / "master.key", self._wrapping_keys, progress)

    def backup(self, folder: Path) -> None:
        make_folder(folder, lambda aside: copy_key_store(self._database, self._folder, aside))

    # --- account keys ---------------------------------------------------------------------------------------------

    def keep_account_keys(self, keys: Mapping[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        checked_account_ids(keys)
        return keep_account_keys(self._database, keys, self._wrapping_keys, now_ms)

    def account_keys(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        def read() -> dict[bytes, bytes]:
            with self._database.transaction("DEFERRED") as connection:
                return read_account_keys(connection, checked_account_ids(ids), self._wrapping_keys)

        return _again_if_corrupt(read)

    def destroy_account_keys(self, ids: Collection[bytes]) -> int:
        return destroy_account_keys(self._database, checked_account_ids(ids))

    def account_keys_made(self, *, after: bytes = b"", limit: int = 1000) -> list[AccountKeyFacts]:
        with self._database.transaction("DEFERRED") as connection:
            return account_keys_made(connection, after, limit)

    def close(self) -> None:
        self._database.close()

    def _outcomes_of(self, wanted: set[KeyId], *, make: bool, partly: bool) -> dict[KeyId, Outcome]:
        outcomes = self._read_settled(wanted)
        missing = wanted - outcomes.keys()
        if not missing or not make or not (partly or faultless(outcomes)):
            return outcomes
        with self._database.transaction("IMMEDIATE") as connection:
            # Read again under the write lock: another process may have made, or destroyed, them since.
            outcomes |= self._read(connection, missing)
            if partly or faultless(outcomes):
                outcomes |= self._make(connection, missing - outcomes.keys())
        return outcomes

    def _check_wrapping_key(self, wrapping_keys: WrappingKeys) -> None:
        with self._database.transaction("DEFERRED") as connection:
            wrapping_keys.cipher(current_wrapping_key(connection))

    def _read_settled(self, ids: Collection[KeyId]) -> dict[KeyId, Outcome]:
        """As `_read`; once more when a row does not unwrap: a rotation may have ended between the two files."""
        with self._database.transaction("DEFERRED") as connection:
            outcomes = self._read(connection, ids)
        if not any(isinstance(outcome, CorruptError) for outcome in outcomes.values()):
            return outcomes
        with self._database.transaction("DEFERRED") as connection:
            return self._read(connection, ids)

    def _read(self, connection: sqlite3.Connection, ids: Collection[KeyId]) -> dict[KeyId, Outcome]:
        """Outcomes of the ids that have a row or were destroyed; the others are left out."""
        month_floor, months = month_floor_of(connection), set(months_of(connection))
        outcomes: dict[KeyId, Outcome] = {}
        for key_id in ids:
            device, epoch, month = key_id
            if month <= month_floor or epoch < whole_number(connection, _EPOCH_FLOOR, (device,)):
                outcomes[key_id] = key_destroyed(key_id)
            elif month in months:
                row = connection.execute(
                    f"SELECT wrapping_key_id, wrapped FROM month_{month} WHERE device = ? AND epoch = ?",
                    (device, epoch),
                ).fetchone()
                if row is not None:
                    outcomes[key_id] = self._unwrapped(key_id, row[0], row[1])
        return outcomes

    def _make(self, connection: sqlite3.Connection, ids: Collection[KeyId]) -> dict[KeyId, bytes]:
        # The current wrapping key is read in the transaction that uses it, so that a process which has not
        # heard of a rotation cannot wrap with a key that is about to be destroyed.
        wrapping_key_id = current_wrapping_key(connection)
        made: dict[KeyId, bytes] = {}
        for month in {key_id.month for key_id in ids}:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS month_{month} (slot INTEGER PRIMARY KEY, device INTEGER NOT NULL,"
                " epoch INTEGER NOT NULL, wrapping_key_id INTEGER NOT NULL, wrapped BLOB NOT NULL,"
                " UNIQUE (device, epoch))"
            )
        for key_id in ids:
            made[key_id] = secrets.token_bytes(KEY_BYTES)
            wrapped = self._wrapping_keys.wrap(wrapping_key_id, key_id, made[key_id])
            connection.execute(
                f"INSERT INTO month_{key_id.month} (device, epoch, wrapping_key_id, wrapped) VALUES (?, ?, ?, ?)",
                (key_id.device, key_id.epoch, wrapping_key_id, wrapped),
            )
        return made

    def _unwrapped(self, key_id: KeyId, wrapping_key_id: object, wrapped: object) -> Outcome:
        if wrapped == bytes(WRAPPED_BYTES):
            return key_destroyed(key_id)
        try:
            return self._wrapping_keys.unwrap(wrapping_key_id, key_id, wrapped)
        except CorruptError as error:
            return error

    def _remove_batch(self, month: int) -> int | None:
        """Remove rows from the front of a month's table; None when the table itself went."""
        with self._database.transaction("IMMEDIATE") as connection:
            if month not in months_of(connection):
                return None  # another process was faster
            first = connection.execute(f"SELECT min(slot) FROM month_{month}").fetchone()[0]
            if first is None:
                connection.execute(f"DROP TABLE month_{month}")
                return None
            bound = (first + DESTROY_BATCH_ROWS,)
            zeroed = f"SELECT count(*) FROM month_{month} WHERE slot < ? AND wrapped = {ZEROS}"
            destroyed_before = int(connection.execute(zeroed, bound).fetchone()[0])
            removed = connection.execute(f"DELETE FROM month_{month} WHERE slot < ?", bound).rowcount
            return removed - destroyed_before


def _again_if_corrupt(check: Callable[[], R]) -> R:
    """A rotation may end between the reading of two files, so what does not fit is looked at twice."""
    try:
        return check()
    except CorruptError:
        return check()
