"""A PostgreSQL whose disk is full: uploads are refused with a code, readiness names it, nothing acknowledged is lost,
and all heals with the space."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept, chunk_body
from tests.e2e.service import COMMAND_S, Device, Reply, Service, until
from tests.e2e.small_disks import fill, mounted
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server

pytestmark = pytest.mark.e2e

SIZE_MIB = 160


@contextmanager
def on_a_small_disk(*, log_too: bool) -> Iterator[tuple[PostgresServer, Path]]:
    """A server whose tables, and with them the write-ahead log or not, are on a disk of their own; and what to fill."""
    with (
        closing(PostgresServer(any_binaries())) as server,
        mounted(server.make_folder("disk"), SIZE_MIB) as disk,
    ):
        for folder, to in (("data/pg_wal", "wal"), ("data", "disk/data")):
            if folder == "data" or not log_too:
                shutil.move(server.folder / folder, server.folder / to)
                (server.folder / folder).symlink_to(server.folder / to)
        subprocess.run(["chown", "-R", f"--reference={server.folder}", disk], check=True)
        server.start()
        yield server, disk / "ballast"
        server.kill()


def start_again(server: PostgresServer) -> None:
    """As a service manager does with a server that ended."""
    with suppress(AssertionError):
        server.kill()
    server.start()


def put(service: Service, device: Device) -> Reply:
    now_ms = int(time.time() * 1000)
    return service.put(device, now_ms, chunk_body(device.number, now_ms, 20))


@pytest.mark.parametrize("log_too", [False, True], ids=["tables", "tables and log"])
def test_the_catalogs_disk(tmp_path: Path, log_too: bool) -> None:
    with on_a_small_disk(log_too=log_too) as (server, ballast), Service(tmp_path) as service:
        service.command("init", "--catalog", server.url())
        devices = service.add_devices(2)
        kept = Acknowledged()
        service.start()
        with Load([Uploader(service, device, kept, patience_s=COMMAND_S) for device in devices]):
            until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
            fill(ballast)
            if log_too:  # the log goes on in the segment that it has: this makes it need the next
                until(
                    lambda: not switches_log(server), "the server ends for want of room", COMMAND_S, every_s=0
                )
            until(lambda: kept.answers[503] > 5, "uploads are refused", COMMAND_S)
            said = {"catalog_unavailable", "catalog_full"} if log_too else {"catalog_full"}
            until(
                lambda: {why.partition(":")[0] for why in service.problems().values()} & said,
                "readyz says so",
            )
            if not log_too:
                for _ in range(20):
                    assert "w0" in service.problems(), "rows that are updated in place would pass for healthy"
                    time.sleep(0.2)
            ballast.unlink()
            if log_too:
                start_again(server)
            stored = len(kept.chunks)
            until(lambda: len(kept.chunks) > stored + 20, "it has healed by itself", COMMAND_S)
            until(lambda: not service.problems(), "readyz says so", COMMAND_S)
        assert_all_kept(service, kept)
        assert service.command("check", "--deep")["broken"] == []
        assert service.stop() == 0


def switches_log(server: PostgresServer) -> bool:
    """Whether the server could begin another segment of its log."""
    try:
        with psycopg.connect(server.url(), autocommit=True) as operator:
            operator.execute("CREATE TABLE IF NOT EXISTS written (n INTEGER)")
            for _ in range(20):
                operator.execute("INSERT INTO written VALUES (1)")
                operator.execute("SELECT pg_switch_wal()")
    except psycopg.OperationalError:
        return False
    return True


def test_the_vaults_disk(tmp_path: Path) -> None:
    """It alone: cameras whose keys are known go on, the others are refused, and readiness names it."""
    with (
        postgres_server(any_binaries()) as catalog,
        on_a_small_disk(log_too=False) as (vault, ballast),
        Service(tmp_path) as service,
    ):
        with psycopg.connect(catalog.url(), autocommit=True) as operator:
            operator.execute("CREATE DATABASE beside")
        service.command("init", "--catalog", catalog.url("beside"), "--vault", vault.url())
        known, *others = service.add_devices(300)
        service.start()
        assert put(service, known).status == 201
        fill(ballast)
        until(lambda: "key_store_full" in service.problems(), "readyz names it")
        replies = (put(service, device) for device in others)  # a page has room for some 60 keys
        refused = next(reply for reply in replies if reply.status != 201)
        assert (refused.status, refused.code) == (503, "not_stored")
        assert float(refused.headers["Retry-After"]) > 0
        assert put(service, known).status == 201
        ballast.unlink()
        until(lambda: not service.problems(), "readyz says so")
        assert put(service, others[-1]).status == 201
        assert service.command("check", "--deep")["broken"] == []
        assert service.stop() == 0
