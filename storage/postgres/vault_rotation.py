"""Rotating the wrapping key of a vault on PostgreSQL: the steps of `storage._key_rotation`.

    1 begin    master.key gets a second, new entry, and it is handed to every host
    2 hand     when those that serve have it, `vault_state` names it as current: new keys take it
    3 re-wrap  rows of the old one, in bounded batches
    4 retire   nothing is wrapped with the old one any more: master.key is replaced by one without it, and the bytes of
               the old file are overwritten. Each host does so with its own

Each step is one transaction, and what is left to do can be seen in master.key and the rows: a rotation that was killed
goes on where it stood, from whichever host, and two at once do the work of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from storage._key_files import (
    MASTER_MAGIC,
    corrupt,
    has_leftovers,
    read_key_file,
    replace_key_file,
    shred_leftovers,
    unavailable,
)
from storage._key_wrapping import Name, WrappingKeys, new_wrapping_key
from storage.errors import CorruptError, WorldError
from storage.postgres.connection import has_table
from storage.postgres.vault_database import (
    KEYS_LOCK,
    VaultDatabase,
    exclusive,
    month_table,
    months_of,
    state,
)
from storage.postgres.vault_hosts import (
    HostRow,
    begin_current,
    drop_passing,
    end_rotation,
    hand,
    handed_to,
    host_key,
    is_alone,
    note,
    opened,
    public_key,
    require_table,
    rows_of,
    vouch_for,
)
from storage.sql.connection import Connection
from storage.vault import KeyId, Progress, Rotation

REWRAP_BATCH_ROWS = 2000
"""Rows of one transaction, while others wait."""
LOOKS, LOOK_EVERY_S = 120, 0.5
"""For the hosts that serve, at both ends of a rotation. Each looks every few seconds."""
_OTHERWISE = "wrapping_key_id <> ? AND wrapped IS NOT NULL"


def rotate(
    database: VaultDatabase,
    master: Path,
    wrapping_keys: WrappingKeys,
    progress: Progress,
    pause: Callable[[float], None] = time.sleep,
) -> Rotation:
    """Carry out a rotation, or the rest of one.

    Raises:
        WorldError: `hosts_lack_key`: hosts that serve did not take the new key within LOOKS * LOOK_EVERY_S.
        CorruptError: rows that master.key does not unwrap. All others are re-wrapped and the old key stays.
        WorldError, CallerError: as `Vault`. Call again to go on.
    """
    try:
        before, target, resumed = _begin(database, master, wrapping_keys)
        current = _hand(database, master, before, target, progress, pause)
        wrapping_keys.forget()  # what is in memory may be of before
        rewrapped, unreadable = _rewrap_all(database, current, wrapping_keys, progress)
        if unreadable is not None:
            raise unreadable
        retired = _retire(database, master, current)
        waiting_for = _drops(database, current, progress, pause)
    except OSError as error:
        raise unavailable(master, error) from error
    wrapping_keys.forget()
    return Rotation(current, resumed, rewrapped, retired, waiting_for)


def _begin(database: VaultDatabase, master: Path, wrapping_keys: WrappingKeys) -> tuple[int, int, bool]:
    """Make a new wrapping key and hand it to every host, in one step; or go on with one that is there already, made
    here or handed to this host. Two that were made at once would each become current without hosts that know only the
    other.

    Returns:
        The current wrapping key, the one to rotate to, and whether that was there already.

    Raises:
        CorruptError: this host lacks the current one.
    """
    with database.hold() as connection:  # never tried again by itself: the file is no part of the transaction
        connection.execute(exclusive(KEYS_LOCK))
        require_table(connection, state(connection)[0], written_ms(master))
        unfinished = shred_leftovers(master)  # the last step of the last rotation, when that was killed in it
        entries = _with_handed(connection, master)
        current = state(connection)[0]
        if all(number != current for number, _ in entries):
            wrapping_keys.cipher(current)  # raises
        resumed = unfinished or len(entries) > 1
        if not resumed:
            entries.append(new_wrapping_key())
        if entries != read_key_file(master, MASTER_MAGIC):
            replace_key_file(master, MASTER_MAGIC, entries)
        target = entries[-1][0]
        for row in _others(connection, master):
            hand(connection, row, entries, target)
        return current, target, resumed


def _hand(
    database: VaultDatabase,
    master: Path,
    before: int,
    target: int,
    progress: Progress,
    pause: Callable[[float], None],
) -> int:
    """Hand the new wrapping key to hosts that came since, and have it current once those that serve have it.

    Returns:
        The current one: of another rotation, when that was faster.
    """
    for _ in range(LOOKS):
        with database.hold() as connection:
            connection.execute(exclusive(KEYS_LOCK))
            current = state(connection)[0]
            if current == target or current != before:
                return current  # an earlier rotation is being finished, or another one was faster
            entries = read_key_file(master, MASTER_MAGIC)
            others = _others(connection, master)
            handed = [row for row in others if hand(connection, row, entries, target)]
            serving = [row for row in handed if row.is_live]
            lacking = [row.name for row in serving if row.lacks(target)]
            if not lacking:
                connection.execute("UPDATE vault_state SET wrapping_key_id = ?", (target,))
                vouch_for(connection, [*handed, *_mine(connection, master)], entries, target)
                begin_current(connection, target)
                return target
        progress("hosts take the new key", len(serving) - len(lacking), len(serving))
        pause(LOOK_EVERY_S)
    raise WorldError(
        f"{', '.join(lacking)}: not there yet, and the old wrapping key goes on being used. Look at the log of these"
        " hosts, and run `clipkeep keys rotate` again: it goes on where it stood",
        subject=str(master),
        code="hosts_lack_key",
    )


def _others(connection: Connection, master: Path) -> list[HostRow]:
    mine = public_key(master)
    return [row for row in rows_of(connection) if row.public != mine]


def _mine(connection: Connection, master: Path) -> list[HostRow]:
    mine = public_key(master)
    return [row for row in rows_of(connection) if row.public == mine]


def _with_handed(connection: Connection, master: Path) -> list[tuple[int, bytes]]:
    """The wrapping keys of this host, and what was handed to it."""
    before = read_key_file(master, MASTER_MAGIC)
    return before + opened(host_key(master), handed_to(connection, public_key(master)), before)


def _drops(
    database: VaultDatabase, current: int, progress: Progress, pause: Callable[[float], None]
) -> tuple[str, ...]:
    """Wait until the hosts that serve have dropped the earlier wrapping keys. Returns the names of those that have
    not, and of those that are away."""
    for _ in range(LOOKS):
        if database.reading(state)[0] != current:
            return ()  # the next rotation waits for them
        rows = database.reading(rows_of)
        left = [row for row in rows if row.holds != (current,)]
        serving = [row for row in left if row.is_live]
        if not serving:
            break
        progress("hosts drop the old key", len(rows) - len(serving), len(rows))
        pause(LOOK_EVERY_S)
    return tuple(row.name for row in left)


def written_ms(master: Path) -> int:
    """When this host's master.key was written, Unix ms. Raises OSError."""
    return master.stat().st_mtime_ns // 1_000_000


