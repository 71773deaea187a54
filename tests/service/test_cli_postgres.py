"""`clipkeep init --catalog postgresql://…`: what it makes, what it refuses, and what it says to do."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import psycopg
import pytest
import structlog

from service.cli import main
from storage.urls import without_password
from tests.servers.catalogs import empty_database
from tests.servers.postgres import any_binaries, postgres_server
from tests.service.test_cli import Done


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLIPKEEP_") and "_TEST_" not in name:
            monkeypatch.delenv(name)
    monkeypatch.delenv("PGPASSWORD", raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of an empty database."""
    return empty_database(tmp_path / "data")


def run(data: Path, *args: str) -> Done:
    """Run a command in this process, through the same `main` as the installed one."""
    structlog.reset_defaults()  # a test that looked at logs leaves it configured
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "argv", ["clipkeep", *args, "--data", str(data)]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def document(data: Path, *args: str) -> dict[str, object]:
    done = run(data, *args, "--json")
    assert done.code == 0, done
    return dict(json.loads(done.out))


def refused(data: Path, *args: str) -> str:
    done = run(data, *args)
    assert done.code != 0
    return " ".join((done.out + done.err).split())


def with_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}@{parts.hostname}:{parts.port}").geturl()


def tables_of(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return {row[0] for row in rows}


def tables(url: str) -> int:
    return len(tables_of(url))


def test_the_whole_of_a_small_life(tmp_path: Path, url: str) -> None:
    data = tmp_path / "data"
    made = document(data, "init", "--test-clock", "--catalog", url)
    password = urlsplit(url).password or ""
    assert password
    assert password not in json.dumps(made)
    assert not (data / "catalog.db").exists()
    assert document(data, "device", "add", "--plan", "annual")["device"] == 1
    assert document(data, "device", "show", "--device", "1")["device"] == 1
    assert "error" not in document(data, "sweep")
    assert document(data, "check", "--deep")["broken"] == []
    migrated = document(data, "catalog", "migrate")
    assert migrated["before"] == migrated["after"]
    for args in (
        ("catalog", "rebuild"),
        ("account", "list"),
        ("keys", "rotate"),
        ("clock", "--advance", "1d"),
    ):
        assert run(data, *args).code == 0, args


def test_the_whole_of_a_small_life_with_its_vault_on_a_server(tmp_path: Path, url: str) -> None:
    """master.key is all that is left in keys/; nothing of the service knows where the rest is."""
    data, vault_url = tmp_path / "data", empty_database(tmp_path / "vault")
    made = document(data, "init", "--test-clock", "--catalog", url, "--vault", vault_url)
    assert made["vault"] == without_password(vault_url) != vault_url
    assert sorted(path.name for path in (data / "keys").iterdir()) == ["host.key", "master.key"]
    assert (data / "keys").stat().st_mode & 0o777 == 0o700
    assert "vault_state" in tables_of(vault_url)
    assert document(data, "device", "add", "--plan", "annual")["token"]
    assert "error" not in document(data, "sweep")
    assert document(data, "check", "--deep")["broken"] == []
    shown = document(data, "keys", "show")
    assert shown["rotation_unfinished"] is False
    assert shown["account_keys"] == 2, "the operator's, and that of hashes"
    assert document(data, "keys", "rotate")["resumed"] is False
    assert "pg_dump" in refused(data, "keys", "backup", "--to", str(tmp_path / "copy"))
    for args in (
        ("catalog", "rebuild"),
        ("account", "list"),
        ("device", "terminate", "--device", "1", "--erase"),
    ):
        assert run(data, *args, *(("--reason", "x") if "terminate" in args else ())).code == 0, args
    assert document(data, "erasure", "verify", "--device", "1")["holds"] is True


def test_the_vault_is_never_the_catalogs_database(tmp_path: Path, url: str) -> None:
    """And whatever init had made is taken away again."""
    said = refused(tmp_path / "data", "init", "--catalog", url, "--vault", url)
    assert "Make another one" in said
    assert tables_of(url) == set()
    assert not (tmp_path / "data" / "keys").exists()
    assert "a vault's address is" in refused(tmp_path / "data", "init", "--vault", "mysql://x/y")
    document(tmp_path / "data", "init", "--catalog", url, "--vault", "folder")
    assert "has a catalog in it" in refused(tmp_path / "other", "init", "--catalog", "sqlite", "--vault", url)
    assert not (tmp_path / "other" / "keys").exists()


NOT_OURS = {
    "a table": "CREATE TABLE customers (n INTEGER)",
    "a view named as one of ours": "CREATE VIEW meta AS SELECT 1 AS name",
    "a sequence": "CREATE SEQUENCE sweeps",
}


@pytest.mark.parametrize("theirs", NOT_OURS)
@pytest.mark.parametrize("what", ["--catalog", "--vault"])
def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path, url: str, what: str, theirs: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(NOT_OURS[theirs])
    before = tables_of(url)
    done = run(tmp_path / "data", "init", what, url, "--json")
    assert (done.code, done.error) == (1, "not_empty"), done
    assert "CREATE DATABASE" in json.loads(done.out)["detail"]
    assert tables_of(url) == before
    assert not (tmp_path / "data" / "keys").exists()


def test_a_database_of_another_home_is_left_alone(tmp_path: Path, url: str) -> None:
    vault_url, other_url = empty_database(tmp_path / "vault"), empty_database(tmp_path / "other vault")
    document(tmp_path / "data", "init", "--catalog", url, "--vault", vault_url)
    for args, code in (
        (("--catalog", url), "exists"),
        (("--vault", vault_url), "key_store_exists"),
        (("--catalog", vault_url), "vault_in_catalog"),
        (("--vault", url), "vault_in_catalog"),
        (("--catalog", url, "--vault", other_url), "exists"),
    ):
        done = run(tmp_path / "other", "init", *args, "--json")
        assert (done.code, done.error) == (1, code), done
        said = json.loads(done.out)["detail"]
        assert "CREATE DATABASE" in said or "Make another one" in said
        assert not (tmp_path / "other" / "keys").exists()
    assert tables_of(other_url) == set(), "what was made in it was taken away again"
    assert document(tmp_path / "data", "device", "add")["device"] == 1, "and both go on"


def test_a_password_is_shown_nowhere_and_warned_of(tmp_path: Path, url: str) -> None:
    password = urlsplit(url).password or ""
    for form in (url, f"{with_user(url, 'clipkeep_test')}?password={password}"):
        data = tmp_path / str(len(form))
        if form != url:
            empty_database(tmp_path / "data")
        done = run(data, "init", "--catalog", form)
        assert done.code == 0, done
        assert "PGPASSWORD" in done.out + done.err
        assert password not in done.out + done.err
        for args in (("config",), ("config", "--json")):
            shown = run(data, *args)
            assert password not in shown.out
            assert "***" in shown.out
        assert (data / "config.toml").stat().st_mode & 0o077 == 0


def test_a_password_from_the_environment(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", urlsplit(url).password or "")
    done = run(tmp_path / "data", "init", "--catalog", with_user(url, "clipkeep_test"))
    assert done.code == 0, done
    assert "has a password in it" not in done.out + done.err


def test_a_service_file(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(url)
    lines = [
        *("[home]", f"host={parts.hostname}", f"port={parts.port}", f"dbname={parts.path[1:]}"),
        *(f"user={parts.username}", f"password={parts.password}"),
    ]
    (tmp_path / "services").write_text("\n".join(lines))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    document(tmp_path / "data", "init", "--catalog", "postgresql:///?service=home")
    assert document(tmp_path / "data", "device", "add", "--plan", "annual")["device"] == 1


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda url: url.replace("postgresql://", "mysql://"), "postgresql://user@host:port/database"),
        (lambda url: url + "_missing", "CREATE DATABASE"),
        (lambda url: with_user(url, "clipkeep_test:wrong"), "PGPASSWORD"),
        (lambda url: with_user(url, "clipkeep_test"), "PGPASSWORD"),
        (lambda url: url.replace(f":{urlsplit(url).port}/", ":1/"), "whether the server runs"),
        (lambda url: url + "?nonsense=1", "not a PostgreSQL address"),
    ],
    ids=["engine", "database", "password", "no password", "server", "parameter"],
)
def test_what_is_wrong_is_said(tmp_path: Path, url: str, spoil: object, says: str) -> None:
    assert callable(spoil)
    wrong = spoil(url)
    said = refused(tmp_path / "data", "init", "--catalog", wrong)
    assert says in said
    assert (urlsplit(url).password or "") not in said
    assert not (tmp_path / "data" / "keys").exists()
    assert tables(url) == 0
    document(tmp_path / "data", "init", "--catalog", url)


