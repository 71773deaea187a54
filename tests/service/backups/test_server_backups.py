"""Whether PostgreSQL is backed up: what it tells, what to make of that, and a home that is on it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from storage.days import MS_PER_DAY
from storage.postgres.server_backups import server_backups
from storage.server_backups import ServerBackups
from tests.servers.catalogs import empty_database
from tests.servers.postgres import any_binaries, postgres_server
from tests.service.test_cli import Run, run

__all__ = ["run"]

NOW_MS = 1_800_000_000_000
WELL = ServerBackups("db", True, NOW_MS - 1000, None, (), True, NOW_MS - MS_PER_DAY)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (WELL, ""),
        (replace(WELL, failed_ms=NOW_MS - 2000), ""),
        (replace(WELL, archives=False, receivers=("barman",), archived_ms=None, base_ms=None), ""),
        (replace(WELL, sees_base=False, base_ms=None), ""),
        (replace(WELL, base_ms=NOW_MS - 8 * MS_PER_DAY), ""),
        (replace(WELL, base_ms=NOW_MS - 8 * MS_PER_DAY - 1), "8 days old"),
        (replace(WELL, base_ms=None), "no base backup"),
        (replace(WELL, failed_ms=NOW_MS), "fails"),
        (replace(WELL, archived_ms=None, failed_ms=NOW_MS), "fails"),
        (replace(WELL, archived_ms=None), "never archived"),
        (replace(WELL, archives=False), "archive_mode is off"),
    ],
)
def test_what_is_made_of_it(told: ServerBackups, problem: str) -> None:
    found = told.problems(now_ms=NOW_MS, max_age_ms=8 * MS_PER_DAY)
    assert bool(found) == bool(problem)
    assert problem in " ".join(found)


def test_a_role_that_may_not_see_is_told_what_to_grant() -> None:
    assert "GRANT pg_monitor" in replace(WELL, sees_base=False).notes()[0]
    assert WELL.notes() == []


def test_a_real_server_tells() -> None:
    settings = {"archive_mode": "on", "archive_command": "true"}
    with (
        postgres_server(any_binaries(), settings) as server,
        psycopg.connect(server.url(), autocommit=True) as operator,
    ):
        first = server_backups(server.url())
        assert (first.archives, first.sees_base, first.base_ms, first.receivers) == (True, True, None, ())
        assert first.problems(now_ms=NOW_MS, max_age_ms=MS_PER_DAY)
        operator.execute("SELECT pg_backup_start('nightly', true)")
        operator.execute("SELECT * FROM pg_backup_stop(false)")
        now_ms = int(operator.execute("SELECT extract(epoch FROM now()) * 1000").fetchone()[0])  # type: ignore[index]
        then = server_backups(server.url())
        assert then.base_ms is not None
        assert abs(then.base_ms - now_ms) < 3_600_000
        operator.execute(f"CREATE ROLE plain LOGIN PASSWORD '{server.password}'")  # type: ignore[arg-type]
        plain = server_backups(conninfo.make_conninfo(server.url(), user="plain"))
        assert (plain.sees_base, plain.base_ms) == (False, None)


def test_a_home_on_a_server_that_is_not_backed_up_is_copied_and_told_of(tmp_path: Path, run: Run) -> None:
    data = tmp_path / "data"
    assert run("init", "--data", data, "--catalog", empty_database(data)).code == 0
    for name in ("backups", "keys-backups"):
        (tmp_path / name).mkdir(mode=0o700)
    words = ("backup", "--to", tmp_path / "backups", "--keys-to", tmp_path / "keys-backups", "--data", data)
    done = run(*words, "--json")
    assert done.error == "server_not_backed_up"
    assert "archive_mode is off" in done.err
    done = run(*words, "--server-elsewhere", "--verify", "--json")
    assert done.code == 0, done
    assert (done.document["catalog"], done.document["vault"]) == ("server", "folder")
    part = Path(done.document["backup"])
    assert sorted(path.name for path in part.iterdir()) == ["config.toml", "manifest.json", "payments.jsonl"]
    shutil.rmtree(data)
    done = run("restore", "--from", part, "--keys", done.document["keys"], "--data", data, "--json")
    assert done.code == 0, done
    assert any("the catalog is on its server" in step for step in done.document["next"])
    assert run("keys", "show", "--data", data).code in (0, 1)
