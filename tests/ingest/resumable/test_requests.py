"""Resumable uploads through a worker: begun, broken, gone on with, finished, ended."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest
import trio

from retention.tokens import mint_device_token
from storage.days import MS_PER_DAY
from storage.rows.recordings import FIRST_PART_MS, ChunkRow
from tests.ingest.conftest import Begin
from tests.ingest.served import FIRST_GENERATION, PATIENT, Client, Reply, Worker, chunks, until
from tests.ingest.world import NOW_MS, TODAY, video

DATA = video(50_000)
UPLOADS = "/v1/devices/1/uploads"


def call(
    worker: Worker,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    device: int = 1,
    token: str | None = None,
    length: int | None = None,
    chunked: bool = False,
    **said: str,
) -> bytes:
    """The bytes of one request. `length`: what it says of its body, which may be less."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: here",
        f"Authorization: Bearer {token or worker.token(device)}",
        "Tus-Resumable: 1.0.0",
        *(f"{name.replace('_', '-')}: {value}" for name, value in said.items()),
    ]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        body = chunks(body)
    else:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    if (body or method == "PATCH") and "Content_Type" not in said:
        lines.append("Content-Type: application/offset+octet-stream")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ask(client: Client, *args: object, **fields: object) -> Reply:
    await client.send(call(client.worker, *args, **fields))  # type: ignore[arg-type]
    return await client.reply()


def metadata(**values: object) -> str:
    return ",".join(
        f"{key} {base64.b64encode(str(value).encode()).decode()}" for key, value in values.items()
    )


async def begun(
    client: Client,
    data: bytes = DATA,
    *,
    capture_ms: int | None = NOW_MS,
    body: bytes = b"",
    device: int = 1,
) -> str:
    """Begin an upload; returns its path."""
    said = {} if capture_ms is None else {"Upload_Metadata": metadata(capture_ms=capture_ms, filename="a.ts")}
    path = f"/v1/devices/{device}/uploads"
    reply = await ask(client, "POST", path, body, device=device, Upload_Length=str(len(data)), **said)
    assert (reply.status, reply.code) == (201, "")
    assert reply.headers["tus-resumable"] == "1.0.0"
    assert reply.headers["upload-offset"] == str(len(body))
    return reply.headers["location"]


async def offset(client: Client, path: str, *, device: int = 1) -> int:
    reply = await head(client, path, device=device)
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    return int(reply.headers["upload-offset"])


async def head(client: Client, path: str, *, device: int = 1) -> Reply:
    await client.send(call(client.worker, "HEAD", path, device=device))
    return await client.reply(of_head=True)


async def go_on(client: Client, path: str, at: int, data: bytes, **fields: object) -> Reply:
    return await ask(client, "PATCH", path, data, Upload_Offset=str(at), **fields)


def recordings(worker: Worker) -> int:
    return len(worker.catalog.chunks(1, 0, NOW_MS + MS_PER_DAY, limit=10))


@pytest.mark.parametrize("chunked", [False, True])
async def test_in_parts(worker: Worker, chunked: bool) -> None:
    client = await worker.connect()
    path = await begun(client)
    assert await offset(client, path) == 0
    for at in range(0, len(DATA), 10_000):
        assert recordings(worker) == 0
        reply = await go_on(client, path, at, DATA[at : at + 10_000], chunked=chunked)
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(at + 10_000))
        assert await offset(client, path) == at + 10_000
    assert worker.stored() == DATA
    assert recordings(worker) == 1
    assert (await go_on(client, path, len(DATA), b"")).status == 204
    assert (await go_on(client, path, 0, DATA)).code == "upload_finished"


async def test_in_one_request_and_with_its_creation(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA)).status == 204
    assert worker.stored() == DATA
    other = video(20_000, seed=3)
    path = await begun(client, other, capture_ms=NOW_MS - 60_000, body=other)
    assert worker.stored(capture_ms=NOW_MS - 60_000) == other
    assert await offset(client, path) == len(other)
    path = await begun(client, other, capture_ms=NOW_MS - 90_000, body=other[:7000])
    assert (await go_on(client, path, 7000, other[7000:])).status == 204
    assert worker.stored(capture_ms=NOW_MS - 90_000) == other


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_what_came_before_it_broke_is_stored(worker: Worker, how: str) -> None:
    """A client's PATCH is the whole file: it would never get on otherwise."""
    client = await worker.connect()
    path = await begun(client)
    at = 0
    for size in (3000, 1, 12_345):
        broken = await worker.connect()
        rest = DATA[at:]
        await broken.send(call(worker, "PATCH", path, rest[:size], length=len(rest), Upload_Offset=str(at)))
        await until(lambda size=size: any(c.body_bytes == size for c in worker.connections))  # type: ignore[misc]
        if how == "close":
            await broken.close()
        else:
            broken.reset()
        at += size
        with trio.fail_after(10):
            while await offset(client, path) != at:  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert (await go_on(client, path, at, DATA[at:])).status == 204
    assert worker.stored() == DATA
    await until(lambda: worker.budget.in_use_bytes == 0)