def test_no_privilege(tmp_path: Path, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'g'")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    said = refused(tmp_path / "data", "init", "--catalog", with_user(url, "guest:g"))
    assert "privilege" in said
    assert not (tmp_path / "data" / "keys").exists()


def test_a_catalog_that_is_there_stays(tmp_path: Path, url: str) -> None:
    document(tmp_path / "data", "init", "--catalog", url)
    document(tmp_path / "data", "device", "add")
    said = refused(tmp_path / "other", "init", "--catalog", url)
    assert "already" in said
    assert not (tmp_path / "other" / "keys").exists()
    assert document(tmp_path / "data", "device", "show", "--device", "1")["device"] == 1


def test_an_init_that_fails_later_takes_its_tables_away(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("service.folder.EntitlementBitmap.create", full)
        refused(tmp_path / "data", "init", "--catalog", url)
    assert tables(url) == 0
    document(tmp_path / "data", "init", "--catalog", url)


def test_another_release(tmp_path: Path, url: str) -> None:
    document(tmp_path / "data", "init", "--catalog", url)
    for revision, says in (("0000", "catalog migrate"), ("9999", "later release")):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))
        assert says in refused(tmp_path / "data", "device", "add")
        assert "release" in refused(tmp_path / "data", "catalog", "migrate")


