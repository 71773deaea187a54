"""Contexts: the right certificate for each name, no old version, and a reload that never makes it worse."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.config import TlsSettings
from service.tls.contexts import ServerTls, open_tls, tls_faults
from storage.errors import CallerError
from tests.servers.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def settings_of(*pairs: Pair, least_version: str = "1.2") -> TlsSettings:
    certificates = ",".join(str(pair.certificate) for pair in pairs)
    return TlsSettings(certificates, ",".join(str(pair.key) for pair in pairs), least_version)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """The client's end of a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (asking, answering):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return asking


def served(tls: ServerTls, authority: Authority, name: str) -> set[str]:
    """Names of the certificate that a client gets who asks for `name`, and trusts nobody but the authority."""
    client = authority.client()
    client.check_hostname = False
    found = shaken(tls.context(), client, name).getpeercert()
    assert found
    return {value for _, value in found["subjectAltName"]}  # type: ignore[misc]


def test_each_name_gets_its_certificate_and_others_the_first(authority: Authority) -> None:
    first = authority.issue("first.example")
    tls = ServerTls(settings_of(first, authority.issue("in.example", "*.in.example")))
    for name in ("in.example", "IN.example", "a.in.example"):
        assert served(tls, authority, name) == {"in.example", "*.in.example"}
    for name in ("first.example", "b.a.in.example", "elsewhere.example"):
        assert served(tls, authority, name) == {"first.example"}
    client = authority.client()
    shaken(tls.context(), client, "a.in.example")  # checks the name itself
    assert set(tls.expires_s()) == {"first.example", "in.example", "*.in.example"}


def test_two_kinds_of_key_for_a_name_go_by_what_the_client_takes(authority: Authority) -> None:
    tls = ServerTls(settings_of(authority.issue("in.example"), authority.issue("in.example", kind="rsa")))
    for ciphers, kind in (("ECDHE+ECDSA", "ECDSA"), ("ECDHE+aRSA", "RSA")):
        client = authority.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(ciphers)
        cipher = shaken(tls.context(), client, "in.example").cipher()
        assert cipher is not None
        assert f"ECDHE-{kind}" in cipher[0]


@pytest.mark.parametrize("least", ["1.2", "1.3"])
def test_old_versions_and_weak_ciphers_are_refused(authority: Authority, least: str) -> None:
    context = ServerTls(settings_of(authority.issue("in.example"), least_version=least)).context()
    for most, ciphers, good in (
        (ssl.TLSVersion.TLSv1_3, "DEFAULT", True),
        (ssl.TLSVersion.TLSv1_2, "DEFAULT", least == "1.2"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256", False),
        (ssl.TLSVersion.TLSv1_2, "AES256-GCM-SHA384", False),
    ):
        client = authority.client()
        client.maximum_version = most
        client.set_ciphers(ciphers)
        if good:
            shaken(context, client, "in.example")
        else:
            with pytest.raises(ssl.SSLError):
                shaken(context, client, "in.example")


def test_a_reload_serves_the_new_one_and_a_bad_one_changes_nothing(authority: Authority) -> None:
    pair = authority.issue("old.example", file="served")
    tls = ServerTls(settings_of(pair))
    authority.issue("new.example", file="served")
    with capture_logs() as logs:
        assert tls.reload()
    assert served(tls, authority, "x.example") == {"new.example"}
    pair.certificate.write_text("no certificate")
    with capture_logs() as more:
        assert not tls.reload()
    assert served(tls, authority, "x.example") == {"new.example"}
    assert tls.days_left() in (89, 90)
    assert [log["event"] for log in logs + more] == ["tls_reloaded", "tls_not_reloaded"]
    assert more[0]["code"] == "tls_not_pem"


def test_a_key_that_openssl_finds_too_short_is_refused(tmp_path: Path) -> None:
    made = [tmp_path / "short.pem", tmp_path / "short.key"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=in.example"),
            *("-out", str(made[0]), "-keyout", str(made[1])),
        ],
        check=True,
        capture_output=True,
    )
    made[1].chmod(0o600)
    settings = settings_of(Pair(*made))
    with pytest.raises(CallerError) as caught:
        open_tls(settings)
    assert caught.value.code == "tls_refused"
    assert tls_faults(settings)[0].startswith("[tls] ")


def test_without_certificates_there_is_no_tls() -> None:
    assert open_tls(TlsSettings()) is None
    assert tls_faults(TlsSettings()) == []
