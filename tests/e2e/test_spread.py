"""A device that spreads small chunks over many days of expiry: what the operator pays for them is bounded."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime

import pytest

from tests.e2e.load import chunk_body, read_answer
from tests.e2e.service import Service

pytestmark = pytest.mark.e2e

DAYS = 58
CHUNKS = 696
DAY_MS = 86_400_000


def test_small_chunks_over_58_days_make_few_objects_and_all_are_stored(service: Service) -> None:
    """They made an object each. 12 of a day are sent, and as many share one, but for those of its first four days."""
    service.init()
    now_ms = int(time.time() * 1000)
    began = datetime.fromtimestamp(now_ms / 1000 - 80 * 86_400, UTC).date().isoformat()
    (device,) = service.add_devices(1, "monthly", "--retention-days", "90", "--starts-on", began)
    service.start()
    requests = []
    for number in range(CHUNKS):
        capture_ms = now_ms - number % DAYS * DAY_MS - number - 1000
        body = chunk_body(device.number, capture_ms, 1)
        head = (
            f"PUT /v1/devices/{device.number}/chunks/{capture_ms} HTTP/1.1\r\nHost: clipkeep\r\n"
            f"Authorization: Bearer {device.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    with socket.create_connection(service.ingest, timeout=60) as sock, sock.makefile("rb") as answers:
        sock.sendall(b"".join(requests))
        found = [read_answer(answers.readline, answers.read).status for _ in requests]
    assert found == [201] * CHUNKS
    objects = [path for path in (service.data / "objects" / "v1").rglob("*") if path.is_file()]
    assert len(objects) * 1000 / CHUNKS < 200
