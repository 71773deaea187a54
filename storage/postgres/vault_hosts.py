"""The hosts that have the wrapping keys of a vault on PostgreSQL, and how a new one comes to each.

    vault_hosts      one row per master.key: public, name, lasting, vouched_with, vouch, holds, handed, seen_ms,
                     alone_ms
    vault_rotations  one row, of the current wrapping key: wrapping_key_id, since_ms, ended_ms

A host makes a key pair beside its master.key, `host.key`, whose secret half leaves it never. Its row has the public
half, and a MAC of that under a wrapping key: who can write to this database, and has no wrapping key, can name no host.
A new wrapping key is handed over sealed with two secrets together, the one shared with the host's key pair and the
wrapping key before it:

- who has a copy of an earlier master.key, and all that was ever in this database, can't read the new one. So a
  rotation helps after a copy was seen
- who can write to this database can't make one up that the hosts would take

A host takes what was handed to it when it opens the vault and lacks the current one, and every few seconds while it
serves. Then it also drops the earlier ones, once no key is wrapped with them. What was handed to a host stays, the
newest `MAX_HANDED` times.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage._key_files import SECRET_BYTES, read_key_file, write_key_file
from storage.postgres.connection import PostgresConnection, has_table
from storage.sql.connection import Connection

HOST_MAGIC = b"CKHOSTK1"
LIVE_MS = 30_000
"""A host that was heard within this serves, and is waited for."""
MAX_HANDED = 64
"""Records of a host that are kept, the newest: it may be away for so many rotations. Those that it has taken stay, for
a folder that is put back from its backup, or was copied with its machine, takes them again."""
LEFT_OVER = 0
"""Stands in a host's list for wrapping keys in a file that is not overwritten yet. No wrapping key has this id."""
PASSED_MS = 600_000
"""One that is not lasting, and was not heard for so long, is gone, and its master.key with it."""

TABLE = """
CREATE TABLE IF NOT EXISTS vault_hosts (
    public BYTEA PRIMARY KEY, name TEXT NOT NULL, lasting BOOLEAN NOT NULL, vouched_with BIGINT NOT NULL,
    vouch BYTEA NOT NULL, holds BIGINT[] NOT NULL, handed BYTEA NOT NULL, seen_ms BIGINT NOT NULL, alone_ms BIGINT
);
CREATE TABLE IF NOT EXISTS vault_rotations (
    wrapping_key_id BIGINT PRIMARY KEY, since_ms BIGINT NOT NULL, ended_ms BIGINT
);
"""
"""`handed`: records of _HANDED, oldest first. `seen_ms`, `alone_ms`: by this server's clock; since when the host has
the current wrapping key and no other, NULL while it has others. `since_ms`: since when the wrapping key is the current
one, by the same clock; `ended_ms`: since when nothing is wrapped with another, NULL before. No file tells either: a
host that has joined has a new one."""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_HANDED = struct.Struct(f">QQ32s{SECRET_BYTES + 16}s")
"""The wrapping key before it, the new one, a public key of this record alone, the sealed secret."""
_LABEL = b"clipkeep hand over"
_VOUCH_LABEL = b"clipkeep host"

Entry = tuple[int, bytes]
"""Of master.key: id and secret."""


class HostRow(NamedTuple):
    """A host, as the vault knows it."""

    public: bytes
    name: str
    vouched_with: int
    vouch: bytes
    holds: tuple[int, ...]
    """Ids of the wrapping keys in its master.key, by its own word."""
    handed: bytes
    seen_ms: int
    alone_ms: int | None
    now_ms: int

    @property
    def is_live(self) -> bool:
        return self.now_ms - self.seen_ms < LIVE_MS

    def lacks(self, number: int) -> bool:
        return number not in self.holds


def host_key(master: Path) -> X25519PrivateKey:
    """This host's own, made when it is missing. Raises as `read_key_file`, and OSError."""
    path = master.with_name("host.key")
    if not path.exists():
        with suppress(FileExistsError):  # another process of this host was faster
            write_key_file(path, HOST_MAGIC, [(1, X25519PrivateKey.generate().private_bytes_raw())])
    return X25519PrivateKey.from_private_bytes(read_key_file(path, HOST_MAGIC)[0][1])


def public_key(master: Path) -> bytes:
    """By which the vault knows this host. Raises as `host_key`."""
    return host_key(master).public_key().public_bytes_raw()