async def test_of_two_requests_for_one_offset_one_counts(worker: Worker) -> None:
    client, other = await worker.connect(), await worker.connect()
    path = await begun(client)
    await client.send(call(worker, "PATCH", path, DATA[:5000], Upload_Offset="0"))
    await other.send(call(worker, "PATCH", path, DATA[:8000], Upload_Offset="0"))
    replies = [await client.reply(), await other.reply()]
    assert sorted(reply.status for reply in replies) == [204, 409]
    assert await offset(client, path) in (5000, 8000)


async def test_another_offset_than_what_is_stored_is_refused(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    for at in (0, 999, 1001):
        reply = await go_on(client, path, at, DATA[at : at + 100])
        assert (reply.status, reply.code, reply.headers["upload-offset"]) == (409, "offset_mismatch", "1000")


async def test_a_checksum_is_held_to(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    for name in ("sha1", "sha256"):
        right = base64.b64encode(hashlib.new(name, DATA[:100]).digest()).decode()
        reply = await go_on(client, path, 0, DATA[1:101], Upload_Checksum=f"{name} {right}")
        assert (reply.status, reply.code) == (460, "checksum_mismatch")
    assert await offset(client, path) == 0
    assert (await go_on(client, path, 0, DATA[:100], Upload_Checksum=f"sha256 {right}")).status == 204
    assert (await go_on(client, path, 100, DATA[100:200], Upload_Checksum="md5 YQ==")).code == "malformed"
    said = {"Upload_Length": "200", "Upload_Checksum": f"sha256 {right}"}
    assert (await ask(client, "POST", UPLOADS, DATA[1:101], **said)).code == "checksum_mismatch"
    assert (await ask(client, "POST", UPLOADS, DATA[:100], **said)).headers["upload-offset"] == "100"


async def test_one_that_is_ended_is_gone(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    assert (await ask(client, "DELETE", path)).status == 204
    assert (await head(client, path)).status == 410
    assert (await go_on(client, path, 1000, DATA[1000:])).code == "upload_gone"
    assert (await ask(client, "DELETE", path)).code == "upload_gone"
    assert recordings(worker) == 0


async def test_ids_that_are_not_ours(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    assert (await head(client, path[:-2] + ("AA" if path[-2:] != "AA" else "BB"))).status == 404
    assert (await head(client, "/v1/devices/1/uploads/abc")).status == 404
    assert (await head(client, "/v1/devices/1/uploads/%61")).status == 404
    moved = path.replace("/1/", "/2/")
    await client.send(call(worker, "HEAD", moved, device=2))
    assert (await client.reply(of_head=True)).status == 404


def lapse(worker: Worker) -> None:
    worker.lapse(1)


@pytest.mark.parametrize("at", ["creation", "part", "last part"])
async def test_rights_are_asked_each_time(worker: Worker, at: str) -> None:
    client = await worker.connect()
    if at == "creation":
        lapse(worker)
        reply = await ask(client, "POST", "/v1/devices/1/uploads", Upload_Length="5")
        assert reply.code == "plan_lapsed"
        return
    path = await begun(client)
    if at == "last part":
        assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    lapse(worker)
    rest = DATA[1000:] if at == "last part" else DATA[:500]
    assert (await go_on(client, path, 1000 if at == "last part" else 0, rest)).code == "plan_lapsed"
    assert recordings(worker) == 0


async def test_a_token_is_made_new_in_between(worker: Worker) -> None:
    """The old one ends with its answer; the upload is the device's, and goes on with the new one."""
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    worker.change(1, lambda facts: replace(facts, token_generation=facts.token_generation + 1))
    assert (await go_on(client, path, 1000, DATA[1000:])).code == "bad_token"
    assert (await head(client, path)).status == 401
    token = mint_device_token(worker.vault.token_secret, 1, FIRST_GENERATION + 1)
    assert (await go_on(client, path, 1000, DATA[1000:], token=token)).status == 204
    assert worker.stored() == DATA


@pytest.mark.parametrize("expire_h", [1, 24, 25, 240])
async def test_its_time_is_over_at_the_end_of_a_day(begin: Begin, expire_h: int) -> None:
    worker = await begin(limits=replace(PATIENT, tus_expire_h=expire_h))
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    worker.clock.ms = (TODAY + 1 + -(-expire_h // 24)) * MS_PER_DAY - 1
    assert await offset(client, path) == 1000
    worker.clock.ms += 1
    assert (await head(client, path)).status == 410
    assert (await go_on(client, path, 1000, DATA[1000:])).code == "upload_gone"


async def test_without_a_time_it_ends_where_it_was_begun(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client, capture_ms=None)
    worker.clock.ms += 5000
    assert (await go_on(client, path, 0, DATA)).status == 204
    [row] = worker.catalog.chunks(1, 0, NOW_MS + MS_PER_DAY, limit=10)
    assert row.capture_ms == NOW_MS - row.duration_ms


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, "malformed"),
        ({"Upload_Length": "x"}, "malformed"),
        ({"Upload_Length": "0"}, "empty"),
        ({"Upload_Length": str(256 * 1024 * 1024 + 1)}, "too_large"),
        ({"Upload_Length": "5", "Upload_Metadata": "capture_ms ?"}, "malformed"),
        ({"Upload_Length": "5", "Upload_Metadata": metadata(capture_ms="soon")}, "malformed"),
        ({"Upload_Length": "5", "Upload_Metadata": metadata(capture_ms=10**15)}, "time_digits"),
        (
            {"Upload_Length": "5", "Upload_Metadata": metadata(capture_ms=NOW_MS + 10**9)},
            "clock_ahead",
        ),
        ({"Upload_Length": "5", "Upload_Metadata": metadata(duration_ms=0)}, "malformed"),
    ],
)
async def test_creations_that_are_refused(worker: Worker, said: dict[str, str], code: str) -> None:
    client = await worker.connect()
    assert (await ask(client, "POST", "/v1/devices/1/uploads", **said)).code == code


async def test_another_version_of_the_protocol(worker: Worker) -> None:
    client = await worker.connect()
    wire = call(worker, "POST", "/v1/devices/1/uploads", Upload_Length="5")
    await client.send(wire.replace(b"Tus-Resumable: 1.0.0", b"Tus-Resumable: 0.2.2"))
    reply = await client.reply()
    assert (reply.status, reply.headers["tus-version"]) == (412, "1.0.0")
    reply = await ask(client, "OPTIONS", "/v1/devices/1/uploads")
    assert (reply.status, reply.headers["tus-max-size"]) == (204, str(256 * 1024 * 1024))


async def test_what_cannot_be_played_is_refused_when_it_is_whole(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client, b"x" * 5000)
    assert (await go_on(client, path, 0, b"x" * 1000)).status == 204
    assert (await go_on(client, path, 1000, b"x" * 4000)).code == "unknown_media"
    assert await offset(client, path) == 1000


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_commit_that_fails_is_tried_again_by_the_client(begin: Begin, fault: str) -> None:
    worker = await begin()
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    worker.catalog.faults["commit"] = fault
    assert (await go_on(client, path, 1000, DATA[1000:])).code == "not_stored"
    worker.catalog.faults.clear()
    await until(lambda: worker.health.up)
    assert await offset(client, path) == 1000
    assert (await go_on(client, path, 1000, DATA[1000:])).status == 204
    assert worker.stored() == DATA
    assert recordings(worker) == 1


async def test_parts_are_no_init_segments(worker: Worker) -> None:
    """What a device's fragments are read by is not changed by them."""
    client = await worker.connect()
    path = await begun(client)
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    assert worker.catalog.sent_init(1) is None
    assert FIRST_PART_MS < -(2**32)
    assert worker.catalog.latest_chunks(1, limit=10) == []


async def test_a_part_is_not_counted_as_a_chunk(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    before = worker.stats.chunks
    assert (await go_on(client, path, 0, DATA[:1000])).status == 204
    assert worker.stats.chunks == before, "a part is no chunk"
    assert (await go_on(client, path, 1000, DATA[1000:])).status == 204
    assert (worker.stats.chunks, worker.stats.chunk_bytes) == (before + 1, len(DATA))


# --- more than one chunk's bytes --------------------------------------------------------------------------------------

SMALL = replace(PATIENT, max_chunk_bytes=100_000, max_upload_bytes=1_000_000)
"""Pieces of 100,000 bytes."""
LONG = video(900_000)


@pytest.mark.parametrize("how", ["sized", "chunked", "creation"])
async def test_a_large_body_is_stored_piece_by_piece(begin: Begin, how: str) -> None:
    worker = await begin(limits=SMALL, share_bytes=200_000)
    client = await worker.connect()
    if how == "creation":
        path = await begun(client, LONG, body=LONG[:450_001])
    else:
        path = await begun(client, LONG)
        reply = await go_on(client, path, 0, LONG[:450_001], chunked=how == "chunked")
        assert (reply.status, reply.headers["upload-offset"]) == (204, "450001")
    assert await offset(client, path) == 450_001
    rows = parts(worker)
    assert sum(row.length for row in rows) == 450_001
    assert len(rows) >= 4 if how == "chunked" else [row.length for row in rows] == [50_001, *[100_000] * 4]
    assert b"".join(worker.plain(row) for row in rows[::-1]) == LONG[:450_001]
    assert worker.budget.peak_bytes < 600_000, "a share, and what the largest receive may go beyond it"


def parts(worker: Worker) -> list[ChunkRow]:
    """The last one first."""
    return worker.catalog.parts(1, -(1 << 62), FIRST_PART_MS + 1, TODAY + 2, limit=100)


async def test_of_a_large_body_that_breaks_all_that_came_is_stored(begin: Begin) -> None:
    worker = await begin(limits=SMALL)
    client, broken = await worker.connect(), await worker.connect()
    path = await begun(client, LONG)
    await broken.send(call(worker, "PATCH", path, LONG[:333_333], length=len(LONG), Upload_Offset="0"))
    await until(lambda: any(c.body_bytes == 33_333 for c in worker.connections))
    assert await offset(client, path) == 300_000
    broken.reset()
    with trio.fail_after(10):
        while await offset(client, path) != 333_333:  # noqa: ASYNC110
            await trio.sleep(0.01)
    await until(lambda: worker.budget.in_use_bytes == 0)
    assert b"".join(worker.plain(row) for row in parts(worker)[::-1]) == LONG[:333_333]


async def test_a_piece_that_is_not_taken_ends_the_request(begin: Begin) -> None:
    worker = await begin(limits=SMALL)
    client = await worker.connect()
    path = await begun(client, LONG)
    assert (await go_on(client, path, 0, LONG[:10])).status == 204
    reply = await go_on(client, path, 5, LONG[5:500_000])
    assert (reply.status, reply.code, reply.headers["connection"]) == (409, "offset_mismatch", "close")
    client = await worker.connect()
    await client.send(call(worker, "PATCH", path, LONG[10:200_010], length=400_000, Upload_Offset="10"))
    await until(lambda: len(parts(worker)) == 3)
    lapse(worker)
    worker.clock.ms += 200  # it has taken its time: rights are asked again
    await client.send(LONG[200_010:400_010])
    assert (await client.reply()).code == "plan_lapsed"
    assert len(parts(worker)) == 3


async def test_a_checksum_is_of_no_more_than_is_held(begin: Begin) -> None:
    worker = await begin(limits=SMALL)
    client = await worker.connect()
    path = await begun(client, LONG)
    said = f"sha256 {base64.b64encode(hashlib.sha256(LONG[:100_001]).digest()).decode()}"
    reply = await go_on(client, path, 0, LONG[:100_001], Upload_Checksum=said)
    assert (reply.status, reply.code) == (413, "too_large")
    said = f"sha256 {base64.b64encode(hashlib.sha256(LONG[:100_000]).digest()).decode()}"
    assert (await go_on(client, path, 0, LONG[:100_000], Upload_Checksum=said)).status == 204


async def test_an_upload_has_a_largest_size(begin: Begin) -> None:
    worker = await begin(limits=SMALL)
    client = await worker.connect()
    reply = await ask(client, "OPTIONS", "/v1/devices/1/uploads")
    assert reply.headers["tus-max-size"] == "1000000"
    reply = await ask(client, "POST", "/v1/devices/1/uploads", Upload_Length="1000001")
    assert (reply.status, reply.code, reply.headers["tus-max-size"]) == (413, "too_large", "1000000")
    for said in ({"filename": "a.MKV"}, {"filetype": "video/webm;codecs=vp9"}):
        reply = await ask(
            client,
            "POST",
            "/v1/devices/1/uploads",
            Upload_Length="1000000",
            Upload_Metadata=metadata(**said),
        )
        assert (reply.status, reply.code) == (415, "not_cuttable")
