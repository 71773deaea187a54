"""The primary is lost for good, and its synchronous standby takes over: all that was acknowledged is there, and the
service heals by itself. And a catalog that is restored to a point in time deletes nothing and gives no number again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.e2e.load import earlier_today_ms
from tests.e2e.service import Service, until
from tests.ingest.world import video
from tests.servers.postgres import PostgresServer, any_binaries

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

SYNCED = {"shared_buffers": "32MB"}


@pytest.fixture
def binaries() -> Path:
    return any_binaries()


@pytest.fixture
def primary(binaries: Path) -> Iterator[PostgresServer]:
    """A server that archives its log."""
    with closing(PostgresServer(binaries, SYNCED)) as server:
        archive = server.make_folder("archive")
        server.configure({"archive_mode": "on", "archive_command": f"'cp %p {archive}/%f'"})
        server.start()
        yield server


def test_what_was_acknowledged_survives_the_loss_of_the_primary(
    tmp_path: Path, binaries: Path, primary: PostgresServer
) -> None:
    standby = PostgresServer(binaries, SYNCED, copy_of=primary, follows=True)
    with closing(standby), Service(tmp_path, environ={"CLIPKEEP_HOME_SURVIVES": "primary_loss"}) as service:
        standby.start()
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://{primary.user}@{hosts}/postgres?target_session_attrs=read-write"
        service.environ["PGPASSWORD"] = primary.password
        refused = service.run("init", "--catalog", url, "--json")
        assert "without a synchronous standby" in refused.stdout + refused.stderr
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        service.command("init", "--catalog", url)
        [device] = service.add_devices(1)
        service.start()
        assert json.loads(service.get("/readyz").body)["survives"] == {"catalog": "primary_loss"}

        first_ms = earlier_today_ms(600_000)
        acknowledged: list[int] = []

        def upload(count: int) -> None:
            until(lambda: put() and len(acknowledged) >= count, f"{count} chunks are stored", every_s=0.02)

        def put() -> bool:
            at = first_ms + len(acknowledged) + tried[0]
            answer = service.put(device, at, video(2000))
            if answer.status == 201:
                acknowledged.append(at)
            else:
                assert answer.status == 503, answer
                tried[0] += 1
            return answer.status == 201

        tried = [0]
        upload(30)
        primary.kill()
        assert not put()
        standby.promote()
        with psycopg.connect(standby.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            connection.execute("SELECT pg_reload_conf()")
        upload(60)
        until(lambda: not service.problems(), "it is ready again")
        token = service.viewer_token(device.number)
        for at in acknowledged:
            answer = service.get(f"/v1/devices/{device.number}/chunks/{at}", token=token)
            assert answer.status == 200, at
            assert answer.body == video(2000)
        assert service.command("check", "--deep")["broken"] == []
        service.stop()


def test_a_catalog_restored_to_a_point_in_time(
    tmp_path: Path, binaries: Path, primary: PostgresServer
) -> None:
    with Service(tmp_path) as service:
        service.environ["PGPASSWORD"] = primary.password
        url = f"postgresql://{primary.user}@127.0.0.1:{primary.port}/postgres"
        service.command("init", "--catalog", url)
        service.add_devices(2)
        backup = PostgresServer(binaries, {"shared_buffers": "32MB"}, copy_of=primary)
        with closing(backup):
            service.add_devices(1)
            with psycopg.connect(primary.url(), autocommit=True) as connection:
                connection.execute("SELECT pg_create_restore_point('then')")
            later = service.add_devices(3)
            assert [device.number for device in later] == [4, 5, 6]
            service.command("sweep")
            with psycopg.connect(primary.url(), autocommit=True) as connection:
                connection.execute("SELECT pg_switch_wal()")
            primary.stop()  # waits until all is archived

            backup.configure(
                {
                    "restore_command": f"'cp {primary.folder}/archive/%f %p'",
                    "archive_mode": "off",
                    "recovery_target_name": "'then'",
                    "recovery_target_action": "'promote'",
                    "port": str(primary.port),
                }
            )
            backup.make_file("recovery.signal")
            backup.port = primary.port
            backup.start()
            with psycopg.connect(backup.url()) as connection:
                assert connection.execute("SELECT max(device) FROM devices").fetchone() == (3,)
            refused = service.run("sweep", "--json")
            assert "catalog_restored" in refused.stdout + refused.stderr
            (service.data / "entitlements.bitmap").rename(tmp_path / "aside")
            service.start()
            [device] = service.add_devices(1)
            assert device.number > later[-1].number, "its token may be out"
            service.stop()
