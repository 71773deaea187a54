"""A graceful stop under load: what was sent whole is stored and answered, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from http.client import HTTPConnection

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept, chunk_body, read_answer
from tests.e2e.service import Device, Service, until

pytestmark = pytest.mark.e2e

LONG_LINGER_MS = 3000
"""So that what was sent is certainly not yet answered when the stop begins."""
DOWNLOADED = 40
"""Chunks of 750 kB: far more than sockets hold."""


def request(device: Device, capture_ms: int, packets: int = 100) -> bytes:
    body = chunk_body(device.number, capture_ms, packets)
    return (
        f"PUT /v1/devices/{device.number}/chunks/{capture_ms} HTTP/1.1\r\nHost: clipkeep\r\n"
        f"Authorization: Bearer {device.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_under_load_nothing_is_lost(service: Service, number: int) -> None:
    service.init()
    devices = service.add_devices(6)
    kept = Acknowledged()
    service.start(workers=2)
    uploaders = [Uploader(service, device, kept, new=device.number % 2 == 0) for device in devices]
    with Load(uploaders):
        until(lambda: len(kept.chunks) > 50, "chunks are acknowledged")
        began_s = time.monotonic()
        assert service.stop(number) == 0
        assert time.monotonic() - began_s < 20, "well within stop_deadline_s"
        assert service.members() == []
    service.start()
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("found", "told"),
    [("nothing", None), ("no bitmap", "numbers_raised"), ("damage in the store", "numbers_not_reserved")],
)
def test_stderr_is_json_from_the_start_to_the_end(service: Service, found: str, told: str | None) -> None:
    """One log for machines, whatever a start has to tell: whoever reads it knows when the service started, served and
    stopped."""
    service.init()
    service.add_devices(1)
    if found == "no bitmap":
        (service.data / "entitlements.bitmap").unlink()
    elif found == "damage in the store":
        (service.data / "objects/sweep/numbers").write_bytes(b"none")
    began = len(service.lines)
    service.start(workers=2)
    assert service.stop() == 0
    until(lambda: any('"stopped"' in line for line in service.lines), "the last line was read")
    lines = [json.loads(line) for line in service.lines[began:]]
    events = [line["event"] for line in lines if line["process"] == "supervisor"]
    assert events[0] == "starting"
    assert events[-1] == "stopped"
    assert events.index("serving") < events.index("stopping")
    ready, gone = ([x["child"] for x in lines if x["event"] == e] for e in ("child_ready", "child_stopped"))
    assert sorted(ready) == sorted(gone) == ["api", "feed", "w0", "w1"]
    assert gone[-1] == "feed", "the others need it to the end"
    assert {line["exit"] for line in lines if line["event"] == "child_stopped"} == {0}
    assert told is None or told in events


def test_a_second_signal_changes_nothing(service: Service) -> None:
    service.init()
    (device,) = service.add_devices(1)
    service.configure(segments_linger_ms=LONG_LINGER_MS)
    service.start()
    now_ms = int(time.time() * 1000)
    with socket.create_connection(service.ingest, timeout=60) as sock, sock.makefile("rb") as reader:
        sock.sendall(request(device, now_ms))
        until(lambda: service.by_worker("clipkeep_ingest_budget_bytes").get("w0"), "the body has arrived")
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            service.send(number)
            time.sleep(0.2)
        assert read_answer(reader.readline, reader.read).status == 201
    assert service.wait() == 0
    assert service.members() == []


def test_ctrl_c_reaches_all_processes_and_is_graceful_all_the_same(service: Service) -> None:
    """A terminal sends SIGINT to the whole group; the supervisor's own signal is then the second one."""
    service.init()
    (device,) = service.add_devices(1)
    service.configure(segments_linger_ms=LONG_LINGER_MS)
    service.start(workers=2)
    now_ms = int(time.time() * 1000)
    with socket.create_connection(service.ingest, timeout=60) as sock, sock.makefile("rb") as reader:
        sock.sendall(request(device, now_ms))
        until(lambda: sum(service.by_worker("clipkeep_ingest_budget_bytes").values()), "the body has arrived")
        os.killpg(service.pid, signal.SIGINT)
        assert read_answer(reader.readline, reader.read).status == 201
    assert service.wait() == 0


