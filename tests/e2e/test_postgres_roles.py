"""Every command of an operator on a filled home whose service does not own its tables, as docs/operations.md says to
set it up: by `catalog grant --role`, with a vault of another role."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.customers import Town
from tests.e2e.service import Device, Service, until
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server
from tests.service.test_cli_postgres import run as run_command

pytestmark = pytest.mark.e2e

OWNER, SERVICE, VAULT = "home_owner", "home_service", "home_vault"


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(any_binaries()) as server:
        with psycopg.connect(server.url(), autocommit=True) as operator:
            for role in (OWNER, SERVICE, VAULT):
                operator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
            operator.execute(f"GRANT {SERVICE} TO {OWNER}".encode())
            for database, role in (("home", OWNER), ("keys", VAULT)):
                operator.execute(f"CREATE DATABASE {database} OWNER {role}".encode())
                operator.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC".encode())
            operator.execute(f"GRANT CONNECT ON DATABASE home TO {SERVICE}".encode())
        yield server


class Operator:
    """Runs commands in this process, as one role or the other: to start a process for each takes the most time."""

    def __init__(self, service: Service, server: PostgresServer, patch: pytest.MonkeyPatch) -> None:
        self._service, self._port, self._patch = service, server.port, patch
        patch.setenv("CLIPKEEP_HOME_SURVIVES", "server_crash")
        self.be(OWNER)

    def url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:x@127.0.0.1:{self._port}/{database}"

    def be(self, role: str) -> None:
        address = self._service.environ["CLIPKEEP_HOME_CATALOG"] = self.url(role, "home")
        self._patch.setenv("CLIPKEEP_HOME_CATALOG", address)

    def run(self, words: str, *more: str) -> Any:
        """A command that must succeed."""
        done = run_command(self._service.data, *words.split(), *more, "--json")
        assert done.code == 0, f"{words}: {done.out}{done.err}"
        return json.loads(done.out)

    def refused(self, words: str) -> str:
        """What a command says that must fail."""
        done = run_command(self._service.data, *words.split(), "--json")
        assert done.code != 0, (words, done)
        return done.out + done.err


def test_all_commands_as_the_services_role(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(tmp_path) as service:
        operator = Operator(service, postgres, monkeypatch)
        run = operator.run
        run("init --test-clock --vault", operator.url(VAULT, "keys"))
        run(f"catalog grant --role {SERVICE}")
        operator.be(SERVICE)
        town = Town(service, date(2030, 1, 1))
        ada, bob = town.move_in("ada@example.org"), town.move_in("bob@example.org")
        cameras = [ada.add_camera(), ada.add_camera(), bob.add_camera()]
        desk = town.operator()
        for camera in cameras:
            assert desk.once(f"/v1/devices/{camera.number}/grants", {"plan": "annual"})["subscription"]
        for _ in range(5):
            recorded = [camera.record() for camera in cameras]
        added = run("device add --plan annual --retention-days 1 --starts-on 2029-12-31")
        short = Device(added["device"], added["token"])
        service.put(short, town.now_ms(), cameras[0].body(town.now_ms()))
        backup = postgres.folder / "backup"
        postgres.run("pg_basebackup", "-D", backup, "-X", "stream", "-c", "fast")
        shutil.copy2(service.data / "keys" / "master.key", tmp_path / "old.key")

        town.move_to(date(2030, 1, 12))
        run("renew")
        assert run("sweep")["unindexed_chunks"] == 1
        run(
            f"recordings delete --device {cameras[0].number} --from {recorded[0]} --to {recorded[0] + 1} --reason x"
        )
        run(f"device terminate --device {cameras[1].number} --erase --reason x")
        run(f"account cancel --account {bob.account} --reason x")
        until(
            lambda: run(f"account show --account {bob.account}")["state"] == "cancelled",
            "housekeeping ends the account, and forgets its history",
        )
        run("keys rotate")
        for words in (
            "check --repair",
            "keys show",
            "package add half --kind full --months 6 --retention-days 10 --price USD=1000:100",
            "package price half --price USD=1100:100",
            "package end half",
            f"account suspend --account {ada.account} --reason x",
            f"account resume --account {ada.account} --reason x",
            f"account events --account {ada.account}",
            "accounts dormant",
            "notices send",
            "erasure list",
            "operator-token",
            "sweep",
            "catalog migrate",
            "config",
        ):
            run(words)
        gone = f"erasure verify --device {cameras[1].number}"
        for words in (gone, f"{gone} --backup {backup}"):
            assert run(words)["holds"] is True
        old = f"--backup {backup} --master-key {tmp_path / 'old.key'}"
        assert '"holds": false' in operator.refused(f"{gone} {old}"), "which is looked for, and found"
        assert run("check --deep")["broken"] == []
        assert "not_owner" in operator.refused(f"catalog grant --role {SERVICE}")
        service.stop()
        run("catalog reopen")
        require_rebuild(operator, postgres)
        assert run("check --deep")["broken"] == []


def require_rebuild(operator: Operator, postgres: PostgresServer) -> None:
    """A day's table is lost. Who makes it anew owns it: where that is not the service, it is told what to do."""
    for role in (SERVICE, OWNER):
        with psycopg.connect(postgres.url("home"), autocommit=True) as superuser:
            [name] = (
                superuser.execute(
                    "SELECT max(tablename) FROM pg_tables WHERE tablename LIKE 'packed_%'"
                ).fetchone()
                or ()
            )
            superuser.execute(f"DROP TABLE {name} CASCADE".encode())
        operator.be(role)
        operator.run("catalog rebuild")
        operator.be(SERVICE)
        if role == OWNER:
            assert "clipkeep catalog grant --role" in operator.refused("check")
            operator.be(OWNER)
            operator.run(f"catalog grant --role {SERVICE}")
            operator.be(SERVICE)
        assert operator.run("check")["broken"] == []
