"""Names of data keys, and their wrapping by the keys in master.key.

Wrapping is AES-256-GCM, `nonce 12s, ciphertext 32s, tag 16s`, with the key id and the wrapping key id as
associated data. AES-KWP (RFC 5649) would save the nonce, but it authenticates nothing beside the key: a row moved
to another device would unwrap without complaint. Random 96-bit nonces are safe for 2^32 keys per wrapping key
(NIST SP 800-38D, 8.3), which is 10 million devices for 35 years, and a rotation starts anew.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage._key_files import (
    MASTER_MAGIC,
    RESTORE_DATABASE,
    RESTORE_FOLDER,
    SECRET_BYTES,
    corrupt,
    read_key_file,
    write_key_file,
)
from storage.vault import ACCOUNT_KEY_ID_BYTES, KEY_BYTES, KeyId

_NONCE_BYTES = 12
WRAPPED_BYTES = _NONCE_BYTES + KEY_BYTES + 16

_ASSOCIATED = struct.Struct(">16sQIII")
_LABEL = b"clipkeep datakey"
_ACCOUNT = struct.Struct(f">16sQ{ACCOUNT_KEY_ID_BYTES}s")
_ACCOUNT_LABEL = b"clipkeep account"
_SECRET = struct.Struct(">16sQ16s")
_SECRET_LABEL = b"clipkeep secret"

Name = KeyId | bytes | str
"""Of what is wrapped: a data key, the id of an account key, or the name of another secret."""


def new_wrapping_key() -> tuple[int, bytes]:
    """A fresh random entry of master.key."""
    # The highest bit but one is set: SQLite then takes 8 bytes for every such id, so that a rotation can
    # overwrite rows in place.
    return secrets.randbits(62) | 1 << 62, secrets.token_bytes(SECRET_BYTES)


_FOLDERS_ROWS = "keys.db"


class WrappingKeys:
    """The wrapping keys of a folder's master.key, read when first needed and again for an id that is new.

    So a process that runs on through a rotation finds the new key by itself. Not for several threads at once.
    """

    def __init__(self, path: Path, rows: str = _FOLDERS_ROWS) -> None:
        """`rows`: what errors call the database whose rows these keys wrap."""
        self._path = path
        self._rows = rows
        self._ciphers: dict[int, AESGCM] = {}

    @staticmethod
    def create(path: Path) -> int:
        """Write a master.key with one fresh random key, and return its id."""
        entry = new_wrapping_key()
        write_key_file(path, MASTER_MAGIC, [entry])
        return entry[0]

    def forget(self) -> None:
        """Drop what is in memory; the next use reads the file."""
        self._ciphers = {}

    def cipher(self, wrapping_key_id: int) -> AESGCM:
        """The wrapping key of this id.

        Raises:
            CorruptError: master.key does not hold it, or is cut or corrupt itself.
            CallerError, WorldError: as `read_key_file`.
        """
        ciphers = self._ciphers  # another thread may forget them
        if wrapping_key_id not in ciphers:
            ciphers = {number: AESGCM(key) for number, key in read_key_file(self._path, MASTER_MAGIC)}
            self._ciphers = ciphers
        if wrapping_key_id not in ciphers:
            raise corrupt(
                self._path,
                f"field id: {self._rows} was written with wrapping key {wrapping_key_id:016x}, which is not here,"
                " so the two are of different key stores or backups",
                RESTORE_FOLDER if self._rows == _FOLDERS_ROWS else RESTORE_DATABASE,
            )
        return ciphers[wrapping_key_id]

    def wrap(self, wrapping_key_id: int, name: Name, key: bytes) -> bytes:
        """The `WRAPPED_BYTES` that `unwrap` takes. Raises as `cipher`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self.cipher(wrapping_key_id).encrypt(nonce, key, _associated(wrapping_key_id, name))

    def unwrap(self, wrapping_key_id: object, name: Name, wrapped: object) -> bytes:
        """The key of a row as it was read.

        Raises:
            CorruptError: it is not what was written for this name, or as `cipher`.
        """
        if isinstance(wrapping_key_id, int) and wrapping_key_id > 0 and isinstance(wrapped, bytes):
            cipher = self.cipher(wrapping_key_id)
            nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
            try:
                return cipher.decrypt(nonce, sealed, _associated(wrapping_key_id, name))
            except (InvalidTag, ValueError):  # ValueError: a nonce cut short
                pass
        raise corrupt(_told(name), f"{self._rows}, field wrapped: master.key does not unwrap this row")


def _associated(wrapping_key_id: int, name: Name) -> bytes:
    if isinstance(name, KeyId):
        return _ASSOCIATED.pack(_LABEL, wrapping_key_id, *name)
    if isinstance(name, bytes):
        return _ACCOUNT.pack(_ACCOUNT_LABEL, wrapping_key_id, name)
    return _SECRET.pack(_SECRET_LABEL, wrapping_key_id, name.encode())


def _told(name: Name) -> str:
    return f"account key {name.hex()}" if isinstance(name, bytes) else str(name)