@pytest.mark.sqlite
def test_another_homes_catalog(tmp_path: Path, url: str) -> None:
    document(tmp_path / "data", "init", "--catalog", url)
    document(tmp_path / "other", "init")
    config = tmp_path / "other" / "config.toml"
    shutil.copy(tmp_path / "data" / "config.toml", config)
    said = refused(tmp_path / "other", "device", "add")
    assert "belongs to another data folder" in said
    assert document(tmp_path / "data", "device", "add")["device"] == 1


@pytest.mark.sqlite
def test_another_homes_keys_beside_a_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        document(tmp_path / name, "init", "--catalog", "sqlite")
    shutil.rmtree(tmp_path / "one" / "keys")
    shutil.copytree(tmp_path / "other" / "keys", tmp_path / "one" / "keys")
    assert "belongs to another data folder" in refused(tmp_path / "one", "device", "add")


def test_the_variable_says_it_too(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKEEP_HOME_CATALOG", url)
    document(tmp_path / "data", "init")
    assert not (tmp_path / "data" / "catalog.db").exists()
    assert tables(url) > 10


@pytest.fixture
def unsafe_url() -> Iterator[str]:
    """Of an empty database whose server syncs nothing to the disk."""
    with postgres_server(any_binaries(), {"fsync": "off"}) as server:
        yield server.url()


def test_a_server_that_does_not_promise_enough_is_refused(
    tmp_path: Path, unsafe_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = unsafe_url
    monkeypatch.delenv("CLIPKEEP_HOME_SURVIVES", raising=False)
    said = refused(tmp_path / "data", "init", "--catalog", url)
    assert "fsync is off" in said
    assert 'survives = "server_crash"' in said
    assert not (tmp_path / "data").exists()
    assert tables(url) == 0
    monkeypatch.setenv("CLIPKEEP_HOME_SURVIVES", "server_crash")
    document(tmp_path / "data", "init", "--catalog", url)
    monkeypatch.setenv("CLIPKEEP_HOME_SURVIVES", "primary_loss")
    done = run(tmp_path / "data", "serve", "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0")
    assert done.code == 1
    assert 'survives = "primary_loss"' in json.loads(done.err.splitlines()[-1])["detail"]
    structlog.reset_defaults()  # `serve` has a log
    monkeypatch.setenv("CLIPKEEP_HOME_SURVIVES", "everything")
    assert "is one of" in refused(tmp_path / "data", "device", "add")
    assert "is one of" in refused(tmp_path / "other", "init", "--catalog", url)


def test_a_server_that_is_too_old_is_refused(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document(tmp_path / "data", "init", "--catalog", url)
    monkeypatch.setattr("storage.postgres.database.LEAST_VERSION", 990_000)
    assert "is needed" in refused(tmp_path / "data", "device", "add")
    assert "is needed" in refused(tmp_path / "other", "init", "--catalog", empty_database(tmp_path / "other"))


def test_the_services_role(tmp_path: Path, url: str) -> None:
    """Two roles, as docs/operations.md has them: the owner makes and grants, the service's role does all else."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS clipkeep_service")
        connection.execute("CREATE ROLE clipkeep_service LOGIN PASSWORD 's'")
    data = tmp_path / "data"
    document(data, "init", "--test-clock", "--catalog", url)
    granted = document(data, "catalog", "grant", "--role", "clipkeep_service")
    assert granted["role"] == "clipkeep_service"
    config = data / "config.toml"
    service = with_user(url, "clipkeep_service:s")
    config.write_text(config.read_text().replace(url, service))
    assert document(data, "device", "add", "--plan", "annual")["device"] == 1
    assert "error" not in document(data, "sweep")
    assert document(data, "check", "--deep")["broken"] == []
    assert "does not own" in refused(data, "catalog", "grant", "--role", "pg_monitor")
    with psycopg.connect(service) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM events")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY clipkeep_service")
        connection.execute("DROP ROLE clipkeep_service")


@pytest.mark.sqlite
def test_a_file_has_no_roles_and_no_halves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    document(data, "init", "--catalog", "sqlite")
    assert "no roles" in refused(data, "catalog", "grant", "--role", "x")
    assert "in one" in refused(data, "catalog", "migrate", "--before")
    assert "apart" in refused(data, "catalog", "migrate", "--before", "--after")
