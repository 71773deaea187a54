"""Two services with data folders of their own over one home, as two machines have them: what is decided on one holds on
the other, and a host that does not hear home serves nothing."""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest

from tests.e2e.denials import WAYS, deny
from tests.e2e.load import chunk_body
from tests.e2e.long_clips import assert_kept, assert_played_back, made
from tests.e2e.service import SOON_S, Device, Service, until
from tests.e2e.test_long_uploads import asked
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server

pytestmark = pytest.mark.e2e

MAX_STALE_S = 3.0
PACKETS = 20
EVERY_S = 6
"""Between two sweeps, and two renewals. The schedule looks every 5 s."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(any_binaries(), {"max_connections": "200"}) as server:
        with psycopg.connect(server.url(), autocommit=True) as operator:
            operator.execute("CREATE DATABASE home")
            operator.execute("CREATE DATABASE keys")
        yield server


@pytest.fixture(scope="module")
def home_url(postgres: PostgresServer) -> str:
    return postgres.url("home")


@pytest.fixture(scope="module")
def hosts(
    postgres: PostgresServer, home_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Service]]:
    """Two hosts that serve; the second one joined by an invitation."""
    tmp_path = tmp_path_factory.mktemp("hosts")
    for name in "ab":
        (tmp_path / name).mkdir()
    with Service(tmp_path / "a") as a, Service(tmp_path / "b") as b:
        shared = (tmp_path / "objects").as_uri()
        both = {"hosts_max_stale_s": MAX_STALE_S, "schedule_on": "true"}
        both |= {"schedule_sweep_every_s": EVERY_S, "schedule_renew_every_s": EVERY_S}
        a.configure(**both)
        b.configure(**both, hosts_name="bravo")
        a.command("init", "--catalog", home_url, "--vault", postgres.url("keys"), "--store", shared)
        invitation = tmp_path / "invitation"
        a.command("host", "invite", "--out", str(invitation))
        assert invitation.stat().st_mode & 0o777 == 0o600
        b.command("host", "join", str(invitation))
        a.configure(hosts_name="alpha")
        a.start()
        b.start()
        yield a, b


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def upload(service: Service, device: Device, capture_ms: int) -> tuple[int, str]:
    answer = service.put(device, capture_ms, chunk_body(device.number, capture_ms, PACKETS))
    return answer.status, "" if answer.status < 300 else answer.code


def watch(service: Service, device: Device, token: str, capture_ms: int) -> tuple[int, str]:
    answer = service.get(f"/v1/devices/{device.number}/chunks/{capture_ms}", token=token)
    return answer.status, "" if answer.status < 300 else answer.code


def read_to_the_end(connection: socket.socket) -> int:
    """How many bytes still come."""
    found = 0
    with connection, suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            found += len(piece)
    return found


def test_what_is_decided_on_one_host_holds_on_the_other(hosts: tuple[Service, Service]) -> None:
    a, b = hosts
    assert {host["name"]: host["state"] for host in b.command("hosts")["hosts"]} == {
        "alpha": "serves",
        "bravo": "serves",
    }
    [camera] = a.add_devices(1)
    start_ms = now_ms() - 10_000
    assert upload(b, camera, start_ms) == (201, ""), "the command waited for the other host"
    token = b.viewer_token(camera.number)
    assert watch(a, camera, token, start_ms) == (200, ""), "what one host acknowledged the other plays"
    began_s = time.monotonic()
    b.command("device", "terminate", "--device", str(camera.number), "--reason", "sold")
    assert upload(a, camera, start_ms + 1000) == (403, "terminated")
    assert watch(a, camera, token, start_ms) == (403, "terminated")
    took_s = time.monotonic() - began_s
    print(f"terminate returned, and was refused, within {took_s:.2f} s, the command's start included")
    assert a.problems() == b.problems() == {}


def test_every_way_to_take_a_right_away_holds_on_all_hosts(
    hosts: tuple[Service, Service], home_url: str
) -> None:
    a, b = hosts
    cameras = a.add_devices(len(WAYS))
    for way, camera in zip(WAYS, cameras, strict=True):
        start_ms = now_ms() - 10_000
        assert upload(b, camera, start_ms) == (201, "")
        denied = deny(way, home_url, b, hosts, camera, start_ms)
        print(f"{way}: served until {denied.served_s:.2f} s, told after {denied.returned_s:.2f} s")


def test_a_host_whose_feed_is_stopped_serves_nothing_and_is_not_waited_for_long(
    hosts: tuple[Service, Service],
) -> None:
    a, b = hosts
    [camera] = a.add_devices(1)
    start_ms = now_ms() - 10_000
    assert upload(a, camera, start_ms) == (201, "")
    token = a.viewer_token(camera.number)
    feed = b.children()["feed"]
    os.kill(feed, signal.SIGSTOP)
    stopped_s = time.monotonic()
    a.command("device", "suspend", "--device", str(camera.number), "--reason", "late")
    returned_s = time.monotonic() - stopped_s
    assert returned_s >= MAX_STALE_S - 1, "b's stamp ran so long at most"
    assert watch(a, camera, token, start_ms) == (403, "suspended")
    assert watch(b, camera, token, start_ms) == (503, "host_stale")
    assert upload(b, camera, start_ms + 1000) == (503, "host_stale")
    answer = b.put(camera, start_ms + 2000, chunk_body(1, start_ms, PACKETS))
    assert "Retry-After" in answer.headers
    assert "host_stale" in b.problems()
    os.kill(feed, signal.SIGCONT)
    until(lambda: watch(b, camera, token, start_ms) == (403, "suspended"), "the host hears home again")
    until(lambda: b.problems() == {}, "the host is ready again")
    assert a.problems() == {}


def test_a_host_that_was_frozen_as_a_whole_refuses_the_first_request(hosts: tuple[Service, Service]) -> None:
    """All of its processes stand still, and go on; what waited in its sockets meanwhile is not served by old rows."""
    a, b = hosts
    [camera] = a.add_devices(1)
    start_ms = now_ms() - 10_000
    assert upload(a, camera, start_ms) == (201, "")
    token = a.viewer_token(camera.number)
    assert watch(b, camera, token, start_ms) == (200, "")
    path = f"/v1/devices/{camera.number}/chunks/"
    large_ms = start_ms - 60_000
    large = chunk_body(camera.number, large_ms, 4000) * 16
    assert a.put(camera, large_ms, large).status == 201
    slow = socket.create_connection(b.api, SOON_S)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    lines = (f"GET {path}{large_ms} HTTP/1.1", "Host: b", f"Authorization: Bearer {token}", "", "")
    slow.sendall("\r\n".join(lines).encode())
    begun = slow.recv(65536)
    assert begun.startswith(b"HTTP/1.1 200")
    members = b.members()
    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    waiting = [HTTPConnection(*to, timeout=SOON_S) for to in (b.api, b.ingest)]
    waiting[0].request("GET", f"{path}{start_ms}", headers={"Authorization": f"Bearer {token}"})
    body = chunk_body(camera.number, start_ms + 1000, PACKETS)
    waiting[1].request("PUT", f"{path}{start_ms + 1000}", body, {"Authorization": f"Bearer {camera.token}"})
    a.command("device", "suspend", "--device", str(camera.number), "--reason", "late")
    time.sleep(0.5)
    feed = b.children()["feed"]
    for pid in members:  # the feed last, so that it is no race who is first
        if pid != feed:
            os.kill(pid, signal.SIGCONT)
    assert [connection.getresponse().status for connection in waiting] == [503, 503]
    for connection in waiting:
        connection.close()
    rest = read_to_the_end(slow)
    assert rest < len(large) / 2, "what the kernel had already, and no further piece"
    os.kill(feed, signal.SIGCONT)
    until(lambda: watch(b, camera, token, start_ms) == (403, "suspended"), "the host hears home again")


def test_an_upload_goes_on_and_is_finished_on_whatever_host(
    hosts: tuple[Service, Service], tmp_path: Path
) -> None:
    """Its connection to one host breaks, the other goes on; then both are sent its last byte at the same time."""
    a, b = hosts
    film = made(tmp_path)
    data = film.read_bytes()
    [camera] = a.add_devices(1)
    capture_ms = now_ms() - 600_000
    said = base64.b64encode(str(capture_ms).encode()).decode()
    begin = {"Upload_Length": len(data), "Upload_Metadata": f"capture_ms {said}"}
    path = asked(a, camera, "POST", f"/v1/devices/{camera.number}/uploads", **begin).getheader("Location", "")
    with closing(HTTPConnection(*a.ingest, timeout=SOON_S)) as connection:
        connection.putrequest("PATCH", path)
        for name, value in {
            "Authorization": f"Bearer {camera.token}",
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(len(data)),
        }.items():
            connection.putheader(name, value)
        connection.endheaders(data[: len(data) // 2])

    def stored(host: Service) -> int:
        return int(asked(host, camera, "HEAD", path).getheader("Upload-Offset", ""))

    until(lambda: stored(b) == len(data) // 2, "the other host knows all that came")
    at = len(data) // 2
    assert asked(b, camera, "PATCH", path, data[at:-1], Upload_Offset=at).status == 204
    assert stored(a) == len(data) - 1
    with ThreadPoolExecutor(2) as both:
        last = partial(
            asked, device=camera, method="PATCH", path=path, body=data[-1:], Upload_Offset=len(data) - 1
        )
        answers = [answer.status for answer in both.map(last, hosts)]
    assert answers == [204, 204], "the second one found it finished"
    assert stored(a) == stored(b) == len(data)
    assert_kept(a, camera, film, assert_played_back(b, camera, film, capture_ms))


def test_the_schedule_is_run_by_one_host_at_a_time(hosts: tuple[Service, Service]) -> None:
    """Both look; each time one acts, and nobody is told `busy`."""
    a, b = hosts

    def passes() -> list[dict[str, object]]:
        return list(a.command("sweeps", "--limit", "1000")["sweeps"])

    before = len(passes())
    until(lambda: len(passes()) >= before + 3, "the service sweeps by itself", every_s=1.0)
    found = a.command("sweeps", "--limit", "1000")
    assert found["failed"] == []
    every_ms = EVERY_S * 1000
    slots = [(one["started_ms"] - every_ms // 3) // every_ms for one in found["sweeps"]]
    assert len(slots) == len(set(slots)), "one in each stretch of time"
    jobs = {job["job"]: job for job in b.command("schedule")["jobs"]}
    assert jobs.keys() == {"sweep", "renew"}
    for job in jobs.values():
        assert job["host"] in ("alpha", "bravo")
        assert job["outcome"] in ("done", "")
    assert not [line for line in a.lines + b.lines if "job_failed" in line]


def test_a_host_that_stops_leaves_the_list(hosts: tuple[Service, Service]) -> None:
    """The last one: the others need both."""
    a, b = hosts
    assert a.stop() == 0
    assert [host["name"] for host in b.command("hosts")["hosts"]] == ["bravo"]
