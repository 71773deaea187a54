"""Uploads through all of ingest: a server on a loopback socket, its admission, packing and committing, on the parts of
a world of the retention tests."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio

from ingest.budget import Budget
from ingest.committing import Uploads
from ingest.health import Health
from ingest.keyring import Keyring
from ingest.receiving import Limits, Receiver
from ingest.server import IngestServer, listen
from ingest.stats import Stats
from retention.tokens import mint_device_token
from storage.faults import Fault, FaultKind, FaultyStore
from tests.retention.world import TTL_MS, World, content

MIB = 1 << 20
PATIENT = Limits(
    body_grace_s=60.0, head_timeout_s=60.0, idle_timeout_s=60.0, send_timeout_s=60.0, linger_close_s=0.5
)
ANSWER_S = 20.0

Chunk = tuple[int, int]
"""(device, capture_ms)."""
Answer = tuple[int, str]
"""Status and error code, which is empty when there is none."""


class Interrupted:
    """Stands before a store: once, something happens while objects are on their way; none arrives before it has."""

    def __init__(self, real: Any, act: Callable[[], object]) -> None:
        self._real, self._act = real, act
        self._acted = False
        self._first = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def put(self, key: str, body: bytearray, crc32: int) -> None:
        with self._first:
            if not self._acted:
                self._acted = True
                self._act()
        self._real.put(key, body, crc32)


def uploaded(
    world: World, chunks: Sequence[Chunk], fault: FaultKind | None, meanwhile: Callable[[], object]
) -> list[Answer]:
    """Send chunks on one connection, pipelined, as one device after the other would. Returns the answers, in order.

    Args:
        fault: of every put.
        meanwhile: happens in the thread that stores the first object, before it is there.
    """
    faulty = FaultyStore(
        world.store, lambda op, key, nth: Fault(fault) if fault and op == "put" else None, sleep=time.sleep
    )
    return trio.run(_uploaded, world, chunks, Interrupted(faulty, meanwhile))


async def _uploaded(world: World, chunks: Sequence[Chunk], store: Any) -> list[Answer]:
    stats = Stats()
    keyring = Keyring(world.vault.ensure_each)
    health = Health(lambda: trio.to_thread.run_sync(world.store.server_time_s))
    uploads = Uploads(
        store=store,
        catalog=world.catalog,
        keyring=keyring,
        clock=world.clock,
        health=health,
        stats=stats,
        worker="w0",
        linger_s=0.02,
        target_bytes=MIB,
        max_segments=4,
        prepare_ttl_ms=TTL_MS,
    )
    receiver = Receiver(
        limits=PATIENT,
        budget=Budget(16 * MIB, 16 * MIB, patience_s=2.0, wait_s=10.0),
        bitmap=world.bitmap,
        uploads=uploads,
        health=health,
        stats=stats,
        clock=world.clock,
        token_secret=world.vault.token_secret,
    )
    server = IngestServer(receiver, stats)
    async with trio.open_nursery() as parts:
        await parts.start(keyring.run)
        await parts.start(health.run)
        await parts.start(uploads.run)
        listener = listen("127.0.0.1", 0)
        async with trio.open_nursery() as serving:
            address = listener.getsockname()
            await serving.start(server.run, listener)
            with trio.fail_after(ANSWER_S):
                answers = await _asked(address, [_request(world, *chunk) for chunk in chunks])
            server.stop()
        await uploads.drain()
        parts.cancel_scope.cancel()
    return answers


def _request(world: World, device: int, capture_ms: int) -> bytes:
    row = world.bitmap.read(device)
    assert row is not None
    token = mint_device_token(world.vault.token_secret, device, row.token_generation)
    body = content(device, capture_ms)
    head = (
        f"PUT /v1/devices/{device}/chunks/{capture_ms} HTTP/1.1\r\nHost: here\r\nClip-Duration-Ms: 2000\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _asked(address: tuple[str, int], requests: Sequence[bytes]) -> list[Answer]:
    with trio.socket.socket(socket.AF_INET) as sock:
        await sock.connect(address)
        stream = trio.SocketStream(sock)
        await stream.send_all(b"".join(requests))
        received = b""
        answers: list[Answer] = []
        while len(answers) < len(requests):
            data = await stream.receive_some(65_536)
            assert data, f"the connection ended after {received!r}"
            received += data
            while parsed := _parsed(received):
                answer, received = parsed
                answers.append(answer)
        return answers


def _parsed(received: bytes) -> tuple[Answer, bytes] | None:
    head, found, rest = received.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    length = int(headers["content-length"])
    if len(rest) < length:
        return None
    body = rest[:length]
    return (int(first.split(" ")[1]), json.loads(body)["error"] if body else ""), rest[length:]
