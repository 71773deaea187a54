"""The contract of the ingest port (design §6), row by row, over a real socket."""

from __future__ import annotations

import base64
import errno
import hashlib
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.lowlevel
from structlog.testing import capture_logs

from ingest import server
from ingest.admission import ASKED_AGAIN_MS
from ingest.answers import CHALLENGE, RETRY_AFTER_S
from storage import checksums
from storage.days import MS_PER_DAY
from storage.errors import CorruptError, KeyDestroyed, StoreUnavailable
from storage.faults import Fault, FaultKind, no_faults
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS
from storage.segment import MAX_CHUNK_BYTES
from tests.ingest.conftest import Begin
from tests.ingest.served import PATIENT, Client, Reply, Worker, chunks, until
from tests.ingest.world import NOW_MS, video

DATA = video(5000)

# --- what is stored ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_chunk_is_stored(worker: Worker, client: Client, method: str, chunked: bool) -> None:
    """Invariant 1: 201 means that it can be read, byte for byte."""
    reply = await client.ask(DATA, method=method, chunked=chunked)
    assert (reply.status, reply.body, reply.closes) == (201, b"", False)
    assert worker.stored() == DATA
    assert (worker.stats.chunks, worker.stats.chunk_bytes) == (1, len(DATA))
    assert worker.budget.in_use_bytes == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_same_again_is_200_and_other_bytes_are_409(
    client: Client, worker: Worker, chunked: bool
) -> None:
    assert (await client.ask(DATA, chunked=chunked)).status == 201
    assert (await client.ask(DATA, chunked=chunked)).status == 200
    reply = await client.ask(video(5000, 1), chunked=chunked)
    assert (reply.status, reply.code) == (409, "conflict")
    assert worker.stored() == DATA


@pytest.mark.parametrize("size", [188, 1_000_000])
async def test_sizes(client: Client, worker: Worker, size: int) -> None:
    data = video(size)
    for number, chunked in enumerate((False, True)):
        assert (await client.ask(data, NOW_MS + number, chunked=chunked)).status == 201
        assert worker.stored(1, NOW_MS + number) == data


async def test_the_largest_chunk(client: Client, worker: Worker) -> None:
    """In a segment of its own, sized and chunked, within a share of exactly its size."""
    data = video(MAX_CHUNK_BYTES)
    assert (await client.ask(data)).status == 201
    await client.send(client.request(None, NOW_MS + 1, Transfer_Encoding="chunked") + chunks(data, 1 << 20))
    assert (await client.reply()).status == 201
    assert worker.stored(1, NOW_MS + 1) == worker.stored() == data


async def test_a_share_of_one_largest_chunk_is_enough(begin: Begin) -> None:
    limits = replace(PATIENT, max_chunk_bytes=300_000)
    worker = await begin(limits=limits, share_bytes=300_000, budget_bytes=1_000_000, wait_s=0.3)
    client = await worker.connect()
    for number, chunked in enumerate((False, True, True)):
        data = video(300_000, number)
        assert (await client.ask(data, NOW_MS + number, chunked=chunked)).status == 201


async def test_many_on_one_connection(client: Client, worker: Worker) -> None:
    for number in range(10):
        assert (
            await client.ask(video(2000, number), NOW_MS + number, chunked=bool(number % 2))
        ).status == 201
    assert [worker.stored(1, NOW_MS + n) for n in range(10)] == [video(2000, n) for n in range(10)]
    assert worker.stats.connections == 1


@pytest.mark.parametrize("step", [1, 7, 100])
@pytest.mark.parametrize("chunked", [False, True])
async def test_however_the_bytes_arrive(client: Client, worker: Worker, step: int, chunked: bool) -> None:
    data = video(400)
    wire = client.request(data, chunked=chunked)
    for i in range(0, len(wire), step):
        await client.send(wire[i : i + step])
        await trio.lowlevel.checkpoint()
    assert (await client.reply()).status == 201
    assert worker.stored() == data