def test_every_complete_body_is_answered_and_a_half_sent_one_may_finish(service: Service) -> None:
    service.init()
    idle, pipelining, slow = service.add_devices(3)
    service.configure(segments_linger_ms=LONG_LINGER_MS)
    service.start()
    now_ms = int(time.time() * 1000)
    pipelined = b"".join(request(pipelining, now_ms - i) for i in range(20))
    halves = request(slow, now_ms)
    with (
        socket.create_connection(service.ingest, timeout=60) as a,
        socket.create_connection(service.ingest, timeout=60) as b,
        socket.create_connection(service.ingest, timeout=60) as c,
    ):
        del idle
        b.sendall(pipelined)
        c.sendall(halves[: len(halves) // 2])
        sent = 20 * len(chunk_body(1, 1, 100))
        until(
            lambda: service.by_worker("clipkeep_ingest_budget_bytes").get("w0", 0) > sent, "all has arrived"
        )
        service.send(signal.SIGTERM)
        assert a.recv(1) == b"", "an idle connection ends at once"
        with b.makefile("rb") as reader:
            for _ in range(20):
                assert read_answer(reader.readline, reader.read).status == 201
        c.sendall(halves[len(halves) // 2 :])
        with c.makefile("rb") as reader:
            last = read_answer(reader.readline, reader.read)
            assert (last.status, last.close) == (201, True)
    assert service.wait() == 0
    service.start()
    assert service.stop() == 0


def test_a_body_that_never_ends_is_let_go_at_the_deadline(service: Service) -> None:
    service.init()
    stuck, device = service.add_devices(2)
    service.configure(ingest_stop_deadline_s=3)
    service.start()
    now_ms = int(time.time() * 1000)
    with socket.create_connection(service.ingest, timeout=60) as sock:
        sock.sendall(request(stuck, now_ms)[:-1])
        assert service.put(device, now_ms, chunk_body(device.number, now_ms, 50)).status == 201
        began_s = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began_s < 20
        rest = sock.recv(1 << 16)
        assert b" 201 " not in rest, "an incomplete body is never acknowledged"


def test_a_stop_while_it_still_starts(service: Service) -> None:
    """No process shows a traceback, whenever the signal comes."""
    service.init()
    for pause_s in (0.9, 1.3, 1.7, 2.2):
        service.launch(workers=2)
        time.sleep(pause_s)
        code = service.stop()
        assert code in (0, 130, -signal.SIGTERM)
        assert service.members() == []


def test_ctrl_c_while_it_still_starts(service: Service) -> None:
    """Children are still importing what they are made of, and know of no signals."""
    service.init()
    for pause_s in (0.0, 0.2, 0.4, 0.8):
        service.launch(workers=2)
        until(service.children, "the first child is there", every_s=0.01)
        time.sleep(pause_s)
        os.killpg(service.pid, signal.SIGINT)
        assert service.wait() == 0
        assert service.members() == []


def test_a_download_under_way_finishes(service: Service) -> None:
    service.init()
    (device,) = service.add_devices(1)
    service.start()
    body = chunk_body(device.number, 0, 4000)
    now_ms = int(time.time() * 1000)
    for i in range(DOWNLOADED):
        assert service.put(device, now_ms - i, body).status == 201
    token = service.viewer_token(device.number)
    connection = HTTPConnection(*service.api, timeout=60)
    try:
        url = f"/v1/devices/{device.number}/clip.ts?from={now_ms - 1000}&to={now_ms + 1}&token={token}"
        connection.request("GET", url)
        answer = connection.getresponse()
        read = len(answer.read(1 << 16))
        service.send(signal.SIGTERM)
        time.sleep(1)
        while piece := answer.read(1 << 20):
            read += len(piece)
        assert read == DOWNLOADED * len(body)
    finally:
        connection.close()
    assert service.wait() == 0