def require_table(connection: Connection, current: int, rotated_ms: int) -> None:
    """Make the tables in a vault of an earlier release, which one host served: its master.key was written at the end of
    the last rotation, `rotated_ms`."""
    if not (has_table(connection, "vault_rotations") and has_table(connection, "vault_hosts")):
        cast(PostgresConnection, connection).run(TABLE)
        connection.execute(
            "INSERT INTO vault_rotations VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (current, rotated_ms, rotated_ms),
        )


def begin_current(connection: Connection, current: int, *, has_ended: bool = False) -> None:
    """Note that a wrapping key is the current one from now on, in the transaction that makes it so: every host has the
    earlier one until it says otherwise.

    Args:
        has_ended: nothing is wrapped with another one.
    """
    connection.execute("DELETE FROM vault_rotations")
    connection.execute(
        f"INSERT INTO vault_rotations VALUES (?, {_NOW}, CASE WHEN ? = 1 THEN {_NOW} END)",
        (current, has_ended),
    )
    connection.execute("UPDATE vault_hosts SET alone_ms = NULL")


def end_rotation(connection: Connection, current: int) -> None:
    """Note that nothing is wrapped with another wrapping key than the current one."""
    connection.execute(
        f"UPDATE vault_rotations SET ended_ms = coalesce(ended_ms, {_NOW}) WHERE wrapping_key_id = ?",
        (current,),
    )


def rotation_of(connection: Connection, current: int) -> tuple[int, int | None] | None:
    """`since_ms` and `ended_ms` of the current wrapping key. None: no host of this release has served the vault yet."""
    if not has_table(connection, "vault_rotations"):
        return None
    row = connection.execute(
        "SELECT since_ms, ended_ms FROM vault_rotations WHERE wrapping_key_id = ?", (current,)
    ).fetchone()
    return None if row is None else (int(row[0]), row[1])


def rows_of(connection: Connection) -> list[HostRow]:
    """All hosts, by name."""
    if not has_table(connection, "vault_hosts"):
        return []
    found = connection.execute(
        f"SELECT public, name, vouched_with, vouch, holds, handed, seen_ms, alone_ms, {_NOW} FROM vault_hosts"
        " ORDER BY name, public"
    ).fetchall()
    return [
        HostRow(bytes(public), name, int(with_), bytes(vouch), tuple(holds), bytes(handed), *moments)
        for public, name, with_, vouch, holds, handed, *moments in found
    ]


def drop_passing(connection: Connection) -> None:
    """Take hosts from the list that are gone, and were not lasting."""
    connection.execute(f"DELETE FROM vault_hosts WHERE NOT lasting AND seen_ms < {_NOW} - {PASSED_MS}")


def note(
    connection: Connection,
    key: X25519PrivateKey,
    name: str,
    entries: Sequence[Entry],
    current: int,
    *,
    left_over: bool,
    lasting: bool,
    serves: bool,
) -> bytes:
    """Say that this host is there and which wrapping keys it has. Returns what was handed to it.

    Args:
        left_over: a file that was replaced lies beside its master.key, and is not overwritten yet.
    """
    public, holds = key.public_key().public_bytes_raw(), [number for number, _ in entries]
    has_current = current in holds
    holds = [*([LEFT_OVER] if left_over else []), *holds]
    # With the current wrapping key, which every host has that can rotate; one that is to become current few have. Who
    # lacks it was away, and stays vouched for by whoever handed it over.
    number, secret = next((entry for entry in entries if entry[0] == current), entries[-1])
    connection.execute(
        "INSERT INTO vault_hosts AS h"
        f" VALUES (?, ?, ? = 1, ?, ?, ?::bigint[], '', {_NOW} - ?,"
        # A host that has joined never had an earlier one: it adds no time to the rotation.
        " (SELECT ended_ms FROM vault_rotations WHERE wrapping_key_id = ? AND ? = 1))"
        " ON CONFLICT (public) DO UPDATE SET name = excluded.name, lasting = excluded.lasting,"
        + (" vouched_with = excluded.vouched_with, vouch = excluded.vouch," if has_current else "")
        + " holds = excluded.holds, seen_ms = excluded.seen_ms,"
        " alone_ms = CASE WHEN excluded.alone_ms IS NOT NULL THEN"
        f" coalesce(h.alone_ms, CASE WHEN h.holds = excluded.holds THEN excluded.alone_ms ELSE {_NOW} END) END",
        (
            public,
            name,
            lasting,
            number,
            _vouch(secret, public),
            holds,
            0 if serves else LIVE_MS,
            current,
            holds == [current],
        ),
    )
    return handed_to(connection, public)


