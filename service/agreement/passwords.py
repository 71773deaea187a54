"""Passwords: Argon2id (RFC 9106), and what is asked of a new one.

Hashing takes 64 MiB and 0.2 s of CPU on purpose: never inside a transaction, and in the API on few threads
(`[agreement] hash_threads`).
"""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.agreement.desk import Desk
from service.agreement.errors import Unprocessable

MAX_PASSWORD_BYTES = 1024
"""Longer than any that a person or a password manager makes; what is longer costs us memory for nothing."""


def hashed(desk: Desk, password: str) -> str:
    """The hash to keep of a new password.

    Raises:
        Unprocessable: `bad_password`, too short, too long, or not to be encoded.
    """
    return PasswordHasher.from_parameters(desk.hashing).hash(_new(desk, password))


def verified(desk: Desk, kept: str, password: str) -> bool:
    """Whether it is the password of this hash. For an account that is not there, `kept` is empty: that takes as long
    as for one that is, so that the time tells nothing."""
    hasher = PasswordHasher.from_parameters(desk.hashing)
    given = _encoded(password)
    if given is None:
        return False
    if not kept:
        hasher.hash(given)
        return False
    try:
        return hasher.verify(kept, given)
    except (VerificationError, InvalidHashError):
        return False


def outdated(desk: Desk, kept: str) -> bool:
    """Whether the hash was made with other parameters than today's, and is to be made anew at the next log-in."""
    return PasswordHasher.from_parameters(desk.hashing).check_needs_rehash(kept)


def _new(desk: Desk, password: str) -> bytes:
    least = desk.settings.min_password_chars
    encoded = _encoded(password)
    if encoded is None or len(unicodedata.normalize("NFC", password)) < least:
        raise Unprocessable(
            f"a password has at least {least} characters and at most {MAX_PASSWORD_BYTES} bytes",
            code="bad_password",
        )
    return encoded


def _encoded(password: str) -> bytes | None:
    """As it is hashed: NFC, so that the same password typed on two systems is the same (RFC 8265). None: no text, or
    too long."""
    if len(password) > MAX_PASSWORD_BYTES:
        return None
    try:
        encoded = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return None
    return encoded if len(encoded) <= MAX_PASSWORD_BYTES else None