async def test_basic_credentials(client: Client, worker: Worker) -> None:
    """What stock ffmpeg sends for http://N:TOKEN@host/."""
    basic = base64.b64encode(f"1:{worker.token()}".encode()).decode()
    wire = client.request(DATA).replace(f"Bearer {worker.token()}".encode(), f"Basic {basic}".encode())
    assert basic.encode() in wire
    await client.send(wire)
    assert (await client.reply()).status == 201


@pytest.mark.parametrize("name", [f"{NOW_MS // 1000}.ts", f"{NOW_MS}.ts"])
async def test_a_live_name_of_10_or_13_digits_is_the_capture_time(
    client: Client, worker: Worker, name: str
) -> None:
    worker.clock.ms += 5000
    assert (await client.ask(DATA, name, chunked=True)).status == 201
    assert worker.stored(1, NOW_MS) == DATA


async def test_other_live_names_are_timed_by_arrival(client: Client, worker: Worker) -> None:
    """All in one millisecond here: bumped by 1 ms until unique, in the order they came."""
    for number in range(3):
        await client.send(
            client.request(video(500, number), f"stream{number}.ts", method="POST", chunked=True)
        )
    for _ in range(3):
        assert (await client.reply()).status == 201
    assert [worker.stored(1, NOW_MS + n) for n in range(3)] == [video(500, n) for n in range(3)]


