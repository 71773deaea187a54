"""A PostgreSQL that is frozen, full, a standby, or closes every connection, below a service under load: uploads are
answered in a bounded time by a 503 with a code and Retry-After, readiness says so, memory stays bounded, and all of it
heals by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept, chunk_body
from tests.e2e.service import COMMAND_S, Device, Reply, Service, resident_bytes, until
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

ANSWER_S = 35.0
"""An answer that a frozen catalog was asked for is waited for 20 s, and a connection 10 s."""
SAID_S = 12.0
"""Until the service says that it is not ready: a call is slow after 5 s."""
CAMERAS = 4
BUDGET_BYTES = 64 << 20
MOST_WORKER_BYTES = 150_000_000 + BUDGET_BYTES + (8 * 20 << 20)
"""See *Memory of a worker* in docs/operations.md."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(any_binaries()) as started:
        yield started


@pytest.fixture
def on_postgres(tmp_path: Path, postgres: PostgresServer) -> Iterator[Service]:
    """A service that serves, its catalog on the server."""
    with psycopg.connect(postgres.url(), autocommit=True) as operator:
        operator.execute("DROP DATABASE IF EXISTS faults (FORCE)")
        operator.execute("CREATE DATABASE faults")
    with Service(tmp_path) as service:
        service.command("init", "--catalog", postgres.url("faults"))
        service.configure(ingest_budget_bytes=BUDGET_BYTES, segments_max_segments=8)
        yield service


class Hurt:
    """A service under load, looked at while its catalog is hurt."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.kept = Acknowledged()
        self.devices = service.add_devices(CAMERAS)
        service.start()

    def load(self) -> Load:
        return Load(
            [
                Uploader(self.service, device, self.kept, retry_s=0.2, pause_s=0.05, patience_s=COMMAND_S)
                for device in self.devices
            ]
        )

    def acknowledge_some(self) -> None:
        seen = set(self.kept.chunks)

        def served() -> bool:
            assert not self.kept.surprises, self.kept.surprises[:10]
            return len({device for device, _ in set(self.kept.chunks) - seen}) == CAMERAS

        until(served, "every camera is served", COMMAND_S)

    def is_said(self, *codes: str) -> None:
        """Readiness names one of these, in time; and whoever sends now is answered at once."""
        began_s = time.monotonic()
        until(lambda: self.service.problems().keys() & set(codes), f"readiness names {codes}", SAID_S)
        until(lambda: "w0" in self.service.problems(), "the worker takes nothing", SAID_S)
        assert time.monotonic() - began_s < SAID_S
        # Before or after its feed has not been answered for [hosts] max_stale_s.
        assert self.ask().code in ("store_unavailable", "host_stale")

    def ask(self) -> Reply:
        device: Device = self.devices[0]
        began_s = time.monotonic()
        reply = self.service.put(device, int(time.time() * 1000), b"\x47" + bytes(187))
        assert time.monotonic() - began_s < 2, "it is refused before it is stored"
        assert reply.status == 503
        assert float(reply.headers["Retry-After"]) > 0
        return reply

    def is_well(self) -> None:
        """Ready, nothing lost, and everybody was answered in time."""
        until(lambda: not self.service.problems(), "it is ready again", COMMAND_S)
        self.acknowledge_some()

    def ends_well(self) -> None:
        assert_all_kept(self.service, self.kept)
        assert self.kept.slowest_s < ANSWER_S
        assert self.service.command("check", "--deep")["broken"] == []
        assert self.service.stop() == 0


def test_frozen(on_postgres: Service, postgres: PostgresServer) -> None:
    """It takes connections, and says nothing: no time-out of the server's, and none of TCP's, ends that."""
    hurt = Hurt(on_postgres)
    with hurt.load():
        hurt.acknowledge_some()
        postgres.pause()
        try:
            hurt.is_said("catalog_unavailable")
            time.sleep(25)  # past all answers that were waited for
            hurt.is_said("catalog_unavailable")
            assert resident_bytes(on_postgres.children()["w0"]) < MOST_WORKER_BYTES
        finally:
            postgres.resume()
        hurt.is_well()
    assert any("has not answered" in line for line in on_postgres.lines)
    hurt.ends_well()


def test_a_standby_that_is_promoted_late(on_postgres: Service, postgres: PostgresServer) -> None:
    """It answers every read, and refuses every write: the service is not ready for one moment of it."""
    hurt = Hurt(on_postgres)
    with hurt.load():
        hurt.acknowledge_some()
        postgres.stop()
        (postgres.data / "standby.signal").touch()
        postgres.start()
        until(lambda: "w0" in on_postgres.problems(), "the worker says so", SAID_S)
        until(
            lambda: any("this server is a standby" in line for line in on_postgres.lines), "the log says it"
        )
        for _ in range(20):
            assert "w0" in on_postgres.problems(), "a probe that only reads would take it for healthy"
            time.sleep(0.2)
        with psycopg.connect(postgres.url(), autocommit=True) as operator:
            operator.execute("SELECT pg_promote()")
        hurt.is_well()
    hurt.ends_well()


def test_all_connections_closed_again_and_again(on_postgres: Service, postgres: PostgresServer) -> None:
    hurt = Hurt(on_postgres)
    with hurt.load(), psycopg.connect(postgres.url(), autocommit=True) as operator:
        for _ in range(10):
            hurt.acknowledge_some()
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'faults' AND pid != pg_backend_pid()"
            )
        hurt.is_well()
    hurt.ends_well()


def test_no_connections_left(on_postgres: Service, postgres: PostgresServer) -> None:
    hurt = Hurt(on_postgres)
    with hurt.load(), psycopg.connect(postgres.url(), autocommit=True) as operator:
        hurt.acknowledge_some()
        # A superuser is past any limit but this.
        operator.execute("ALTER DATABASE faults ALLOW_CONNECTIONS false")
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'faults'")
        hurt.is_said("catalog_unavailable")
        operator.execute("ALTER DATABASE faults ALLOW_CONNECTIONS true")
        hurt.is_well()
    hurt.ends_well()


@pytest.mark.parametrize("hurt_how", ["frozen", "gone"])
def test_a_vault_that_is_away(tmp_path: Path, postgres: PostgresServer, hurt_how: str) -> None:
    """It alone, on a server of its own: readiness names it, devices whose keys a worker has are served, and the others
    get a code; all of them when it is back."""
    with psycopg.connect(postgres.url(), autocommit=True) as operator:
        operator.execute("DROP DATABASE IF EXISTS faults (FORCE)")
        operator.execute("CREATE DATABASE faults")
    with postgres_server(any_binaries()) as keeper, Service(tmp_path) as service:
        service.command("init", "--catalog", postgres.url("faults"), "--vault", keeper.url())
        hurt = Hurt(service)
        (unknown,) = service.add_devices(1)
        with hurt.load():
            hurt.acknowledge_some()
            keeper.pause() if hurt_how == "frozen" else keeper.kill()
            try:
                until(lambda: "key_store_unavailable" in service.problems(), "readiness names it", SAID_S)
                reply = service.put(unknown, int(time.time() * 1000), chunk_body(unknown.number, 0, 4))
                assert (reply.status, reply.code) == (503, "not_stored")
                assert float(reply.headers["Retry-After"]) > 0
                hurt.acknowledge_some()
            finally:
                keeper.resume() if hurt_how == "frozen" else keeper.start()
            hurt.is_well()
            assert (
                service.put(unknown, int(time.time() * 1000), chunk_body(unknown.number, 0, 4)).status == 201
            )
        hurt.ends_well()
