"""What Clipkeep promises while it is measured, checked on the very service that is measured.

A figure bought by a weaker promise is worth nothing. So the first start of every bench asks the running
service for what it must refuse, looks into one object that it put, and into the catalog it committed to; a
bench whose service breaks one of these ends with an error. Settings that differ from the defaults are told.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.media import PACKET_BYTES, transport_stream
from bench.tlsclient import client_context
from bench.wire import Target

TIMEOUT_S = 20.0
CHUNK_BYTES = 64 * 1024
SEED = 7
DAY_MS = 86_400_000
UNENTITLED_DAYS = 9
"""Days before today: no plan of a bench's device covers it, and it would not have expired yet."""
SAMPLE_WAIT_S = 5.0
SYNCHRONOUS_FULL = 2
WAL = "wal"


def check_promises(
    target: Target, store_port: int, data: Path, environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Check a service that takes uploads into a null store, and return what holds, a line each.

    Raises:
        BenchError: a promise does not hold.
    """
    from service.compiled import COMPILED

    _check_admission(target)
    _check_object(target, store_port, data)
    _check_catalog(data)
    return (
        "201: bytes in the store, row committed in the catalog",
        "admission on: a bad token 401, a day without a plan 403, a wrong digest 422",
        "encryption on: AES-256-GCM with the device's key; no plaintext in the object looked into",
        "checksums: CRC-32 of the object sent with it, CRC-32 and CRC-64/NVME of every chunk in its index",
        "durable commits: SQLite in WAL mode with synchronous=FULL",
        _settings_line(data, environment),
        f"hot path: {'compiled' if COMPILED else 'as Python, not compiled'}",
    )


def _check_admission(target: Target) -> None:
    device = target.devices[0]
    now_ms = int(time.time() * 1000)
    body = transport_stream(CHUNK_BYTES, SEED)
    forged = device.token[:-4] + ("AAAA" if not device.token.endswith("AAAA") else "BBBB")
    digest = base64.b64encode(b"\0\0\0\0").decode()
    cases: tuple[tuple[int, str, int, str, dict[str, str]], ...] = (
        (401, "a forged token", now_ms, forged, {}),
        (403, "a day without a plan", now_ms - UNENTITLED_DAYS * DAY_MS, device.token, {}),
        (422, "a wrong digest", now_ms, device.token, {"Content-Digest": f"crc32=:{digest}:"}),
    )
    for wanted, what, capture_ms, token, more in cases:
        status = _put(target, device.number, capture_ms, token, body, more)
        if status != wanted:
            raise BenchError(f"{what} was answered {status}, not {wanted}", subject="promise broken")


def _check_object(target: Target, store_port: int, data: Path) -> None:
    """Upload one chunk, then look at the object that it went into, and for its row."""
    from storage.checksums import crc32, crc64nvme
    from storage.open_catalog import SQLITE, open_catalog
    from storage.segment import parse_segment

    device = target.devices[0]
    body = transport_stream(CHUNK_BYTES, SEED)
    _control(store_port, "POST")
    capture_ms = int(time.time() * 1000) - 1000
    status = _put(target, device.number, capture_ms, device.token, body, {})
    if status != 201:
        raise BenchError(f"a good chunk was answered {status}", subject="promise broken")
    with contextlib.closing(open_catalog(SQLITE, data / "catalog.db")) as catalog:
        if catalog.chunk(device.number, capture_ms) is None:
            raise BenchError("acknowledged, but not in the catalog", subject="promise broken")
    sample = _sample(store_port)
    stored = base64.b64decode(sample["body"])
    _, index = parse_segment(stored)
    [row] = [row for row in index if int(row["capture_ms"]) == capture_ms]
    if (int(row["crc32"]), int(row["crc64"])) != (crc32(body), crc64nvme(body)):
        raise BenchError("the index has other checksums than the chunk", subject="promise broken")
    packets = (body[at : at + PACKET_BYTES] for at in range(0, len(body), PACKET_BYTES))
    if any(packet[4:] in stored for packet in packets):
        raise BenchError("the object holds plaintext", subject="promise broken")
    if not sample["checksum"]:
        raise BenchError("the object was put without a checksum", subject="promise broken")


def _check_catalog(data: Path) -> None:
    """Open the catalog as the service does, and ask SQLite."""
    from storage.sqlite.database import SqliteDatabase

    with (
        contextlib.closing(SqliteDatabase(data / "catalog.db", busy_timeout_s=TIMEOUT_S)) as database,
        database.read() as connection,
    ):
        (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    if (synchronous, journal) != (SYNCHRONOUS_FULL, WAL):
        raise BenchError(
            f"SQLite runs with synchronous={synchronous}, journal_mode={journal}", subject="promise broken"
        )


def _settings_line(data: Path, environment: Mapping[str, str]) -> str:
    """Name every setting that differs from the defaults of `serve`; the store's place is no such."""
    from service.config import Config
    from service.config_text import load_config

    config = load_config(data / "config.toml", {**os.environ, **environment})
    default = Config()
    changed = [
        f"{section.name}.{spec.name}={getattr(getattr(config, section.name), spec.name)!r}"
        for section in fields(Config)
        if section.name != "store"
        for spec in fields(getattr(config, section.name))
        if getattr(getattr(config, section.name), spec.name)
        != getattr(getattr(default, section.name), spec.name)
    ]
    return f"settings changed: {', '.join(changed)}" if changed else "settings: the defaults of `serve`"


def _put(
    target: Target, device: int, capture_ms: int, token: str, body: bytearray, more: Mapping[str, str]
) -> int:
    headers = {"Authorization": f"Bearer {token}", **more}
    connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT_S)
    if target.authority:
        context = client_context(target.authority)
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=TIMEOUT_S, context=context)
    try:
        with contextlib.closing(connection):
            connection.request("PUT", f"/v1/devices/{device}/chunks/{capture_ms}", bytes(body), headers)
            return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"an upload failed: {error}", subject="promises") from error


def _sample(store_port: int) -> dict[str, Any]:
    deadline_s = time.monotonic() + SAMPLE_WAIT_S
    while time.monotonic() < deadline_s:
        sample: dict[str, Any] | None = _control(store_port, "GET")
        if sample is not None:
            return sample
        time.sleep(0.02)
    raise BenchError("acknowledged, but no object reached the store", subject="promise broken")


def _control(store_port: int, method: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", store_port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, "/_sample")
        return json.loads(connection.getresponse().read())
