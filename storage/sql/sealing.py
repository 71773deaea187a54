"""Texts about people, encrypted with a key of their account, so that an account is erased by destroying 32 bytes.

Deleting rows is not enough: when SQLite splits or merges pages it leaves copies of rows in their unused parts, which
`secure_delete` does not reach (in one account of a hundred, after some churn), and PostgreSQL overwrites nothing at
all. The keys are in the vault, which destroys them; here is only which account has which.

    account_keys  key_id (16 random bytes), account (NULL: it has ended, or never came to be), destroyed (1: in the
                  vault too). Rows stay: an id that has ended is never given to an account, and a vault that was
                  restored from a backup is told again

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

from storage.account_keys import AccountKeys
from storage.errors import CallerError, CatalogCorrupt
from storage.sql.connection import Connection

NONCE_BYTES = 12
NOBODY = 0
"""The number under which the catalog's own key is kept: that of hashes."""


def give_key(connection: Connection, key_id: bytes, account: int) -> None:
    """Let an account have a key that was made ahead.

    Raises:
        Taken: it was given to another account, or has been destroyed as unused.
    """
    connection.try_execute("INSERT INTO account_keys (key_id, account) VALUES (?, ?)", (key_id, account))


def key_id_of(connection: Connection, account: int) -> bytes | None:
    """The id of the key of an account; None when it has ended, or never was."""
    row = connection.execute("SELECT key_id FROM account_keys WHERE account = ?", (account,)).fetchone()
    return None if row is None else bytes(row[0])


def end_key(connection: Connection, account: int) -> None:
    """The account's key is to be destroyed, once this is committed."""
    connection.execute("UPDATE account_keys SET account = NULL WHERE account = ?", (account,))


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


def sealed_for(connection: Connection, keys: AccountKeys, account: int, place: str, text: str) -> bytes:
    """A text sealed with the key of an account; nothing when the account has ended, and in a catalog that was opened
    without its vault: it is not kept unsealed. Raises as `seal`."""
    key_id = key_id_of(connection, account) if text and keys.has_vault else None
    key = None if key_id is None else keys.of([key_id]).get(key_id)
    return b"" if key is None else seal(key, place, text)


def unseal(key: bytes | None, place: str, sealed: bytes) -> str:
    """The text. Raises CatalogCorrupt when it was not sealed with this key for this place."""
    if not sealed:
        return ""
    try:
        if key is None:  # a row of an account that has ended
            raise InvalidTag
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise CatalogCorrupt(
            f"{place} was not sealed with its account's key; restore the catalog from a backup", subject=place
        ) from error


def keyed_hash(connection: Connection, keys: AccountKeys, purpose: str, text: str, size: int) -> bytes:
    """`size` bytes of a hash of a text that only who has catalog and vault can compute. `purpose`: at most 16 bytes.

    Raises:
        CatalogCorrupt: the vault lacks the key of it.
    """
    key_id = key_id_of(connection, NOBODY)
    assert key_id is not None, "the schema makes it"
    secret = keys.of([key_id]).get(key_id)
    if secret is None:
        raise CatalogCorrupt(
            "the vault has not the key by which accounts are found; restore the vault from its newest backup",
            subject=f"account key {key_id.hex()}",
        )
    return hashlib.blake2b(text.encode(), digest_size=size, key=secret, person=purpose.encode()).digest()


def bucket(connection: Connection, keys: AccountKeys, kind: str, address: str | None) -> int | None:
    """Where an account with this address is looked up: 0 to 65535. None without an address."""
    return None if address is None else int.from_bytes(keyed_hash(connection, keys, kind, address, 2), "big")
