"""What a person reads when PostgreSQL can't be used: it names the place that was meant, and what to do."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from storage.errors import CallerError, CatalogUnavailable
from storage.postgres.database import PostgresDatabase
from storage.postgres.remedies import remedy


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('definition of service "home" not found', "PGSERVICEFILE"),
        ('service file "/etc/none" not found', "PGSERVICEFILE"),
        ('invalid integer value "abc" for connection option "port"', "correct the address"),
        ('invalid port number: "99999"', "correct the address"),
        ('invalid sslmode value: "always"', "correct the address"),
        ('invalid target_session_attrs value: "both"', "correct the address"),
        ("server does not support SSL, but SSL was required", "sslmode"),
        ('root certificate file "/none" does not exist', "sslrootcert"),
        ('server certificate for "a" does not match host name "b"', "certificate"),
        ("SSL error: certificate verify failed", "certificate"),
        (
            'FATAL: permission denied for database "home" DETAIL: User does not have CONNECT privilege.',
            "GRANT CONNECT",
        ),
        ('FATAL: database "home" does not exist', "CREATE DATABASE"),
        ('FATAL: database "home" is not currently accepting connections', "its operator knows why"),
        ("FATAL: no such database: home", "CREATE DATABASE"),  # PgBouncer
        ("FATAL: no more connections allowed (max_client_conn)", "max_connections"),  # PgBouncer
        ("Connection refused", "look whether the server runs"),
        ('could not translate host name "x" to address', "look whether the server runs"),
    ],
)
def test_each_refused_connection_says_what_to_do(said: str, advice: str) -> None:
    assert advice in remedy(psycopg.OperationalError(f"connection failed: {said}"))


def test_a_missing_privilege_names_the_command_that_gives_it() -> None:
    assert "clipkeep catalog grant --role" in remedy(errors.InsufficientPrivilege())


def test_an_unknown_service_is_named_as_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services").write_text("[other]\nhost=127.0.0.1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with (
        closing(PostgresDatabase("postgresql:///?service=home")) as database,
        pytest.raises(CatalogUnavailable, match="PGSERVICEFILE") as refused,
        database.read(),
    ):
        pass
    assert refused.value.subject == "postgresql:///?service=home"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@a:5433/clipkeep?sslmode=require", "postgresql://a:5433/clipkeep"),
        ("postgresql://a:1,b:2/clipkeep", "postgresql://a,b:1,2/clipkeep"),
        ("postgresql:///clipkeep", "postgresql:///clipkeep"),
        ("postgresql://a/?service=vault&password=secret", "postgresql://a/?service=vault"),
    ],
)
def test_the_place_is_what_the_address_says_without_its_secrets(address: str, shown: str) -> None:
    with closing(PostgresDatabase(address)) as database:
        assert database.subject == shown


def test_a_wrong_address_is_told_in_one_line() -> None:
    with pytest.raises(CallerError) as refused:
        PostgresDatabase("postgresql://a/b?sslmod=require")
    assert "\n" not in str(refused.value)
