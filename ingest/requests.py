"""What a device asks for: targets, credentials and headers, parsed. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

_ORIGIN = rb"(?:[Hh][Tt][Tt][Pp][Ss]?://[^/?#]{1,300})?"
"""Of a target in absolute form, as a client sends it that takes this for a proxy (RFC 9112 §3.2.2)."""
_TARGET = re.compile(
    _ORIGIN + rb"/v1/devices/([0-9]{1,10})/"
    rb"(?:chunks/([0-9]{1,13})|live/([A-Za-z0-9._:+=,@~/-]{1,200}))(?:\?.*)?",
    re.DOTALL,
)
_ODD_TIME = re.compile(
    _ORIGIN + rb"/v1/devices/[0-9]{1,10}/"
    rb"(?:chunks/([0-9]{14,})|live/(?:[^?]*/)?([0-9]{16}|[0-9]{19})\.(?i:ts|m4s|mp4|mov|m4v|m4a|cmfv|cmfa))"
    rb"(?:\?.*)?",
    re.DOTALL,
)
_DEVICE = re.compile(_ORIGIN + rb"/v1/devices/([0-9]{1,10})/")
_DIGEST = re.compile(rb"\s*([a-z0-9-]+)\s*=\s*:([A-Za-z0-9+/=]*):\s*")
_DIGEST_BYTES = {b"sha-256": 32, b"crc32": 4}
_IGNORED_LIVE = (b".m3u8",)
_CHUNKS = (b".ts", b".m4s", b".mp4", b".mov", b".m4v", b".m4a", b".cmfv", b".cmfa")
"""Endings of live chunks. What they are their bytes say."""
_DASH = re.compile(rb"(?:init|chunk)-?(?:stream|[0-9]+-).*|.*\.mpd", re.IGNORECASE | re.DOTALL)
"""What encoders of DASH send: a manifest, and ffmpeg's `init-stream0.m4s`, `chunk-stream0-00001.m4s`."""
_FINER_DIGITS = (16, 19)
"""Of microseconds and nanoseconds, from 2001 to 2286. Of 14 or 17 digits is a date and time as `strftime` writes it,
and of others a count: neither is an instant, and both are timed by arrival."""
MAX_DEVICE = 2**32 - 1


@dataclass(slots=True, init=False)
class Route:
    """Where a request goes. One of: a chunk with its capture time, a live chunk, or nothing to do."""

    device: int
    capture_ms: int | None
    """Unix milliseconds; None for a live chunk whose time is that of its arrival."""
    ignored: bool
    """A playlist, or a deletion by the encoder: answered 204, and changes nothing."""
    is_dash: bool
    """A part of DASH, which is not taken."""
    is_second: bool
    """The capture time was given in seconds: several chunks may have it."""

    # Written out, as for all that is made once a chunk: what a dataclass makes is not compiled.
    def __init__(
        self,
        device: int,
        capture_ms: int | None = None,
        ignored: bool = False,
        is_dash: bool = False,
        is_second: bool = False,
    ) -> None:
        self.device = device
        self.capture_ms = capture_ms
        self.ignored = ignored
        self.is_dash = is_dash
        self.is_second = is_second


def parse_target(method: bytes, target: bytes) -> Route | None:
    """The route of a request line, None when nothing of that name is here.

    A live name may have folders, which say nothing. A last part of exactly 10 digits is the capture time in seconds,
    of 13 in milliseconds; of 16 or 19 it would be microseconds or nanoseconds, which are not taken (`digits_of_time`).
    Nothing is percent-decoded: a name that needs it is none.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        return None
    number, capture, name = match.groups()
    device = int(number)
    if device > MAX_DEVICE:
        return None
    if capture is not None:
        return Route(device, int(capture)) if method in (b"PUT", b"POST") else None
    return _parse_live(method, device, name)


def _parse_live(method: bytes, device: int, name: bytes) -> Route | None:
    if b"/" in name:
        *folders, name = name.split(b"/")
        if not name or any(folder in (b"", b".", b"..") for folder in folders):
            return None
    if method == b"DELETE":
        return Route(device, ignored=True)
    if method not in (b"PUT", b"POST"):
        return None
    if _DASH.fullmatch(name) is not None:
        return Route(device, is_dash=True)
    stem, dot, ending = name.rpartition(b".")
    ending = dot + ending.lower()
    if ending in _CHUNKS:
        if stem.isdigit() and len(stem) == 10:
            return Route(device, int(stem) * 1000, is_second=True)
        if stem.isdigit() and len(stem) == 13:
            return Route(device, int(stem))
        if stem.isdigit() and len(stem) in _FINER_DIGITS:
            return None
        return Route(device)
    return Route(device, ignored=True) if ending in _IGNORED_LIVE else None


def digits_of_time(target: bytes) -> int | None:
    """How many digits the time in a target has that is refused for having too many; None when there is none.

    A live chunk named by microseconds could pass for one that is timed by its arrival, and would be dated wrongly as
    soon as it is sent late.
    """
    match = _ODD_TIME.fullmatch(target)
    return None if match is None else len(match[1] or match[2])


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
