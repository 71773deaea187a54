"""A vault on PostgreSQL that is frozen: who needs a key is told within `[home] answer_s`, cameras whose keys are known
go on, and all heals by itself."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.e2e.customers import Town
from tests.e2e.load import chunk_body
from tests.e2e.service import Device, Service, until
from tests.servers.postgres import any_binaries, postgres_server

pytestmark = pytest.mark.e2e

ANSWER_S = 3.0
BOUND_S = 3 * ANSWER_S
"""For a turn, a connection and an answer, and for a machine that does other things too. By default commands wait 65 s,
and so did every request that needs an account's key."""


def test_a_frozen_vault_is_waited_for_as_long_as_is_configured(tmp_path: Path) -> None:
    with postgres_server(any_binaries()) as catalog, postgres_server(any_binaries()) as vault:
        with psycopg.connect(catalog.url(), autocommit=True) as operator:
            operator.execute("CREATE DATABASE frozen")
        with Service(tmp_path) as service:
            service.command("init", "--catalog", catalog.url("frozen"), "--vault", vault.url())
            service.configure(home_answer_s=ANSWER_S)
            known, unknown = service.add_devices(2)
            tokens = service.viewer_tokens([known.number])
            service.start()
            town = Visitors(service)
            stored_ms = put(service, known, 201)
            vault.pause()
            try:
                until(lambda: "key_store_unavailable" in service.problems(), "readiness names it")
                put(service, known, 201)
                with ThreadPoolExecutor(12) as threads:
                    began_s = time.monotonic()
                    cameras = [threads.submit(put, service, unknown, 503) for _ in range(4)]
                    path = f"/v1/devices/{known.number}/chunks/{stored_ms}"
                    viewers = [
                        threads.submit(service.get, path, token=tokens[known.number]) for _ in range(4)
                    ]
                    visitors = [threads.submit(town.register, f"ada{n}@example.org") for n in range(4)]
                    for viewer in viewers:
                        assert (viewer.result().status, viewer.result().code) == (
                            503,
                            "key_store_unavailable",
                        )
                    for visitor in visitors:
                        assert visitor.result().status == 503
                    for camera in cameras:
                        camera.result()
                    assert time.monotonic() - began_s < BOUND_S
            finally:
                vault.resume()
            until(lambda: not service.problems(), "it is ready again")
            put(service, unknown, 201)
            assert service.get(path, token=tokens[known.number]).status == 200
            assert town.register("ada@example.org").status == 201
            assert service.stop() == 0


class Visitors(Town):
    """On the host's own clock."""

    def __init__(self, service: Service) -> None:
        self.service = service


def put(service: Service, device: Device, status: int) -> int:
    """A chunk of now. Returns its time."""
    now_ms = int(time.time() * 1000)
    reply = service.put(device, now_ms, chunk_body(device.number, now_ms, 20))
    assert reply.status == status, reply
    if status == 503:
        assert reply.code == "not_stored"
        assert float(reply.headers["Retry-After"]) > 0
    return now_ms
