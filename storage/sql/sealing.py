"""Texts about people, encrypted with a key of their account, so that an account is erased by overwriting 32 bytes.

Deleting rows is not enough: when SQLite splits or merges pages it leaves copies of rows in their unused parts, which
`secure_delete` does not reach (in one account of a hundred, after some churn). Keys are safe from that: their table
only grows at its end, where nothing is moved, and an overwritten key has the length of the old one.

    sealed text   nonce 12 bytes, AES-256-GCM ciphertext of the UTF-8 text, tag 16 bytes; nothing for the empty text
    associated    "table.column"

Accounts are looked up by address under 16 bits of a keyed hash: enough to find a few candidates, too few to tell an
address by.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.errors import CallerError, CatalogCorrupt
from storage.sql.connection import Connection

KEY_BYTES = 32
NONCE_BYTES = 12
DESTROYED = bytes(KEY_BYTES)
NOBODY = 0
"""The number under which the catalog's own key is kept: that of hashes."""


def add_key(connection: Connection, account: int) -> bytes:
    """Make the key of a new account. Accounts are numbered upwards, so it goes to the end of the table."""
    key = secrets.token_bytes(KEY_BYTES)
    connection.execute("INSERT INTO account_keys VALUES (?, ?)", (account, key))
    return key


def key_of(connection: Connection, account: int) -> bytes | None:
    """The key of an account; None when there is no such account any more."""
    row = connection.execute("SELECT key FROM account_keys WHERE account = ?", (account,)).fetchone()
    return None if row is None or row[0] == DESTROYED else row[0]


def destroy_key(connection: Connection, account: int) -> None:
    """Overwrite it, in its place in the page: a row that goes could make neighbours move."""
    connection.execute("UPDATE account_keys SET key = ? WHERE account = ?", (DESTROYED, account))


def seal(key: bytes, place: str, text: str) -> bytes:
    """Encrypt a text for a column, `place` being "table.column". Raises CallerError `bad_text`: half a character."""
    if not text:
        return b""
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        raise CallerError(
            "a text with half a character (a lone surrogate)", subject=place, code="bad_text"
        ) from None
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, place.encode())


def unseal(key: bytes | None, place: str, sealed: bytes) -> str:
    """The text. Raises CatalogCorrupt when it was not sealed with this key for this place."""
    if not sealed:
        return ""
    try:
        if key is None:  # a row of an account that has none
            raise InvalidTag
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise CatalogCorrupt(
            f"{place} was not sealed with its account's key; restore the catalog from a backup", subject=place
        ) from error


def keyed_hash(connection: Connection, purpose: str, text: str, size: int) -> bytes:
    """`size` bytes of a hash of a text that only who has this catalog can compute. `purpose`: at most 16 bytes."""
    secret = key_of(connection, NOBODY)
    assert secret is not None, "the schema makes it"
    return hashlib.blake2b(text.encode(), digest_size=size, key=secret, person=purpose.encode()).digest()


def bucket(connection: Connection, kind: str, address: str | None) -> int | None:
    """Where an account with this address is looked up: 0 to 65535. None without an address."""
    return None if address is None else int.from_bytes(keyed_hash(connection, kind, address, 2), "big")
