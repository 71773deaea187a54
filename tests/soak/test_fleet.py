"""Three hosts behind HAProxy: thirty SIGKILLs, one host cut off, one frozen, and home away. docs/benchmarks.md has the
figures of a run.

    make soak ARGS="tests/soak/test_fleet.py -s"

`CLIPKEEP_SOAK_SEED` and `CLIPKEEP_SOAK_KILLS` (30) say what is done; the seed is printed.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.e2e.fleet import fleet_of, require_tools
from tests.e2e.test_fleet import cut_off_hosts_serve_nothing
from tests.e2e.violence import CLIENTS, film_chunks
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.soak

SEED = int(os.environ.get("CLIPKEEP_SOAK_SEED", random.randrange(1 << 32)))
KILLS = int(os.environ.get("CLIPKEEP_SOAK_KILLS", "30"))
CUT_S, FROZEN_S, HOME_AWAY_S = 30.0, 20.0, 60.0


def test_thirty_kills_of_three_hosts(tmp_path: Path, seaweed: SeaweedServer) -> None:
    require_tools()
    settings = {"max_connections": "200", "shared_buffers": "64MB"}
    with (
        postgres_server(any_binaries(), settings) as postgres,
        fleet_of(3, tmp_path, postgres, seaweed, seed=SEED) as fleet,
    ):
        fleet.start()
        devices = fleet.add_devices(CLIENTS + 1)
        with fleet.load(devices[:CLIENTS], film_chunks(tmp_path), pause_s=1.0):
            fleet.heal()
            cut_off_hosts_serve_nothing(fleet, tmp_path, devices[-1].number, devices[-1].token)
            fleet.heal()
            events = ["kill"] * KILLS + ["cut", "freeze", "home"]
            fleet.random.shuffle(events)
            for number, event in enumerate(events, 1):
                n = fleet.random.randrange(3)
                fleet.tell(f"{number}: {event} {'' if event == 'home' else fleet.network.names[n]}")
                if event == "kill":
                    fleet.kill(n)
                elif event == "cut":
                    fleet.cut(n, CUT_S)
                elif event == "freeze":
                    fleet.freeze(n, FROZEN_S)
                else:
                    postgres.kill()
                    time.sleep(HOME_AWAY_S)
                    assert all("catalog_unavailable" in str(host.problems()) for host in fleet.hosts)
                    postgres.start()
                fleet.heal()
                time.sleep(fleet.random.uniform(0, 2))
        fleet.assert_sound()


def test_home_fails_over(tmp_path: Path, seaweed: SeaweedServer) -> None:
    """The primary is lost under load, and its synchronous standby takes over for three hosts."""
    require_tools()
    settings = {"max_connections": "200", "shared_buffers": "64MB"}
    with postgres_server(any_binaries(), settings) as primary:
        standby = PostgresServer(any_binaries(), settings, copy_of=primary, follows=True)
        with closing(standby):
            standby.start()
            _set(primary, "synchronous_standby_names", "*")
            with fleet_of(
                3, tmp_path, primary, seaweed, seed=SEED, standby=standby, survives="primary_loss"
            ) as fleet:
                fleet.start()
                devices = fleet.add_devices(CLIENTS)
                with fleet.load(devices, film_chunks(tmp_path), pause_s=0.5):
                    fleet.heal()
                    primary.kill()
                    time.sleep(10)
                    before = len(fleet.kept.chunks)
                    time.sleep(5)
                    assert len(fleet.kept.chunks) == before, "nothing is acknowledged without a home"
                    standby.promote()
                    _set(standby, "synchronous_standby_names", "")
                    fleet.heal()
                fleet.assert_sound()


def _set(server: PostgresServer, name: str, value: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")
