"""How soon three hosts refuse what one was told to refuse: all there, one frozen, one cut off; and at a midnight.
docs/benchmarks.md has the figures of a run.

    make soak ARGS="tests/soak/test_denials.py -s"

`CLIPKEEP_SOAK_ROUNDS` (5) says how often each way is tried.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest

from tests.e2e.denials import PACKETS, WAYS, Watcher, deny
from tests.e2e.fleet import Fleet, fleet_of, require_tools
from tests.e2e.load import chunk_body
from tests.e2e.service import Device, Service, until
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.soak

ROUNDS = int(os.environ.get("CLIPKEEP_SOAK_ROUNDS", "5"))
MAX_STALE_S = 5.0
SOON_S = 2.0
SETTINGS = {"max_connections": "200", "shared_buffers": "64MB"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    require_tools()
    with postgres_server(any_binaries(), SETTINGS) as server:
        yield server


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def all_there(fleet: Fleet, n: int) -> Iterator[None]:
    yield


@contextmanager
def frozen(fleet: Fleet, n: int) -> Iterator[None]:
    """Its processes stand still; the feed is the last one to go on."""
    host = fleet.hosts[n]
    members, feed = host.members(), host.children()["feed"]
    members.sort(key=feed.__eq__)
    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in members:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def cut_off(fleet: Fleet, n: int) -> Iterator[None]:
    fleet.network.cut(n)
    try:
        yield
    finally:
        fleet.network.mend(n)


@pytest.mark.parametrize("away", [all_there, frozen, cut_off])
def test_every_way_to_take_a_right_away(
    postgres: PostgresServer,
    seaweed: SeaweedServer,
    tmp_path: Path,
    away: Callable[[Fleet, int], contextmanager[None]],
) -> None:
    with fleet_of(3, tmp_path, postgres, seaweed, seed=0, max_stale_s=MAX_STALE_S) as fleet:
        fleet.start()
        devices = fleet.add_devices(ROUNDS * len(WAYS))
        hosts = fleet.hosts
        for way in WAYS:
            found = []
            for number in range(ROUNDS):
                device, start_ms = devices.pop(), now_ms() - 10_000
                away_one = 2 if away is not all_there else None
                sent = hosts[2].put(device, start_ms, chunk_body(device.number, start_ms, PACKETS))
                assert sent.status == 201, sent
                token = hosts[0].viewer_token(device.number)
                assert (
                    hosts[2].get(f"/v1/devices/{device.number}/chunks/{start_ms}", token=token).status == 200
                )
                there = [host for n, host in enumerate(hosts) if n != away_one]
                with away(fleet, 2):
                    found.append(deny(way, postgres.url("home"), hosts[number % 2], there, device, start_ms))
                assert_refused_when_back(hosts[2], device, token, start_ms, way)
                until(lambda: not hosts[2].problems(), "it is ready again")
            served, returned = ([pair[i] for pair in found] for i in (1, 0))
            fleet.tell(
                f"{away.__name__}, {way}: last served {max(served):.2f} s after (median {median(served):.2f}),"
                f" told after {max(returned):.2f} s (median {median(returned):.2f})"
            )
            assert max(served) <= SOON_S
            assert max(returned) <= SOON_S + MAX_STALE_S


def assert_refused_when_back(host: Service, device: Device, token: str, capture_ms: int, way: str) -> None:
    """Its first answers, and those after it has heard of it."""
    with Watcher([host], device, token, capture_ms) as watcher:
        until(
            lambda: watcher.statuses & {("get", status) for status in (403, 404, 410)}, f"{way} has arrived"
        )
    assert not watcher.last_served_s, watcher.statuses


def test_plans_that_end_at_midnight(postgres: PostgresServer, seaweed: SeaweedServer, tmp_path: Path) -> None:
    """A trial that lapses, and a monthly plan that was cancelled: no host is told anything on the day."""
    with fleet_of(3, tmp_path, postgres, seaweed, seed=0, max_stale_s=MAX_STALE_S) as fleet:
        for host in fleet.hosts:
            host.configure(clock_test="true")
        fleet.start()
        [lapses] = fleet.hosts[0].add_devices(1, "trial")
        [cancelled] = fleet.hosts[0].add_devices(1, "monthly")
        fleet.hosts[0].command("plan", "cancel", "--device", str(cancelled.number), "--reason", "moved away")
        for device in (lapses, cancelled):
            [plan] = fleet.hosts[0].command("plan", "list", "--device", str(device.number))["plans"]
            late_s = served_after_midnight(fleet, device, date.fromisoformat(plan["ends_on"]))
            fleet.tell(f"{plan['plan']} ended at midnight: last served {late_s:.2f} s after")
            assert late_s <= SOON_S


def served_after_midnight(fleet: Fleet, device: Device, last_day: date) -> float:
    """How long after the end of that day a request began that a host still served; negative: before it."""
    midnight = datetime(last_day.year, last_day.month, last_day.day, tzinfo=UTC) + timedelta(days=1)
    offset_s = round(midnight.timestamp() - 15 - time.time())
    for host in fleet.hosts:
        host.command("clock", "--offset", f"{offset_s}s")
    midnight_s = midnight.timestamp() - offset_s
    capture_ms = now_ms() + offset_s * 1000 - 1000
    sent = fleet.hosts[0].put(device, capture_ms, chunk_body(device.number, capture_ms, PACKETS))
    assert sent.status == 201, sent
    token = fleet.hosts[0].viewer_token(device.number)
    with Watcher(fleet.hosts, device, token, capture_ms) as watcher:
        time.sleep(max(0.0, midnight_s + 3 - time.time()))
    assert watcher.last_served_s > midnight_s - 1, "it was served until then"
    assert ("get", 403) in watcher.statuses
    return watcher.last_served_s - midnight_s
