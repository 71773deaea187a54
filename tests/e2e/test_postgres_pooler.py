"""A whole service through Debian's PgBouncer in transaction mode, for catalog and vault, with passwords that are in
libpq's own files alone: a service file for the one, a password file for the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import Service, until
from tests.servers.pgbouncer import PgBouncer, pgbouncer, pgbouncer_program
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server

pytestmark = pytest.mark.e2e

DEVICES = 6
HOME, VAULT = "home_user", "vault_user"


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(any_binaries()) as server:
        with psycopg.connect(server.url(), autocommit=True) as operator:
            for role, database in ((HOME, "home"), (VAULT, "keys")):
                operator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'of {role}'".encode())
                operator.execute(f"CREATE DATABASE {database} OWNER {role}".encode())
        yield server


@pytest.fixture
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer]:
    program = pgbouncer_program()
    if program is None:
        pytest.skip("the package pgbouncer is not installed")
    with pgbouncer(program, postgres, {role: f"of {role}" for role in (HOME, VAULT)}) as started:
        yield started


@pytest.mark.long
def test_a_service_through_a_pooler(
    tmp_path: Path, postgres: PostgresServer, pooler: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(
        f"[home]\nhost=127.0.0.1\nport={pooler.port}\ndbname=home\nuser={HOME}\npassword=of {HOME}\n"
    )
    passwords.write_text(f"127.0.0.1:{pooler.port}:keys:{VAULT}:of {VAULT}\n")
    passwords.chmod(0o600)
    for name, path in (("PGSERVICEFILE", services), ("PGPASSFILE", passwords)):
        monkeypatch.setenv(name, str(path))
    with Service(tmp_path) as service:
        vault = f"postgresql://{VAULT}@127.0.0.1:{pooler.port}/keys"
        service.command("init", "--catalog", "postgresql:///?service=home", "--vault", vault)
        written = (service.data / "config.toml").read_text()
        assert f"of {HOME}" not in written
        assert f"of {VAULT}" not in written
        devices = service.add_devices(DEVICES)
        service.start(workers=2)
        kept = Acknowledged()
        uploaders = [Uploader(service, device, kept, packets=(20, 100)) for device in devices]
        with Load(uploaders):
            until(lambda: len(kept.chunks) > 500, "chunks are stored")
            # Behind the pooler, whose connections to the service stay: each transaction under way breaks off.
            postgres.stop()
            time.sleep(2)
            postgres.start()
            before = len(kept.chunks)
            until(lambda: len(kept.chunks) > before + 500, "chunks are stored again")
        assert kept.surprises == []
        until(lambda: not service.problems(), "the service is ready again")
        assert_all_kept(service, kept)
        number = devices[0].number
        token = service.viewer_token(number)
        assert b"#EXTM3U" in service.get(f"/v1/devices/{number}/playlist.m3u8?token={token}").body
        service.command("device", "terminate", "--device", str(devices[1].number), "--erase", "--reason", "x")
        service.command("sweep")
        service.command("keys", "rotate")
        service.command("check", "--deep")
        assert service.stop() == 0
