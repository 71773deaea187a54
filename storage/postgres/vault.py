"""The vault in a PostgreSQL database of its own, with a user and backups of its own.

Every key in it is wrapped. The wrapping keys lie in `master.key`, a file of the host (mode 0600) that is in no
database. `storage.postgres.vault_database` has the tables and the locks.

**What destruction promises here, and what it cannot.** When a `destroy_…` call returns, the destruction is committed:
no transaction that begins later reads the key, and nobody can make it again. With a synchronous standby that outlives
the loss of the primary. But PostgreSQL overwrites nothing in place. The *wrapped* key stays readable in files: in dead
tuples, until VACUUM ran and new rows took their place; in the write-ahead log and its archive; in replicas and in base
backups. What destroys it for good is the end of the wrapping key:

    `rotate`            wraps the keys that are left anew and drops the old wrapping key from this host's master.key,
                        whose bytes it overwrites. Every host drops it from its own
    the backup window   copies of master.key from before the rotation are deleted after `[retention] key_backup_days`.
                        Until then they lie apart from the copies of the database. They are needed: a database restored
                        to before the rotation is readable with them only

An erasure is *cleared* when both are over. Who has a base backup and no master.key of its time has wrapped keys only;
`erasure verify --backup` shows that on the raw files.

A database restored from a backup has forgotten floors: `retention.destruction` repeats them, as for a folder.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from storage._key_files import MASTER_MAGIC, has_leftovers, read_key_file, unavailable
from storage._key_wrapping import WrappingKeys
from storage.errors import CallerError, CorruptError, NotFound
from storage.open_files import Version, version
from storage.postgres.vault_database import (
    TOKENS,
    VaultDatabase,
    create_tables,
    drop_tables,
    make_month,
    month_table,
    months_of,
    require_no_vault,
    require_tables,
    state,
)
from storage.postgres.vault_hosts import HostRow, forget, public_key, rotation_of, rows_of
from storage.postgres.vault_reports import count_of_devices, damage_of, every_key, take_inventory
from storage.postgres.vault_rotation import keep_up, rotate, take_missing, written_ms
from storage.sql.connection import Connection
from storage.vault import (
    KEY_BYTES,
    AccountKeyFacts,
    Inventory,
    KeyCount,
    KeyHost,
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

R = TypeVar("R")

_FLOORS = (
    "SELECT device, lowest_epoch FROM vault_floors"
    " WHERE device IN (SELECT device FROM unnest(?::bigint[]) AS device)"
)


class PostgresVault(Vault):
    """See the module. Make one with `create` or `open`."""

    def __init__(self, database: VaultDatabase, master_key: Path) -> None:
        super().__init__()
        self._database = database
        self._master_key = master_key
        self._wrapping_keys = WrappingKeys(master_key, "the vault")
        self._seen: Version | None = None
        self._token_secret = b""
        self._closed = False

    @classmethod
    def create(cls, url: str, master_key: Path) -> PostgresVault:
        """Make the tables in an empty database, and `master_key` where there is none, and open it.

        Raises:
            CallerError: `key_store_exists`, `vault_in_catalog`, `not_empty`, `bad_vault_url`.
        """
        database = VaultDatabase(url)
        try:
            require_no_vault(database)
            try:
                if not master_key.exists():
                    WrappingKeys.create(master_key)
            except OSError as error:
                raise unavailable(master_key, error) from error
            newest = read_key_file(master_key, MASTER_MAGIC)[-1][0]
            create_tables(database, newest, WrappingKeys(master_key, "the vault"))
        finally:
            database.close()
        return cls.open(url, master_key)

    @classmethod
    def remove(cls, url: str) -> None:
        """Drop the tables that `create` made, and no others."""
        with closing(VaultDatabase(url)) as database:
            drop_tables(database)

    @classmethod
    def open(cls, url: str, master_key: Path, *, answer_s: float | None = None) -> PostgresVault:
        """Open an existing vault. Arguments and errors are as of `storage.open_vault.open_vault`."""
        vault = cls(VaultDatabase(url, answer_s=answer_s), master_key)
        try:
            require_tables(vault._database)
            _require_master_key(master_key)
            take_missing(vault._database, master_key)
            vault._token_secret = vault._settled(vault._read_token_secret)
        except BaseException:
            vault.close()
            raise
        return vault

    def _read_token_secret(self, connection: Connection) -> bytes:
        self._wrapping_keys.cipher(state(connection)[0])
        row = connection.execute(
            "SELECT wrapping_key_id, wrapped FROM vault_secrets WHERE name = ?", (TOKENS,)
        ).fetchone()
        number, wrapped = row or (0, b"")
        return self._wrapping_keys.unwrap(number, TOKENS, bytes(wrapped))

    @property
    def token_secret(self) -> bytes:
        return self._token_secret

    def require_files(self) -> None:
        """The rows are the server's; master.key is the file that this process wraps keys with, or one that a rotation
        has put in its place."""
        self._require_open()
        now = version(self._master_key)
        if now == self._seen:
            return
        _require_master_key(self._master_key)
        fresh = WrappingKeys(self._master_key, "the vault")
        self._settled(lambda connection: fresh.cipher(state(connection)[0]))
        self._wrapping_keys.forget()  # none that a rotation has ended stays in memory
        self._seen = now

    # --- data keys ------------------------------------------------------------------------------------------------

    def destroy_devices(self, below_epochs: Mapping[int, int]) -> int:
        self._require_open()
        if not checked_floors(below_epochs):
            return 0
        devices, epochs = map(list, zip(*sorted(below_epochs.items()), strict=True))
        floors = "SELECT * FROM unnest(?::bigint[], ?::bigint[]) AS f (device, lowest_epoch)"

        def destroy(connection: Connection) -> int:
            connection.execute(
                f"INSERT INTO vault_floors {floors} ON CONFLICT (device)"
                " DO UPDATE SET lowest_epoch = greatest(vault_floors.lowest_epoch, excluded.lowest_epoch)",
                (devices, epochs),
            )
            return sum(
                connection.execute(
                    f"UPDATE {month_table(month)} k SET wrapped = NULL FROM ({floors}) f"
                    " WHERE k.device = f.device AND k.epoch < f.lowest_epoch AND k.wrapped IS NOT NULL",
                    (devices, epochs),
                ).rowcount
                for month in months_of(connection)
            )

        return self._database.destroying(destroy)

    def destroy_months(self, through_month: int) -> int:
        self._require_open()
        checked_id(KeyId(0, 0, through_month))

        def raise_floor(connection: Connection) -> list[int]:
            connection.execute(
                "UPDATE vault_state SET month_floor = greatest(month_floor, ?)", (through_month,)
            )
            return [month for month in months_of(connection) if month <= through_month]

        def drop(month: int, connection: Connection) -> int:
            if month not in months_of(connection):
                return 0  # another process was faster
            [live] = connection.execute(f"SELECT count(wrapped) FROM {month_table(month)}").fetchone()
            connection.execute(f"DROP TABLE {month_table(month)}")
            connection.execute("DELETE FROM vault_months WHERE month = ?", (month,))
            return int(live)

        destroyed = 0
        for month in self._database.destroying(raise_floor):
            destroyed += self._database.destroying(partial(drop, month))
        return destroyed

    def gone_before(self, window_end_ms: int) -> int:
        """When the current wrapping key became that, once the earlier one was dropped everywhere before the window, so
        that its copies are gone: what was destroyed later may have been wrapped with the one that is at hand."""
        try:
            here = read_key_file(self._master_key, MASTER_MAGIC)
            if len(here) > 1 or has_leftovers(self._master_key):
                return 0  # a rotation is under way
            mine = public_key(self._master_key)
            here_ms = written_ms(self._master_key)
        except OSError as error:
            raise unavailable(self._master_key, error) from error

        def found(connection: Connection) -> tuple[tuple[int, int | None] | None, list[HostRow]]:
            return rotation_of(connection, state(connection)[0]), rows_of(connection)

        rotation, rows = self._database.reading(found)
        since_ms, ended_ms = rotation or (here_ms, here_ms)
        dropped = [ended_ms, *(row.alone_ms for row in rows)]
        if all(row.public != mine for row in rows):
            dropped.append(here_ms)
        known = [moment for moment in dropped if moment is not None]
        # One that is not known: a host has an earlier wrapping key, or something is wrapped with it.
        return since_ms if len(known) == len(dropped) and max(known) <= window_end_ms else 0

    def require_usable(self) -> None:
        super().require_usable()
        self._database.require_room()

    def last_month_destroyed(self) -> int:
        self._require_open()
        return self._database.reading(lambda connection: state(connection)[1])

    def behind(self, below_epochs: Mapping[int, int]) -> dict[int, int]:
        self._require_open()
        check_size(below_epochs)
        floors = self._database.reading(lambda connection: _floors(connection, below_epochs))
        return {device: epoch for device, epoch in below_epochs.items() if floors.get(device, 0) < epoch}

    def count(self) -> int:
        found = self.inventory()
        return sum(count.live for month, count in found.months.items() if month > found.month_floor)

    def count_of(
        self, devices: Iterable[int], *, below_epochs: Mapping[int, int] | None = None
    ) -> dict[int, KeyCount]:
        self._require_open()
        check_size(wanted := tuple(devices))
        return self._database.reading(lambda c: count_of_devices(c, wanted, below_epochs or {}))

    def every_key(self, *, device: int | None = None) -> Iterator[tuple[KeyId, bytes]]:
        self._require_open()
        return every_key(self._database, self._wrapping_keys, device)

    # --- account keys ---------------------------------------------------------------------------------------------

    def keep_account_keys(self, keys: Mapping[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        self._require_open()
        wanted = checked_account_ids(keys)

        def make(connection: Connection) -> None:
            current = state(connection)[0]
            connection.executemany(
                "INSERT INTO vault_account_keys VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (id_, now_ms, current, self._wrapping_keys.wrap(current, id_, key))
                    for id_, key in sorted(keys.items())
                ],
            )

        self._database.making(make)
        return self.account_keys(wanted)

    def account_keys(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        self._require_open()
        wanted = checked_account_ids(ids)

        def read(connection: Connection) -> dict[bytes, bytes]:
            rows = connection.execute(
                "SELECT id, wrapping_key_id, wrapped FROM vault_account_keys"
                " WHERE id IN (SELECT id FROM unnest(?::bytea[]) AS id)",
                (wanted,),
            )
            return {
                bytes(id_): self._wrapping_keys.unwrap(number, bytes(id_), wrapped)
                for id_, number, wrapped in rows.fetchall()
            }

        return self._settled(read)

    def destroy_account_keys(self, ids: Collection[bytes]) -> int:
        self._require_open()
        if not (wanted := checked_account_ids(ids)):
            return 0
        return self._database.destroying(
            lambda connection: (
                connection.execute(
                    "DELETE FROM vault_account_keys WHERE id IN (SELECT id FROM unnest(?::bytea[]) AS id)",
                    (wanted,),
                ).rowcount
            )
        )

    def account_keys_made(self, *, after: bytes = b"", limit: int = 1000) -> list[AccountKeyFacts]:
        self._require_open()
        rows = self._database.reading(
            lambda connection: connection.execute(
                "SELECT id, made_ms FROM vault_account_keys WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
            ).fetchall()
        )
        return [AccountKeyFacts(bytes(id_), made_ms) for id_, made_ms in rows]

    # --- the whole of it ------------------------------------------------------------------------------------------

    def damage(self) -> list[str]:
        self._require_open()
        return damage_of(self._database, self._wrapping_keys)

    def inventory(self) -> Inventory:
        self._require_open()
        return self._database.reading(lambda connection: take_inventory(connection, self._master_key))

    def rotate(self, progress: Progress = lambda phase, done, of: None) -> Rotation:
        """See `storage.postgres.vault_rotation`."""
        self._require_open()
        return rotate(self._database, self._master_key, self._wrapping_keys, progress)

    def keep_up(self, name: str, *, lasting: bool = True, serves: bool = True) -> None:
        self._require_open()
        if keep_up(self._database, self._master_key, name, lasting=lasting, serves=serves):
            self._wrapping_keys.forget()

    def hosts(self) -> list[KeyHost]:
        self._require_open()
        rows = self._database.reading(rows_of)
        return [KeyHost(row.name, row.holds, row.seen_ms, row.is_live) for row in rows]

    def forget_host(self, name: str) -> None:
        self._require_open()
        if not self._database.destroying(lambda connection: forget(connection, name)):
            if any(host.name == name for host in self.hosts()):
                raise CallerError("it serves; stop it first", subject=name, code="host_serves")
            raise NotFound("no such host; `clipkeep keys show` lists them", subject=name, code="no_such_host")

    def backup(self, folder: Path) -> None:
        raise CallerError(
            "this vault is a database: back it up as one (`pg_basebackup`, or `pg_dump` of this database alone), apart"
            f" from the catalog; and copy {self._master_key} to a third place. Delete both copies after"
            " [retention] key_backup_days",
            subject=self._database.subject,
            code="vault_backup",
        )

    def close(self) -> None:
        self._closed = True
        self._database.close()

    # --- making and reading ---------------------------------------------------------------------------------------

    def _outcomes_of(self, wanted: set[KeyId], *, make: bool, partly: bool) -> dict[KeyId, Outcome]:
        self._require_open()
        if not wanted:
            return {}

        def read() -> dict[KeyId, Outcome]:
            """A camera or a viewer waits for it."""
            return self._database.reading(lambda connection: self._read(connection, wanted), waited_for=True)

        outcomes = read()
        if any(isinstance(outcome, CorruptError) for outcome in outcomes.values()):
            outcomes = read()  # a rotation may have ended between rows and master.key
        missing = wanted - outcomes.keys()
        if not missing or not make or not (partly or faultless(outcomes)):
            return outcomes
        return outcomes | self._database.making(lambda connection: self._make(connection, missing, partly))

    def _read(self, connection: Connection, ids: Collection[KeyId]) -> dict[KeyId, Outcome]:
        """Outcomes of the ids that have a row or were destroyed; the others are left out."""
        month_floor, months = state(connection)[1], set(months_of(connection))
        floors = _floors(connection, {key_id.device for key_id in ids})
        outcomes: dict[KeyId, Outcome] = {}
        by_month: dict[int, list[KeyId]] = {}
        for key_id in ids:
            if key_id.month <= month_floor or key_id.epoch < floors.get(key_id.device, 0):
                outcomes[key_id] = key_destroyed(key_id)
            elif key_id.month in months:
                by_month.setdefault(key_id.month, []).append(key_id)
        for month, of_month in by_month.items():
            rows = connection.execute(
                f"SELECT k.device, k.epoch, k.wrapping_key_id, k.wrapped FROM {month_table(month)} k"
                " JOIN unnest(?::bigint[], ?::bigint[]) AS w (device, epoch) USING (device, epoch)",
                ([key_id.device for key_id in of_month], [key_id.epoch for key_id in of_month]),
            )
            for device, epoch, number, wrapped in rows.fetchall():
                key_id = KeyId(device, epoch, month)
                outcomes[key_id] = self._unwrapped(key_id, number, wrapped)
        return outcomes

    def _make(self, connection: Connection, missing: set[KeyId], partly: bool) -> dict[KeyId, Outcome]:
        # The current wrapping key is read under the lock, so that a process which has not heard of a rotation cannot
        # wrap with a key that is about to be destroyed.
        outcomes = self._read(connection, missing)
        if not (partly or faultless(outcomes)):
            return outcomes
        wrapping_key_id, months = state(connection)[0], set(months_of(connection))
        for month in sorted({key_id.month for key_id in missing - outcomes.keys()}):
            if month not in months:
                make_month(connection, month)
            made = sorted(key_id for key_id in missing - outcomes.keys() if key_id.month == month)
            rows = [
                self._wrapping_keys.wrap(wrapping_key_id, key_id, secrets.token_bytes(KEY_BYTES))
                for key_id in made
            ]
            connection.execute(
                f"INSERT INTO {month_table(month)} SELECT device, epoch, {wrapping_key_id:d}, wrapped"
                " FROM unnest(?::bigint[], ?::bigint[], ?::bytea[]) AS w (device, epoch, wrapped)"
                " ON CONFLICT DO NOTHING",  # another process was faster: its keys are the ones
                ([key_id.device for key_id in made], [key_id.epoch for key_id in made], rows),
            )
        return self._read(connection, missing)

    def _unwrapped(self, key_id: KeyId, wrapping_key_id: object, wrapped: bytes | None) -> Outcome:
        if wrapped is None:
            return key_destroyed(key_id)
        try:
            return self._wrapping_keys.unwrap(wrapping_key_id, key_id, bytes(wrapped))
        except CorruptError as error:
            return error

    def _settled(self, read: Callable[[Connection], R]) -> R:
        """Read twice when something does not unwrap: a rotation may have ended between rows and master.key."""
        try:
            return self._database.reading(read)
        except CorruptError:
            return self._database.reading(read)

    def _require_open(self) -> None:
        if self._closed:
            raise CallerError("the vault is closed", subject=self._database.subject, code="key_store_closed")


def _require_master_key(path: Path) -> None:
    if not path.exists():
        raise CorruptError(
            "this file of the host is missing, and the vault can't be read without it: bring it from another host,"
            " or from its backup",
            subject=str(path),
            code="key_store_corrupt",
        )


def _floors(connection: Connection, devices: Collection[int]) -> dict[int, int]:
    return dict(connection.execute(_FLOORS, (sorted(devices),)).fetchall())
