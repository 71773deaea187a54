"""Certificates as their files have them: which names, until when, and what is wrong with them. Opens no port."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from service.tls.pairs import Pair
from storage.errors import CallerError


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that may be served."""

    pair: Pair
    names: tuple[str, ...]
    """DNS names and addresses, in lower case; a name may begin with `*.`."""
    expires_s: float
    """Unix time."""


def load_certificates(pairs: Sequence[Pair], now_s: float) -> list[Certificate]:
    """Read and check the files.

    Raises:
        CallerError: see `load_certificate`.
    """
    return [load_certificate(pair, now_s) for pair in pairs]


def load_certificate(pair: Pair, now_s: float) -> Certificate:
    """Read one certificate and its key, and check that they may be served now.

    Raises:
        CallerError: `tls_no_file`, `tls_unreadable`, `tls_not_pem`, `tls_key_open`, `tls_key_mismatch`, `tls_expired`,
            `tls_not_yet_valid`, `tls_no_names`; the subject is the file.
    """
    data = _read(pair.certificate)
    try:
        found = x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise _wrong(
            pair.certificate, "tls_not_pem", "has no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        ) from error
    _require_private(pair.key)
    try:
        key = load_pem_private_key(_read(pair.key), password=None)
    except TypeError as error:
        raise _wrong(
            pair.key,
            "tls_not_pem",
            "is encrypted: write it without a passphrase, readable by its owner alone",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _wrong(pair.key, "tls_not_pem", "has no private key in PEM that can be used") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != found.public_key().public_bytes(*form):
        raise _wrong(
            pair.key,
            "tls_key_mismatch",
            f"is not the key of {pair.certificate}: the server's own certificate comes first in its file",
        )
    begins_s, expires_s = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    if now_s >= expires_s:
        raise _wrong(pair.certificate, "tls_expired", f"has expired on {_day(expires_s)}: have it renewed")
    if now_s < begins_s:
        raise _wrong(
            pair.certificate,
            "tls_not_yet_valid",
            f"is valid from {_day(begins_s)} on: use an earlier one until then, or set this machine's clock",
        )
    return Certificate(pair, _names(found, pair.certificate), expires_s)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _wrong(path, "tls_no_file", "there is no such file: see [tls] in config.toml") from error
    except OSError as error:
        raise _wrong(
            path, "tls_unreadable", f"cannot be read ({error.strerror}): let the service's user read it"
        ) from error


def _require_private(path: Path) -> None:
    """A group may read it, as one for all that serve with certificates."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it says more
    if mode & stat.S_IRWXO or mode & stat.S_IWGRP:
        raise _wrong(
            path,
            "tls_key_open",
            f"others on this machine may use this key (mode {stat.S_IMODE(mode):04o}); run: chmod o=,g-w {path}",
        )


def _names(found: x509.Certificate, path: Path) -> tuple[str, ...]:
    try:
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(each.value) for each in common]
    else:
        names = [*said.get_values_for_type(x509.DNSName)]
        names += [str(each) for each in said.get_values_for_type(x509.IPAddress)]
    if not names:
        raise _wrong(path, "tls_no_names", "is for no name and no address: have one made for this server")
    return tuple(dict.fromkeys(name.lower() for name in names))


def _day(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _wrong(path: Path, code: str, detail: str) -> CallerError:
    return CallerError(detail, subject=str(path), code=code)