def is_alone(connection: Connection, public: bytes, current: int) -> None:
    """Note that a host has dropped all wrapping keys but the current one; nothing when it is not known."""
    connection.execute(
        f"UPDATE vault_hosts SET holds = ?::bigint[], alone_ms = {_NOW} WHERE public = ?", ([current], public)
    )


def handed_to(connection: Connection, public: bytes) -> bytes:
    """What was handed to a host; nothing when it is not known."""
    row = connection.execute("SELECT handed FROM vault_hosts WHERE public = ?", (public,)).fetchone()
    return b"" if row is None else bytes(row[0])


def hand(connection: Connection, row: HostRow, entries: Sequence[Entry], target: int) -> bool:
    """Hand wrapping key `target` to a host, if it lacks that. Returns False when no wrapping key that is here vouches
    for it: it was never a host."""
    secrets = dict(entries)
    if not _is_vouched_for(row, secrets):
        return False
    records = list(_HANDED.iter_unpack(row.handed))
    if row.lacks(target) and row.vouched_with != target and all(record[1] != target for record in records):
        before = (row.vouched_with, secrets[row.vouched_with])
        records.append(_sealed(row.public, before, (target, secrets[target])))
        handed = b"".join(_HANDED.pack(*record) for record in records[-MAX_HANDED:])
        connection.execute("UPDATE vault_hosts SET handed = ? WHERE public = ?", (handed, row.public))
    return True


def vouch_for(connection: Connection, rows: Sequence[HostRow], entries: Sequence[Entry], target: int) -> None:
    """Vouch for these hosts with wrapping key `target`, which becomes current in this transaction: who has only that
    hands the next one to those that are away, this host among them."""
    secrets = dict(entries)
    connection.executemany(
        "UPDATE vault_hosts SET vouched_with = ?, vouch = ? WHERE public = ?",
        [
            (target, _vouch(secrets[target], row.public), row.public)
            for row in rows
            if _is_vouched_for(row, secrets)
        ],
    )


def _is_vouched_for(row: HostRow, secrets: Mapping[int, bytes]) -> bool:
    vouching = secrets.get(row.vouched_with)
    return vouching is not None and hmac.compare_digest(row.vouch, _vouch(vouching, row.public))


def opened(key: X25519PrivateKey, handed: bytes, entries: Sequence[Entry]) -> list[Entry]:
    """The wrapping keys that were handed over and are not among these, oldest first. What does not open was not made
    by a host of this vault, and is passed over."""
    secrets, public, found = dict(entries), key.public_key().public_bytes_raw(), []
    if len(handed) % _HANDED.size:
        return []
    for before, number, ephemeral, sealed in _HANDED.iter_unpack(handed):
        if number in secrets or before not in secrets:
            continue
        told = _told(before, number, public, ephemeral)
        try:
            shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            secrets[number] = AESGCM(_derived(shared, secrets[before], told)).decrypt(bytes(12), sealed, told)
        except (InvalidTag, ValueError):  # ValueError: a point that no key pair has
            continue
        found.append((number, secrets[number]))
    return found


def forget(connection: Connection, name: str) -> Mapping[str, int]:
    """Take the hosts of this name that are away from the list. Returns names and when they were last heard."""
    gone = {row.name: row.seen_ms for row in rows_of(connection) if row.name == name and not row.is_live}
    connection.execute(f"DELETE FROM vault_hosts WHERE name = ? AND seen_ms < {_NOW} - {LIVE_MS}", (name,))
    return gone


def _sealed(public: bytes, before: Entry, fresh: Entry) -> tuple[int, int, bytes, bytes]:
    once = X25519PrivateKey.generate()
    ephemeral = once.public_key().public_bytes_raw()
    told = _told(before[0], fresh[0], public, ephemeral)
    key = _derived(once.exchange(X25519PublicKey.from_public_bytes(public)), before[1], told)
    # Each key seals one text only, so the nonce may be fixed.
    return before[0], fresh[0], ephemeral, AESGCM(key).encrypt(bytes(12), fresh[1], told)


def _told(before: int, number: int, public: bytes, ephemeral: bytes) -> bytes:
    return struct.pack(">18sQQ32s32s", _LABEL, before, number, public, ephemeral)


def _derived(secret: bytes, salt: bytes, label: bytes) -> bytes:
    return HKDF(hashes.SHA256(), SECRET_BYTES, salt, label).derive(secret)


def _vouch(wrapping_key: bytes, public: bytes) -> bytes:
    return hmac.digest(_derived(wrapping_key, b"", _VOUCH_LABEL), public, "sha256")
