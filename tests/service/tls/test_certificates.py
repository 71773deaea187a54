"""Certificates from their files: names, ends, and what is wrong, with a code and what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from service.config import TlsSettings
from service.tls.certificates import load_certificate
from service.tls.pairs import MAX_PAIRS, Pair, parse_pairs
from storage.errors import CallerError
from tests.servers.certificates import Authority

DAY_S = 86_400


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def pair_of(authority: Authority, *names: str, **more: float) -> Pair:
    issued = authority.issue(*names, **more)  # type: ignore[arg-type]
    return Pair(issued.certificate, issued.key)


def refused(pair: Pair, *, now_s: float | None = None) -> CallerError:
    with pytest.raises(CallerError) as caught:
        load_certificate(pair, now_s or time.time())
    return caught.value


def test_names_and_end_are_read(authority: Authority) -> None:
    found = load_certificate(pair_of(authority, "In.Example", "*.in.example", "192.0.2.7"), time.time())
    assert found.names == ("in.example", "*.in.example", "192.0.2.7")
    assert 89 * DAY_S < found.expires_s - time.time() < 91 * DAY_S


def test_key_and_certificate_may_be_one_file(authority: Authority) -> None:
    pair = pair_of(authority, "in.example")
    both = pair.key.with_suffix(".both")
    both.touch(0o600)
    both.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    assert load_certificate(Pair(both, both), time.time()).names == ("in.example",)


def test_what_is_wrong_has_a_code_and_names_the_file(authority: Authority, tmp_path: Path) -> None:
    pair, other = pair_of(authority, "in.example"), pair_of(authority, "other.example")
    nothing = tmp_path / "nothing"
    for wrong, code, subject in (
        (Pair(nothing, pair.key), "tls_no_file", nothing),
        (Pair(pair.certificate, nothing), "tls_no_file", nothing),
        (Pair(pair.certificate, tmp_path), "tls_unreadable", tmp_path),
        (Pair(pair.key, pair.key), "tls_not_pem", pair.key),
        (Pair(pair.certificate, other.key), "tls_key_mismatch", other.key),
    ):
        error = refused(wrong)
        assert (error.code, error.subject) == (code, str(subject))
    (noise := tmp_path / "noise").touch(0o600)
    assert refused(Pair(pair.certificate, noise)).code == "tls_not_pem"
    assert refused(pair, now_s=time.time() + 100 * DAY_S).code == "tls_expired"
    assert refused(pair, now_s=time.time() - 100 * DAY_S).code == "tls_not_yet_valid"


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o660])
def test_a_key_that_others_may_use_is_refused(authority: Authority, mode: int) -> None:
    pair = pair_of(authority, "in.example")
    pair.key.chmod(mode)
    error = refused(pair)
    assert error.code == "tls_key_open"
    assert "chmod" in error.detail
    pair.key.chmod(0o640)
    load_certificate(pair, time.time())


def test_a_key_with_a_passphrase_is_refused(authority: Authority) -> None:
    pair = pair_of(authority, "in.example")
    key = load_pem_private_key(pair.key.read_bytes(), None)
    locked = BestAvailableEncryption(b"secret")
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    error = refused(pair)
    assert (error.code, "passphrase" in error.detail) == ("tls_not_pem", True)


def test_pairs_are_as_many_keys_as_certificates_in_whole_paths() -> None:
    assert parse_pairs(TlsSettings()) == ()
    assert parse_pairs(TlsSettings("/a.pem")) == (Pair(Path("/a.pem"), Path("/a.pem")),)
    assert parse_pairs(TlsSettings("/a.pem, /b.pem", "/a.key,/b.key"))[1] == Pair(
        Path("/b.pem"), Path("/b.key")
    )
    many = ",".join(["/a.pem"] * (MAX_PAIRS + 1))
    for wrong in (
        TlsSettings("/a.pem", "/a.key, /b.key"),
        TlsSettings("", "/a.key"),
        TlsSettings("a.pem"),
        TlsSettings("/a.pem", "a.key"),
        TlsSettings(many),
    ):
        with pytest.raises(ValueError, match=r"tls\.key|whole path|more than"):
            parse_pairs(wrong)