def keep_up(database: VaultDatabase, master: Path, name: str, *, lasting: bool, serves: bool) -> bool:
    """Say that this host is there; take wrapping keys that were handed to it, and drop those that are over. Returns
    whether master.key was replaced. Raises as `Vault`."""
    try:
        key, entries = host_key(master), read_key_file(master, MASTER_MAGIC)

        def noted(connection: Connection) -> tuple[int, bytes]:
            current = state(connection)[0]
            require_table(connection, current, written_ms(master))
            drop_passing(connection)
            left = has_leftovers(master)
            return current, note(
                connection, key, name, entries, current, left_over=left, lasting=lasting, serves=serves
            )

        current, handed = database.making(noted)
        todo = opened(key, handed, entries) or has_leftovers(master)
        if not todo and not _has_earlier(entries, current):
            return False
        is_other = _follow(database, master)
        entries = read_key_file(master, MASTER_MAGIC)
        database.making(noted)
    except OSError as error:
        raise unavailable(master, error) from error
    return is_other


def _has_earlier(entries: Sequence[tuple[int, bytes]], current: int) -> bool:
    """Whether there are wrapping keys before the current one. Those behind it are to become current."""
    return any(number == current for number, _ in entries[1:])


def _follow(database: VaultDatabase, master: Path) -> bool:
    """Take what was handed to this host, and drop what is over. Returns whether there was any."""
    with database.hold() as connection:
        connection.execute(exclusive(KEYS_LOCK))
        if not has_table(connection, "vault_hosts"):
            return False
        shred_leftovers(master)
        before = read_key_file(master, MASTER_MAGIC)
        entries = _with_handed(connection, master)
        current = state(connection)[0]
        if _has_earlier(entries, current) and not _left(connection, current):
            entries = entries[[number for number, _ in entries].index(current) :]
        if entries != before:
            replace_key_file(master, MASTER_MAGIC, entries)
        return entries != before


