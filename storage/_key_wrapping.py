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
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage._key_files import MASTER_MAGIC, SECRET_BYTES, corrupt, read_key_file, write_key_file
from storage.errors import CallerError

KEY_BYTES = 32
_NONCE_BYTES = 12
WRAPPED_BYTES = _NONCE_BYTES + KEY_BYTES + 16

_ASSOCIATED = struct.Struct(">16sQIII")
_LABEL = b"clipkeep datakey"
_U32 = range(2**32)


class KeyId(NamedTuple):
    """Which data key: unique for ever, never reused.

    Attributes:
        device: device number, u32.
        epoch: the device's erase epoch, u32; a renewal after an erasure starts with new keys.
        month: yyyymm of the chunk's `expires_on`, so that a month's keys all fall due together.
    """

    device: int
    epoch: int
    month: int

    def __str__(self) -> str:
        return f"key of device {self.device}, epoch {self.epoch}, month {self.month}"


def checked_id(key_id: KeyId) -> KeyId:
    """Return `key_id` when each part is in its range, else raise CallerError."""
    device, epoch, month = key_id
    if device in _U32 and epoch in _U32 and month in range(1970_01, 9999_13) and month % 100 in range(1, 13):
        return key_id
    raise CallerError("device and epoch are u32, month is yyyymm", subject=str(key_id), code="bad_key_id")


def new_wrapping_key() -> tuple[int, bytes]:
    """A fresh random entry of master.key."""
    # The highest bit but one is set: SQLite then takes 8 bytes for every such id, so that a rotation can
    # overwrite rows in place.
    return secrets.randbits(62) | 1 << 62, secrets.token_bytes(SECRET_BYTES)


class WrappingKeys:
    """The wrapping keys of a folder's master.key, read when first needed and again for an id that is new.

    So a process that runs on through a rotation finds the new key by itself. Not for several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
        if wrapping_key_id not in self._ciphers:
            self._ciphers = {number: AESGCM(key) for number, key in read_key_file(self._path, MASTER_MAGIC)}
        if wrapping_key_id not in self._ciphers:
            raise corrupt(
                self._path,
                f"field id: keys.db was written with wrapping key {wrapping_key_id:016x}, which is not here,"
                " so the two files are of different key stores or backups",
            )
        return self._ciphers[wrapping_key_id]

    def wrap(self, wrapping_key_id: int, key_id: KeyId, key: bytes) -> bytes:
        """The `WRAPPED_BYTES` that `unwrap` takes. Raises as `cipher`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self.cipher(wrapping_key_id).encrypt(nonce, key, _associated(wrapping_key_id, key_id))

    def unwrap(self, wrapping_key_id: object, key_id: KeyId, wrapped: object) -> bytes:
        """The data key of a row as it was read.

        Raises:
            CorruptError: it is not what was written for this `key_id`, or as `cipher`.
        """
        if isinstance(wrapping_key_id, int) and wrapping_key_id > 0 and isinstance(wrapped, bytes):
            cipher = self.cipher(wrapping_key_id)
            nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
            try:
                return cipher.decrypt(nonce, sealed, _associated(wrapping_key_id, key_id))
            except (InvalidTag, ValueError):  # ValueError: a nonce cut short
                pass
        raise corrupt(key_id, "keys.db, field wrapped: master.key does not unwrap this row")


def _associated(wrapping_key_id: int, key_id: KeyId) -> bytes:
    return _ASSOCIATED.pack(_LABEL, wrapping_key_id, *key_id)
