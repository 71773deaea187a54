"""What a request says of whoever sends it: device, credentials and digest, parsed. Pure.

What a target means is a protocol's to say: `ingest.protocols`.
"""

from __future__ import annotations

import base64
import binascii
import re

ORIGIN = rb"(?:[Hh][Tt][Tt][Pp][Ss]?://[^/?#]{1,300})?"
"""Of a target in absolute form, as a client sends it that takes this for a proxy (RFC 9112 §3.2.2)."""
_DEVICE = re.compile(ORIGIN + rb"/v1/devices/([0-9]{1,10})/")
_DIGEST = re.compile(rb"\s*([a-z0-9-]+)\s*=\s*:([A-Za-z0-9+/=]*):\s*")
_DIGEST_BYTES = {b"sha-256": 32, b"crc32": 4}
MAX_DEVICE = 2**32 - 1


def device_of(target: bytes) -> int | None:
    """The device number in a target, also in one that is not here; None when there is none."""
    match = _DEVICE.match(target)
    return None if match is None or int(match[1]) > MAX_DEVICE else int(match[1])


def parse_credentials(authorization: bytes) -> tuple[int | None, str] | None:
    """(device or None, token) of an Authorization header: `Bearer TOKEN`, or Basic with device and token."""
    scheme, _, value = authorization.partition(b" ")
    value = value.strip()
    match scheme.lower():
        case b"bearer":
            return None, value.decode("latin-1")
        case b"basic":
            try:
                user, colon, token = base64.b64decode(value, validate=True).partition(b":")
            except binascii.Error:
                return None
            if not colon or not user.isdigit() or len(user) > 10:
                return None
            return int(user), token.decode("latin-1")
        case _:
            return None


def parse_digest(value: bytes) -> tuple[bytes, bytes] | None:
    """(algorithm, digest) of a Content-Digest header (RFC 9530) by the best algorithm known here.

    Unknown algorithms are passed over, as the RFC asks; None when none is known.

    Raises:
        ValueError: not of the RFC's form, or a digest of the wrong length.
    """
    found: dict[bytes, bytes] = {}
    for member in value.split(b","):
        match = _DIGEST.fullmatch(member)
        if match is None:
            raise ValueError("write Content-Digest as sha-256=:BASE64: or crc32=:BASE64:")
        algorithm = match[1]
        if algorithm in _DIGEST_BYTES:
            digest = base64.b64decode(match[2], validate=True)
            if len(digest) != _DIGEST_BYTES[algorithm]:
                raise ValueError(f"{algorithm.decode()}: {_DIGEST_BYTES[algorithm]} bytes are needed")
            found[algorithm] = digest
    for algorithm in _DIGEST_BYTES:
        if algorithm in found:
            return algorithm, found[algorithm]
    return None
