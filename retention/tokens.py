"""Tokens: who a device or a viewer is, told by a MAC alone. Pure: no clock, no database, no list of tokens.

A token is void once the device's token generation (bitmap row) has moved on, and a viewer's or a share link's also once
the viewer generation has: a new password of the owner moves that on, and leaves the camera its token. All kinds are
keyed BLAKE2b, 16 bytes, over a fixed struct, personalised by kind: one kind's MAC never passes as another's, whatever
the bytes. The text form has one spelling only; any other is refused. A share link's token is also void once its row
in the catalog is gone, so whoever has read it asks for that.

    device  ckd_ + base64url(MAC)                                   26 characters
    viewer  ckv_ + base64url(claims, MAC)                           47 characters
    share   cks_ + base64url(claims, MAC)                           68 characters

A viewer's claims are 16 bytes, little-endian: device (4), generation (4), expires_s (6), viewer_generation (2). Tokens
of releases that knew no viewer generation have 0 there. A share's are the same, then share (4), from_ms (6), to_ms
(6).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from dataclasses import dataclass

from storage.errors import CallerError

DEVICE_PREFIX = "ckd_"
VIEWER_PREFIX = "ckv_"
SHARE_PREFIX = "cks_"
MAC_BYTES = 16
"""A guess succeeds once in 2^128."""
MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = hashlib.blake2b.MAX_KEY_SIZE

_DEVICE_PERSON = b"ck device v1"
_VIEWER_PERSON = b"ck viewer v1"
_SHARE_PERSON = b"ck share v1"
_DEVICE = struct.Struct("<II")
_VIEWER = struct.Struct("<IIQ")  # the last holds both expires_s and viewer_generation
_SHARE = struct.Struct("<IIQI")  # from_ms and to_ms follow, of six bytes each
_TIME_BYTES = 6
_SHARE_BYTES = _SHARE.size + 2 * _TIME_BYTES
_EXPIRES_BITS = 48
_VIEWER_TEXT = re.compile(VIEWER_PREFIX + r"[A-Za-z0-9_-]{43}")
_SHARE_TEXT = re.compile(SHARE_PREFIX + r"[A-Za-z0-9_-]{64}")  # no bit to spare: one spelling
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class ViewerClaims:
    """What a viewer token says: which device, of which generations, until when (Unix seconds)."""

    device: int
    generation: int
    expires_s: int
    viewer_generation: int = 0


@dataclass(frozen=True, slots=True)
class ShareClaims:
    """What a share link's token says, besides what a viewer's does: which link, and which capture times
    `from_ms <= t < to_ms` (Unix ms)."""

    device: int
    generation: int
    expires_s: int
    viewer_generation: int
    share: int
    from_ms: int
    to_ms: int


def mint_device_token(secret: bytes, device: int, generation: int) -> str:
    """Return the token of a device: always the same for the same arguments.

    Args:
        secret: 16 to 64 random bytes.
        device, generation: 0..2^32-1.

    Raises:
        CallerError: `bad_secret`, or `bad_token_claims` out of bounds.
    """
    try:
        claims = _DEVICE.pack(device, generation)
    except struct.error as error:
        raise _bad_claims(device) from error
    return DEVICE_PREFIX + _text(_mac(secret, _DEVICE_PERSON, claims))


def check_device_token(secret: bytes, device: int, generation: int, token: str) -> bool:
    """Whether `token` is the device's own of this generation. Any text, any device number; compared in
    constant time.

    Raises:
        CallerError: `bad_secret`.
    """
    try:
        claims = _DEVICE.pack(device, generation)
    except struct.error:
        return False
    expected = DEVICE_PREFIX + _text(_mac(secret, _DEVICE_PERSON, claims))
    # As bytes: compare_digest raises on text beyond ASCII.
    return hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace"))


def mint_viewer_token(
    secret: bytes, device: int, generation: int, expires_s: int, viewer_generation: int = 0
) -> str:
    """Return a token to play one device's recordings until `expires_s`.

    Args:
        secret: 16 to 64 random bytes.
        device, generation: 0..2^32-1.
        expires_s: Unix seconds, 0..2^48-1.
        viewer_generation: 0..2^16-1.

    Raises:
        CallerError: `bad_secret`, or `bad_token_claims` out of bounds.
    """
    try:
        if not 0 <= expires_s < 1 << _EXPIRES_BITS:
            raise _bad_claims(device)
        claims = _VIEWER.pack(device, generation, viewer_generation << _EXPIRES_BITS | expires_s)
    except struct.error as error:
        raise _bad_claims(device) from error
    return VIEWER_PREFIX + _text(claims + _mac(secret, _VIEWER_PERSON, claims))


def read_viewer_token(secret: bytes, token: str) -> ViewerClaims:
    """Return what a genuine viewer token says. The caller compares its time with the clock, its generations
    with the bitmap row and its device with what is asked for.

    Raises:
        CallerError: `bad_token`, it is not one that `mint_viewer_token` made; `bad_secret`.
    """
    raw = _viewer_bytes(token)
    claims, mac = raw[: _VIEWER.size], raw[_VIEWER.size :]
    if not hmac.compare_digest(_mac(secret, _VIEWER_PERSON, claims), mac):
        raise _bad_token()
    device, generation, last = _VIEWER.unpack(claims)
    viewer_generation, expires_s = divmod(last, 1 << _EXPIRES_BITS)
    return ViewerClaims(device, generation, expires_s, viewer_generation)


def mint_share_token(secret: bytes, claims: ShareClaims) -> str:
    """Return the token of a share link: always the same for the same claims.

    Args:
        secret: 16 to 64 random bytes.

    Raises:
        CallerError: `bad_secret`, or `bad_token_claims` out of bounds.
    """
    try:
        if not 0 <= claims.expires_s < 1 << _EXPIRES_BITS:
            raise _bad_claims(claims.device)
        last = claims.viewer_generation << _EXPIRES_BITS | claims.expires_s
        packed = _SHARE.pack(claims.device, claims.generation, last, claims.share)
        times = (time.to_bytes(_TIME_BYTES, "little") for time in (claims.from_ms, claims.to_ms))
        packed += b"".join(times)
    except (struct.error, OverflowError) as error:
        raise _bad_claims(claims.device) from error
    return SHARE_PREFIX + _text(packed + _mac(secret, _SHARE_PERSON, packed))


def read_share_token(secret: bytes, token: str) -> ShareClaims:
    """Return what a genuine token of a share link says. The caller compares it as a viewer's, and with the link's row.

    Raises:
        CallerError: `bad_token`, it is not one that `mint_share_token` made; `bad_secret`.
    """
    if not _SHARE_TEXT.fullmatch(token):
        raise _bad_token()
    raw = urlsafe_b64decode(token[len(SHARE_PREFIX) :])
    packed, mac = raw[:_SHARE_BYTES], raw[_SHARE_BYTES:]
    if not hmac.compare_digest(_mac(secret, _SHARE_PERSON, packed), mac):
        raise _bad_token()
    device, generation, last, share = _SHARE.unpack_from(packed)
    viewer_generation, expires_s = divmod(last, 1 << _EXPIRES_BITS)
    times = packed[_SHARE.size :]
    from_ms, to_ms = (int.from_bytes(part, "little") for part in (times[:_TIME_BYTES], times[_TIME_BYTES:]))
    return ShareClaims(device, generation, expires_s, viewer_generation, share, from_ms, to_ms)


def _viewer_bytes(token: str) -> bytes:
    """Decode the text form, in its one spelling: the last character has two bits to spare."""
    if not _VIEWER_TEXT.fullmatch(token):
        raise _bad_token()
    chars = token[len(VIEWER_PREFIX) :]
    raw = urlsafe_b64decode(chars + "=")
    if _text(raw) != chars:
        raise _bad_token()
    return raw


def _mac(secret: bytes, person: bytes, claims: bytes) -> bytes:
    # An empty key would be no key at all, and a short one could be searched.
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        detail = f"a token secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {len(secret)}"
        raise CallerError(detail, code="bad_secret")
    return hashlib.blake2b(claims, digest_size=MAC_BYTES, key=secret, person=person).digest()


def _text(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=").decode()


def _bad_claims(device: int) -> CallerError:
    detail = "device, generation or time is out of bounds"
    return CallerError(detail, subject=f"device {device}", code="bad_token_claims")


def _bad_token() -> CallerError:
    return CallerError("not a token of this service; ask for a new one", code="bad_token")
