"""The service's role on PostgreSQL: it can do all that the service does, and change nothing of the history."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from storage.contracts.given import NOON, STORED, WEEK, Upload, add_device, commit
from storage.errors import ClipkeepError
from storage.postgres import PostgresCatalog
from storage.postgres.migrations import migrate
from storage.postgres.privileges import grant
from storage.sqlite.schema import REVISION
from tests.storage.conftest import OWNER, SERVICE, url_of


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"DELETE FROM {table}"
            for table in ("events", "acceptances", "agreements", "changes", "erasures", "accounts")
        ),
        *(f"TRUNCATE {table}" for table in ("events", "acceptances", "changes", "plans", "meta")),
        "UPDATE events SET what = ''",
        "UPDATE acceptances SET at_ms = 0",
        "UPDATE agreements SET text = ''",
        "UPDATE changes SET device = 1",
        "UPDATE alembic_version SET version_num = '0005'",
        "DROP TABLE events",
        "DROP TRIGGER events_stay ON events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "CREATE OR REPLACE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN OLD; END'",
    ],
)
def test_what_the_services_role_may_not(service_url: str, statement: str) -> None:
    with psycopg.connect(service_url) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_the_history_of_an_account_that_lives_is_not_forgotten(service_url: str) -> None:
    with psycopg.connect(service_url) as connection:
        connection.execute(
            "INSERT INTO events (account, what, who, why, facts, at_ms) VALUES (1, 'x', 'y', '', '', 0)"
        )
        connection.execute("SELECT forget_history(1)")
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_others_may_do_nothing(service_url: str) -> None:
    with psycopg.connect(url_of(service_url, "stranger"), autocommit=True) as connection:
        for statement in ("SELECT * FROM events", "SELECT forget_history(1)", "SELECT next_number('plans')"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_tables_of_days_that_the_owner_made_are_the_services(owner_url: str) -> None:
    catalog = PostgresCatalog.open(owner_url)
    device = add_device(catalog, WEEK)
    assert commit(catalog, Upload(device, NOON)) == [STORED]
    catalog.close()
    grant(owner_url, SERVICE)
    catalog = PostgresCatalog.open(url_of(owner_url, SERVICE))
    assert commit(catalog, Upload(device, NOON + 1)) == [STORED]
    assert catalog.db.drop_unlisted() == 0
    catalog.close()


def test_granting_again_and_after_a_migration(roles: None, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} OWNER TO {OWNER}".encode())
    url = url_of(database_url, OWNER)
    with psycopg.connect(url) as connection:
        connection.execute((Path(__file__).with_name("postgres_0005.sql")).read_text().encode())
        connection.execute(
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{SERVICE}"'.encode()
        )
    assert migrate(url) == ("0005", REVISION)
    with psycopg.connect(url_of(url, SERVICE), autocommit=True) as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("DELETE FROM events")
        assert connection.execute("SELECT next_number('plans')").fetchone() == (1,)
    assert grant(url, SERVICE) == grant(url, SERVICE)


@pytest.mark.parametrize(
    ("user", "role", "code"),
    [
        (OWNER, "nobody_of_this_name", "no_role"),
        (OWNER, OWNER, "owner_role"),
        (OWNER, "stranger", "not_member"),
        (SERVICE, "stranger", "not_owner"),
    ],
)
def test_what_is_refused(service_url: str, user: str, role: str, code: str) -> None:
    with pytest.raises(ClipkeepError) as caught:
        grant(url_of(service_url, user), role)
    assert caught.value.code == code