async def test_two_connections_of_a_device_may_arrive_at_once(worker: Worker) -> None:
    clients = [await worker.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        await client.send(client.request(video(500, number), "stream.ts"))
    for client in clients:
        assert (await client.reply()).status == 201
    assert {worker.stored(1, NOW_MS + n) for n in range(3)} == {video(500, n) for n in range(3)}


@pytest.mark.parametrize(
    ("method", "name", "body"),
    [("PUT", "stream.m3u8", b"#EXTM3U"), ("POST", "STREAM.M3U8", b"#EXTM3U"), ("DELETE", "stream3.ts", b"")],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_playlists_and_deletions_change_nothing(
    client: Client, worker: Worker, method: str, name: str, body: bytes, chunked: bool
) -> None:
    reply = await client.ask(body, name, method=method, chunked=chunked)
    assert (reply.status, reply.body, reply.closes) == (204, b"", False)
    assert not worker.objects.objects
    assert (await client.ask(DATA)).status == 201


async def test_the_answer_to_a_head_has_no_body(client: Client, worker: Worker) -> None:
    """A proxy's keep-alive connection takes what comes behind it for the answer to the next request."""
    await client.send(client.request(None, method="HEAD"))
    await client.send(client.request(DATA))
    with trio.fail_after(10):
        received = b""
        while b"201 Created" not in received:
            received += await client.stream.receive_some()
    first, second, _ = received.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 404 ")
    assert second.startswith(b"HTTP/1.1 201 ")
    assert worker.stored() == DATA


async def test_the_duration_is_the_devices_word_or_the_medias(client: Client, worker: Worker) -> None:
    await client.ask(DATA, NOW_MS, Clip_Duration_Ms="2500")
    await client.ask(DATA, NOW_MS + 1)
    rows = worker.catalog.chunks(1, NOW_MS, NOW_MS + 2, limit=10)
    assert rows[0].duration_ms == 2500
    assert rows[1].duration_ms == 0, "a single frame does not tell"


@pytest.mark.parametrize("chunked", [False, True])
async def test_digests_that_match(client: Client, chunked: bool) -> None:
    sha = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    crc = base64.b64encode(checksums.crc32(DATA).to_bytes(4, "big")).decode()
    for number, digest in enumerate((f"sha-256=:{sha}:", f"crc32=:{crc}:", f"sha-512=:AAAA:, crc32=:{crc}:")):
        assert (await client.ask(DATA, NOW_MS + number, chunked=chunked, Content_Digest=digest)).status == 201


async def test_expect_100_continue_is_answered_before_the_body(client: Client, worker: Worker) -> None:
    wire = client.request(DATA, Expect="100-continue")
    head = wire[: -len(DATA)]
    await client.send(head)
    assert (await client.reply()).status == 100
    await client.send(DATA)
    assert (await client.reply()).status == 201
    await client.send(wire)  # a client need not wait
    assert [(await client.reply()).status for _ in range(2)] == [100, 200]
    assert worker.stored() == DATA


async def test_expect_100_continue_refused(worker: Worker) -> None:
    """The final answer instead of 100, and the end: whether the body follows is anyone's guess."""
    client = await worker.connect()
    await client.send(client.request(DATA, token="wrong", Expect="100-continue")[: -len(DATA)])
    reply = await client.reply()
    assert (reply.status, reply.closes) == (401, True)
    assert await client.ended()


@pytest.mark.parametrize("line", ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"])
async def test_a_client_that_wants_no_more(worker: Worker, line: str) -> None:
    client = await worker.connect()
    await client.send(client.request(DATA).replace(b"HTTP/1.1", line.encode(), 1))
    reply = await client.reply()
    assert (reply.status, reply.closes) == (201, True)
    assert await client.ended()


# --- what is refused --------------------------------------------------------------------------------------------

Prepare = Callable[[Worker], None]
Wire = Callable[[Client], bytes]
LARGEST = 20_000


def nothing(worker: Worker) -> None:
    pass


def suspend(worker: Worker) -> None:
    worker.change(1, lambda facts: replace(facts, suspended=True))


def terminate(worker: Worker) -> None:
    worker.change(1, lambda facts: replace(facts, terminated_ms=NOW_MS))


def start_plan_today(worker: Worker) -> None:
    day = NOW_MS // MS_PER_DAY
    worker.change(1, lambda facts: replace(facts, plans=(replace(facts.plans[0], starts_on=day),)))


def delete_range(worker: Worker) -> None:
    worker.catalog.delete_range(
        1, NOW_MS, NOW_MS + 1, reason="test", who="test", now_ms=NOW_MS, delete_after_ms=NOW_MS
    )


REFUSED: dict[str, tuple[int, str, Prepare, Wire]] = {
    "unknown path": (404, "not_found", nothing, lambda c: c.request(DATA).replace(b"/v1/", b"/v9/")),
    "unknown method": (404, "not_found", nothing, lambda c: c.request(DATA, method="PATCH")),
    "a GET": (404, "not_found", nothing, lambda c: c.request(b"", method="GET")),
    "no token": (401, "bad_token", nothing, lambda c: c.request(DATA).replace(b"Bearer", b"Nothing")),
    "a wrong token": (401, "bad_token", nothing, lambda c: c.request(DATA, token="ckd_nope")),
    "another device's": (
        401,
        "bad_token",
        nothing,
        lambda c: c.request(DATA, token=c.worker.token(2)),
    ),
    "no such device": (401, "bad_token", nothing, lambda c: c.request(DATA, device=50)),
    "a playlist with a wrong token": (
        401,
        "bad_token",
        nothing,
        lambda c: c.request(b"x", "a.m3u8", token="ckd_nope"),
    ),
    "suspended": (403, "suspended", suspend, lambda c: c.request(DATA)),
    "terminated": (403, "terminated", terminate, lambda c: c.request(DATA)),
    "lapsed": (403, "plan_lapsed", lambda w: w.lapse(1), lambda c: c.request(DATA)),
    "not entitled at capture": (
        403,
        "not_entitled_at_capture",
        start_plan_today,
        lambda c: c.request(DATA, NOW_MS - MS_PER_DAY),
    ),
    "clock ahead": (
        422,
        "clock_ahead",
        nothing,
        lambda c: c.request(DATA, NOW_MS + MAX_CLOCK_AHEAD_MS + 1),
    ),
    "expired": (410, "expired", nothing, lambda c: c.request(DATA, NOW_MS - 31 * MS_PER_DAY)),
    "older than any row": (410, "clock_behind", nothing, lambda c: c.request(DATA, 0)),
    "a deleted range": (410, "deleted", delete_range, lambda c: c.request(DATA)),
    "empty": (400, "empty", nothing, lambda c: c.request(b"")),
    "empty and chunked": (400, "empty", nothing, lambda c: c.request(b"", chunked=True)),
    "no length": (400, "empty", nothing, lambda c: c.request(None)),
    "too large": (413, "too_large", nothing, lambda c: c.request(video(LARGEST + 1))),
    "a bad duration": (400, "malformed", nothing, lambda c: c.request(DATA, Clip_Duration_Ms="4s")),
    "an endless duration": (
        400,
        "malformed",
        nothing,
        lambda c: c.request(DATA, Clip_Duration_Ms="9" * 5000),
    ),
    "a bad digest": (400, "malformed", nothing, lambda c: c.request(DATA, Content_Digest="crc32=1")),
    "unknown media": (415, "unknown_media", nothing, lambda c: c.request(b"no video")),
    "unknown media, chunked": (415, "unknown_media", nothing, lambda c: c.request(b"no video", chunked=True)),
    "a digest that differs": (
        422,
        "digest_mismatch",
        nothing,
        lambda c: c.request(DATA, Content_Digest="crc32=:AAAAAA==:"),
    ),
    "a digest that differs, chunked": (
        422,
        "digest_mismatch",
        nothing,
        lambda c: c.request(DATA, chunked=True, Content_Digest="crc32=:AAAAAA==:"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_and_the_connection_works_on(begin: Begin, name: str) -> None:
    """Its body is read and thrown away, so that a keep-alive client survives; nothing of it is stored."""
    status, code, prepare, wire = REFUSED[name]
    worker = await begin(limits=replace(PATIENT, max_chunk_bytes=LARGEST))
    prepare(worker)
    client = await worker.connect()
    for _ in range(2):
        await client.send(wire(client))
        reply = await client.reply()
        assert (reply.status, reply.code, reply.closes) == (status, code, False)
        assert reply.headers.get("www-authenticate") == (CHALLENGE if status == 401 else None)
    assert worker.catalog.latest_chunks(1, limit=10) == []
    assert (await client.ask(DATA, device=2)).status == 201
    assert worker.stats.answers[status, code] == 2
    seen, refused = worker.receiver.sightings.due(trio.current_time(), NOW_MS)
    assert list(seen) == [2]
    counted = {key: count for key, (count, _) in refused.items()}
    assert counted == ({} if code in ANYBODYS else {(1, code): 2}), (
        "of whoever has the token, and nobody else"
    )


ANYBODYS = ("not_found", "bad_token")
DENIED = [
    name
    for name, (status, *_) in REFUSED.items()
    if status in (401, 403, 404) and name not in ("a GET", "a playlist with a wrong token")
]


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("size", [100, 200_000])
async def test_a_denied_body_is_drained_whatever_its_framing(begin: Begin, name: str, size: int) -> None:
    """Stock ffmpeg sends every body chunked, and never looks at the answer."""
    status, _, prepare, wire = REFUSED[name]
    worker = await begin()
    prepare(worker)
    client = await worker.connect()
    head = wire(client).partition(b"\r\n\r\n")[0]
    head = head.replace(f"Content-Length: {len(DATA)}".encode(), b"Transfer-Encoding: chunked")
    assert b"chunked" in head
    await client.send(head + b"\r\n\r\n" + chunks(video(size)) + client.request(DATA, device=2))
    assert [(await client.reply()).status for _ in range(2)] == [status, 201]


def malformed_chunk(client: Client) -> bytes:
    return client.request(None, Transfer_Encoding="chunked") + b"xyz\r\n"


def endless_head(client: Client) -> bytes:
    return client.request(DATA, X_Long="v" * 20_000)


ENDED: dict[str, tuple[int, str, Wire]] = {
    "not HTTP": (400, "malformed", lambda c: b"\x16\x03\x01\x02\x00\x01\x00"),
    "both framings": (
        400,
        "malformed",
        lambda c: c.request(DATA, Transfer_Encoding="chunked"),
    ),
    "two lengths": (
        400,
        "malformed",
        lambda c: c.request(DATA).replace(b"Host: here", b"Content-Length: 1"),
    ),
    "a bad chunk": (400, "malformed", malformed_chunk),
    "two credentials": (400, "malformed", lambda c: c.request(DATA, authorization="Bearer other")),
    "a head too large": (431, "head_too_large", endless_head),
    "a head too large, without an end": (431, "head_too_large", lambda c: endless_head(c)[:19_000]),
    "a chunked body too large": (
        413,
        "too_large",
        lambda c: c.request(video(LARGEST + 1), chunked=True),
    ),
    "a chunked body too large, without an end": (
        413,
        "too_large",
        lambda c: c.request(video(LARGEST + 3000), chunked=True)[:-3000],
    ),
}


@pytest.mark.parametrize("name", ENDED)
async def test_a_refusal_that_ends_the_connection(begin: Begin, name: str) -> None:
    """Where the next request would begin is unknown or too far: one answer that can be read, then the end."""
    status, code, wire = ENDED[name]
    worker = await begin(limits=replace(PATIENT, max_chunk_bytes=LARGEST))
    client = await worker.connect()
    await client.send(wire(client) + client.request(DATA, device=2))
    reply = await client.reply()
    assert (reply.status, reply.code, reply.closes) == (status, code, True)
    assert await client.ended()
    assert not worker.objects.objects, "what follows is no request any more"
    assert worker.stats.answers == {(status, code): 1}


async def test_the_largest_chunked_body_to_the_byte(begin: Begin) -> None:
    worker = await begin(limits=replace(PATIENT, max_chunk_bytes=LARGEST))
    client = await worker.connect()
    assert (await client.ask(video(LARGEST), chunked=True)).status == 201
    assert (await client.ask(video(LARGEST), NOW_MS + 1)).status == 201


# --- not now ------------------------------------------------------------------------------------------------------


def assert_not_now(reply: Reply, code: str) -> None:
    assert (reply.status, reply.code) == (503, code)
    assert reply.headers["retry-after"] == str(RETRY_AFTER_S)


async def test_a_store_that_fails_and_comes_back(client: Client, worker: Worker) -> None:
    """Nothing is acknowledged, new bodies are refused at once, and it heals by itself."""
    worker.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
    assert_not_now(await client.ask(DATA), "not_stored")
    assert_not_now(await client.ask(DATA), "store_unavailable")
    assert worker.stored() is None
    worker.store.plan = no_faults
    with trio.fail_after(10):
        while (reply := await client.ask(DATA)).status != 201:
            assert_not_now(reply, "store_unavailable")
            await trio.sleep(0.05)
    assert worker.stored() == DATA


async def test_a_full_disk(client: Client, worker: Worker) -> None:
    worker.store.plan = lambda op, key, nth: Fault(FaultKind.FULL) if op == "put" and nth == 0 else None
    assert_not_now(await client.ask(DATA), "not_stored")
    assert worker.health.problem is not None
    assert worker.health.problem.code == "store_full"


async def test_a_catalog_that_fails(client: Client, worker: Worker) -> None:
    worker.catalog.faults["commit"] = "after"
    assert_not_now(await client.ask(DATA), "not_stored")
    worker.catalog.faults.clear()
    worker.health.problem = None
    assert (await client.ask(DATA)).status == 200, "it was stored; only the answer was lost"


async def test_a_store_that_is_down_refuses_the_entitled_only(client: Client, worker: Worker) -> None:
    """First match wins: who has no right here hears that, not about our troubles."""
    worker.health.failed(StoreUnavailable("down"))
    assert (await client.ask(DATA, token="wrong")).status == 401
    assert (await client.ask(b"")).code == "empty"
    assert_not_now(await client.ask(DATA), "store_unavailable")


async def test_the_rate_limit(begin: Begin) -> None:
    worker = await begin(limits=replace(PATIENT, chunks_per_s=0.001))
    client = await worker.connect()
    replies = [await client.ask(DATA, NOW_MS + number) for number in range(21)]
    assert [reply.status for reply in replies] == [201] * 20 + [503]
    assert_not_now(replies[-1], "rate_limited")
    assert (await client.ask(DATA, device=2)).status == 201, "each device has its own"


async def test_too_many_connections(begin: Begin) -> None:
    worker = await begin(max_connections=2)
    clients = [await worker.connect() for _ in range(2)]
    for client in clients:
        assert (await client.ask(DATA, "a.ts")).status in (200, 201)
    third = await worker.connect()
    reply = await third.reply()
    assert_not_now(reply, "overloaded")
    assert reply.closes
    assert await third.ended()
    await clients[0].close()
    await until(lambda: len(worker.connections) == 1)
    assert (await (await worker.connect()).ask(DATA, "b.ts")).status in (200, 201)


async def test_a_burst_of_connections_does_not_pass_the_limit(begin: Begin) -> None:
    """Also those that are accepted in one go count."""
    worker = await begin(max_connections=3)
    for number in range(3):
        assert (await (await worker.connect()).ask(DATA, NOW_MS + number)).status == 201
    clients = [await worker.connect() for _ in range(9)]
    turned_away = 0
    await until(lambda: worker.stats.answers[503, "overloaded"] == 9)
    assert len(worker.connections) == 3
    for client in clients:
        with trio.move_on_after(0.02):
            turned_away += (await client.reply()).code == "overloaded"
    assert turned_away == 9


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_a_device_whose_keys_are_destroyed(client: Client, worker: Worker) -> None:
    """Invariant 9: refused for good, not asked to try again."""
    worker.vault.destroy_device(1, below_epoch=1)
    reply = await client.ask(DATA)
    assert (reply.status, reply.code) == (403, "terminated")
    assert (await client.ask(DATA, device=2)).status == 201


async def test_a_device_erased_while_its_body_came(client: Client, worker: Worker) -> None:
    """Invariant 9: the commit decides, by the epoch that admission saw."""
    wire = client.request(DATA)
    await client.send(wire[:-10])
    await until_bodies(worker, 1)
    worker.change(1, lambda facts: replace(facts, erase_epoch=facts.erase_epoch + 1))
    await client.send(wire[-10:])
    reply = await client.reply()
    assert (reply.status, reply.code) == (403, "terminated")
    assert worker.stored() is None


def new_token(worker: Worker) -> None:
    worker.change(1, lambda facts: replace(facts, token_generation=facts.token_generation + 1))


@pytest.mark.parametrize(
    ("lose", "status", "code"),
    [
        (suspend, 403, "suspended"),
        (terminate, 403, "terminated"),
        (lambda worker: worker.lapse(1), 403, "plan_lapsed"),
        (new_token, 401, "bad_token"),
    ],
)
async def test_a_device_that_loses_its_rights_while_its_body_comes(
    client: Client, worker: Worker, lose: Prepare, status: int, code: str
) -> None:
    """The command has returned: what is complete later is not taken, however long ago its head was admitted."""
    wire = client.request(DATA)
    await client.send(wire[:-10])
    await until_bodies(worker, 1)
    lose(worker)
    worker.clock.ms += ASKED_AGAIN_MS
    await client.send(wire[-10:])
    reply = await client.reply()
    assert (reply.status, reply.code) == (status, code)
    assert worker.stored() is None


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyDestroyed("gone"), 403), (CorruptError("flipped", code="key_store_corrupt"), 503)],
)
async def test_a_key_that_cannot_be_had(
    client: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    """One device's damaged key is answered, costs nothing of the budget, and is nobody else's matter."""
    real = worker.vault.ensure_each
    monkeypatch.setattr(
        worker.keyring,
        "_fetch",
        lambda ids: {**real(ids), **{key_id: error for key_id in ids if key_id.device == 1}},
    )
    for _ in range(2):
        assert (await client.ask(DATA)).status == status
    assert worker.budget.in_use_bytes == 0
    assert (await client.ask(DATA, device=2)).status == 201
    assert worker.health.up


async def until_bodies(worker: Worker, count: int) -> None:
    """Until so many connections are in the middle of a body."""
    await until(lambda: sum(connection.body_bytes > 0 for connection in worker.connections) == count)


async def test_out_of_files_is_a_line_each_ten_seconds(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers can keep a worker out of file descriptors; they can't fill its log."""
    monkeypatch.setattr(server, "OUT_OF_RESOURCES_S", 0.0)

    class Full(socket.socket):
        left = 3

        def accept(self) -> Any:
            if Full.left:
                Full.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    listener = Full()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    second = server.IngestServer(worker.receiver, worker.stats)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second._accept, listener, nursery)
            stream = await trio.open_tcp_stream(*listener.getsockname())
            with trio.fail_after(10):
                while Full.left:
                    await trio.lowlevel.checkpoint()
            await stream.aclose()
            nursery.cancel_scope.cancel()
    listener.close()
    assert [entry["event"] for entry in logs] == ["cannot_accept"]