def take_missing(database: VaultDatabase, master: Path) -> None:
    """Take the current wrapping key, where it was handed to this host while that was away. Raises as `Vault`."""
    try:
        current = database.reading(state)[0]
        if all(number != current for number, _ in read_key_file(master, MASTER_MAGIC)):
            _follow(database, master)
    except OSError as error:
        raise unavailable(master, error) from error


def _tables(connection: Connection) -> list[tuple[str, str, int]]:
    """The tables with wrapped keys: name, columns of the primary key, month."""
    tables = [(month_table(month), "device, epoch", month) for month in months_of(connection)]
    return [("vault_secrets", "name", 0), ("vault_account_keys", "id", 0), *tables]


def _rewrap_all(
    database: VaultDatabase, current: int, wrapping_keys: WrappingKeys, progress: Progress
) -> tuple[int, CorruptError | None]:
    # No row of another id appears from here on: new keys take what `vault_state` says, under the same lock.
    of, done, unreadable = database.reading(lambda c: _left(c, current)), 0, None
    for table in database.reading(_tables):
        after: tuple[object, ...] | None = ()
        while after is not None:
            after, rewrapped, error = _rewrap_batch(database, table, current, after, wrapping_keys)
            done += rewrapped
            unreadable = unreadable or error
            progress("rewrap", done, max(of, done))
    return done, unreadable


def _left(connection: Connection, current: int) -> int:
    """How many keys are wrapped with another key than the current one."""
    return sum(
        int(connection.execute(f"SELECT count(*) FROM {table} WHERE {_OTHERWISE}", (current,)).fetchone()[0])
        for table, _, _ in _tables(connection)
    )


def _rewrap_batch(
    database: VaultDatabase,
    table: tuple[str, str, int],
    current: int,
    after: tuple[object, ...],
    wrapping_keys: WrappingKeys,
) -> tuple[tuple[object, ...] | None, int, CorruptError | None]:
    """Re-wrap rows behind `after`. Returns the last row looked at (None: no more), how many were re-wrapped, and the
    first error."""
    name, key, month = table
    behind = f"AND ({key}) > ({', '.join('?' * len(after))})" if after else ""
    where = " AND ".join(f"{column} = ?" for column in key.split(", "))

    def rewrap(connection: Connection) -> tuple[tuple[object, ...] | None, int, CorruptError | None]:
        if table not in _tables(connection):  # it was destroyed meanwhile
            return None, 0, None
        if state(connection)[0] != current:  # overtaken: hosts drop what this one would wrap with
            return None, 0, None
        rows = connection.execute(
            f"SELECT wrapping_key_id, wrapped, {key} FROM {name} WHERE {_OTHERWISE} {behind}"
            f" ORDER BY {key} LIMIT {REWRAP_BATCH_ROWS}",
            (current, *after),
        ).fetchall()
        first_error, fresh = None, []
        for number, wrapped, *place in rows:
            named: Name = KeyId(place[0], place[1], month) if month else place[0]
            try:
                secret = wrapping_keys.unwrap(number, named, bytes(wrapped))
            except CorruptError as error:
                first_error = first_error or error
                continue
            fresh.append((current, wrapping_keys.wrap(current, named, secret), *place))
        connection.executemany(f"UPDATE {name} SET wrapping_key_id = ?, wrapped = ? WHERE {where}", fresh)
        last = tuple(rows[-1][2:]) if len(rows) == REWRAP_BATCH_ROWS else None
        return last, len(fresh), first_error

    return database.destroying(rewrap)


def _retire(database: VaultDatabase, master: Path, current: int) -> tuple[int, ...]:
    """Destroy all wrapping keys but the current one, once nothing is wrapped with them."""
    with database.hold() as connection:
        connection.execute(exclusive(KEYS_LOCK))
        if state(connection)[0] != current:  # another process went on to the next rotation
            return ()
        if left := _left(connection, current):
            raise corrupt(master, f"{left} keys are still wrapped with an earlier wrapping key")
        end_rotation(connection, current)
        entries = read_key_file(master, MASTER_MAGIC)
        if len(entries) == 1:
            return ()
        keep = [entry for entry in entries if entry[0] == current]
        replace_key_file(master, MASTER_MAGIC, keep)
        is_alone(connection, public_key(master), current)
        return tuple(number for number, _ in entries if number != current)
