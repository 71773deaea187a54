"""E-mail and mobile addresses: one form for each, and the hash that is kept when it is reserved (agreement 6.5.2).
Pure.

One address has one form, so that it can't be registered twice in two spellings. What may be in it is listed, so
control characters and invisible ones are in neither. Where a spelling would become
another's address on the way (`faß.de` is not `fass.de`), it is refused instead.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from storage.errors import CallerError, Unprocessable

MAX_EMAIL_BYTES = 254
"""RFC 5321: a path of 256 less its brackets."""
MAX_LOCAL_BYTES = 64
"""RFC 5321."""
MAX_DOMAIN_CHARS = 253
MAX_TYPED_CHARS = 1000
"""Longer input is not looked into."""
MIN_SECRET_BYTES = 16
EMAIL, MOBILE = "email", "mobile"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LOCAL_ASCII = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~.")
_MOBILE = re.compile(r"\+[1-9][0-9]{6,14}")
_SEPARATORS = re.compile(r"[ ().\-/]")


def normalise_email(text: str) -> str:
    """Return the one form of an e-mail address: NFC, lower case, the domain in its ASCII form.

    Both parts are folded: strictly the receiving host alone knows whether `A` and `a` are one, in practice
    they are, and two accounts under one mailbox would be worse.

    Raises:
        CallerError: `bad_email`.
    """
    text = _trimmed(text, "e-mail address", "bad_email")
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise _bad_email("write it as name@example.org")
    local = unicodedata.normalize("NFC", local.lower())
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise _bad_email("the part before @ can't begin or end with a dot or have two in a row")
    if not all(c in _LOCAL_ASCII or (c > "\x7f" and unicodedata.category(c)[0] in "LMN") for c in local):
        raise _bad_email("the part before @ has a character that can't be there; leave quotes and spaces out")
    address = f"{local}@{_ascii_domain(domain)}"
    if len(local.encode()) > MAX_LOCAL_BYTES or len(address.encode()) > MAX_EMAIL_BYTES:
        raise _bad_email(f"it is longer than {MAX_LOCAL_BYTES} bytes before @ or {MAX_EMAIL_BYTES} in all")
    return address


def normalise_mobile(text: str) -> str:
    """Return the one form of a mobile number, E.164: `+` and 7 to 15 digits. Spaces, dots, hyphens, slashes and
    brackets are left out.

    Raises:
        CallerError: `bad_mobile`; also for a number without its country code, which nobody could guess.
    """
    number = _SEPARATORS.sub("", _trimmed(text, "mobile number", "bad_mobile"))
    if not _MOBILE.fullmatch(number):
        raise Unprocessable(
            "a mobile number is + with the country code and 7 to 15 digits, such as +49 171 2345678",
            code="bad_mobile",
        )
    return number


def normalise(kind: str, text: str) -> str:
    """`normalise_email` or `normalise_mobile`, by kind: "email" or "mobile".

    Raises:
        CallerError: `bad_email`, `bad_mobile`; `bad_address_kind`.
    """
    if kind == EMAIL:
        return normalise_email(text)
    if kind == MOBILE:
        return normalise_mobile(text)
    raise Unprocessable(f"an address is {EMAIL} or {MOBILE}, not {kind!r}", code="bad_address_kind")


def address_hash(secret: bytes, kind: str, address: str) -> bytes:
    """Return 32 bytes that stand for an address without telling it: keyed BLAKE2b. Without the secret nobody can
    try numbers against it.

    Args:
        secret: 16 to 64 bytes, of this installation alone.
        address: as `normalise` gives it.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError("the secret is too short")
    text = f"{kind}\0{address}".encode()
    return blake2b(text, key=secret, digest_size=32, person=b"clipkeep address").digest()


def _trimmed(text: str, what: str, code: str) -> str:
    if len(text) > MAX_TYPED_CHARS:
        raise Unprocessable(f"the {what} is too long; type it anew", code=code)
    return text.strip(" ")


def _ascii_domain(domain: str) -> str:
    domain = unicodedata.normalize("NFC", domain.lower()).removesuffix(".")
    labels = [_ascii_label(label) for label in domain.split(".")]
    if len(labels) < 2 or labels[-1].isdigit():
        raise _bad_email("behind @ belongs a domain name such as example.org")
    name = ".".join(labels)
    if len(name) > MAX_DOMAIN_CHARS:
        raise _bad_email(f"its domain is longer than {MAX_DOMAIN_CHARS} characters")
    return name


def _ascii_label(label: str) -> str:
    """The label as the domain name system has it; refused where that would be read back as another one."""
    try:
        encoded = label.encode("idna").decode("ascii")
        again = encoded.encode("ascii").decode("idna")
        same = again == label or (label == encoded == again.encode("idna").decode("ascii"))
    except UnicodeError:
        same = False
    if not same or not _LABEL.fullmatch(encoded):
        raise _bad_email(f"{label!r} can't be a part of a domain name")
    return encoded


def _bad_email(detail: str) -> CallerError:
    return Unprocessable(f"not an e-mail address: {detail}", code="bad_email")
