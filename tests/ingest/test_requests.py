"""Credentials and digests of requests."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.requests import parse_credentials, parse_digest

# --- credentials -------------------------------------------------------------------------------------------------


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"Bearer ckd_abc", (None, "ckd_abc")),
        (b"bearer  ckd_abc ", (None, "ckd_abc")),
        (b"Bearer", (None, "")),
        (b"Bearer ", (None, "")),
        (basic(b"7:ckd_abc"), (7, "ckd_abc")),
        (basic(b"7:"), (7, "")),
        (basic(b"7:a:b"), (7, "a:b")),
        (b"basic " + base64.b64encode(b"7:t"), (7, "t")),
        (b"Bearer \xff", (None, "ÿ")),
    ],
)
def test_credentials(header: bytes, told: tuple[int | None, str]) -> None:
    assert parse_credentials(header) == told


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"ckd_abc",
        b"Digest username=7",
        b"Basic",
        b"Basic !!!",
        b"Basic Nzp0A",
        basic(b"7"),
        basic(b"name:t"),
        basic(b":t"),
        basic(b"-7:t"),
        basic(b"12345678901:t"),
        basic("\u0667:t".encode()),
    ],
)
def test_no_credentials(header: bytes) -> None:
    told = parse_credentials(header)
    assert told is None


@given(st.binary(max_size=60), st.sampled_from([b"", b"Bearer ", b"Basic "]))
def test_no_credentials_raise(value: bytes, scheme: bytes) -> None:
    parse_credentials(scheme + value)


# --- digests -----------------------------------------------------------------------------------------------------

SHA = hashlib.sha256(b"x").digest()
SHA_MEMBER = b"sha-256=:" + base64.b64encode(SHA) + b":"
CRC_MEMBER = b"crc32=:AAECAw==:"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (SHA_MEMBER, (b"sha-256", SHA)),
        (CRC_MEMBER, (b"crc32", bytes(range(4)))),
        (CRC_MEMBER + b", " + SHA_MEMBER, (b"sha-256", SHA)),
        (b"  " + CRC_MEMBER + b"  ", (b"crc32", bytes(range(4)))),
        (b"sha-512=:AAAA:, " + CRC_MEMBER, (b"crc32", bytes(range(4)))),
        (b"sha-512=:AAAA:", None),
    ],
)
def test_digests(value: bytes, told: tuple[bytes, bytes] | None) -> None:
    """The best algorithm known wins; unknown ones are passed over (RFC 9530 §2)."""
    assert parse_digest(value) == told


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"sha-256",
        b"sha-256=abc",
        b"sha-256=:AAAA:",
        b"crc32=:AAECAwQ=:",
        b"crc32=:AAECAw:",
        b"crc32=:A===:",
        b"crc32=:AAECAw==:,",
        b"crc32=:AAEC Aw==:",
    ],
)
def test_bad_digests(value: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_digest(value)


@given(st.binary(max_size=60))
def test_a_digest_is_read_or_refused_as_a_value_error(value: bytes) -> None:
    for text in (value, b"crc32=:" + value + b":"):
        try:
            parse_digest(text)
        except ValueError:
            continue
