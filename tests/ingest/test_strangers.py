"""Strangers: what they may hold, whose place they keep, and how long their turn is."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from structlog.testing import capture_logs

from ingest import answers, connection, refusals
from ingest.refusals import LOG_EVERY_S, Refusals
from tests.ingest.conftest import Begin
from tests.ingest.served import PATIENT, Worker, until
from tests.ingest.world import NOW_MS, video

DATA = video(5000)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_HEAD = b"PUT /x HTTP/1.1\r\nHost: a\r\nA: " + b"v" * 1000


async def test_half_heads_are_charged_and_given_back(worker: Worker) -> None:
    client = await worker.connect()
    await client.send(HALF_HEAD)
    await until(lambda: worker.budget.in_use_bytes == len(HALF_HEAD))
    assert worker.receiver.strangers.held_bytes == len(HALF_HEAD)
    await client.send(b"\r\n\r\n")
    assert (await client.reply()).status == 404
    await until(lambda: worker.budget.in_use_bytes == 0)
    assert worker.receiver.strangers.held_bytes == 0


async def test_past_their_bound_the_one_goes_of_whom_some_was_held_for_longest(begin: Begin) -> None:
    worker = await begin(limits=replace(PATIENT, stranger_bytes=3 * len(HALF_HEAD)))
    clients = [await worker.connect() for _ in range(5)]
    for held, client in enumerate(clients, 1):
        await client.send(HALF_HEAD)
        await until(lambda: worker.receiver.strangers.held_bytes == min(held, 3) * len(HALF_HEAD))  # noqa: B023
    for client in clients[:2]:
        reply = await client.reply()
        assert (reply.code, reply.closes) == ("overloaded", True)
    for client in clients[2:]:
        await client.send(b"\r\n\r\n")
        assert (await client.reply()).status == 404
    assert (await (await worker.connect()).ask(DATA)).status == 201


async def test_what_a_device_sends_in_halves_is_no_strangers(begin: Begin) -> None:
    worker = await begin(limits=replace(PATIENT, stranger_bytes=100))
    client = await worker.connect()
    assert (await client.ask(DATA)).status == 201
    wire = client.request(DATA, NOW_MS + 1)
    await client.send(wire[:100])
    await until(lambda: worker.budget.in_use_bytes == 100)
    assert worker.receiver.strangers.held_bytes == 0
    await client.send(wire[100:])
    assert (await client.reply()).status == 201


async def test_strangers_that_are_only_there_keep_nobody_out(begin: Begin) -> None:
    """Past the limit of connections the one makes room that has been a stranger for longest."""
    worker = await begin(max_connections=3)
    known = await worker.connect()
    assert (await known.ask(DATA)).status == 201
    idle = [await worker.connect() for _ in range(2)]
    await until(lambda: len(worker.connections) == 3)
    for number in range(1, 3):
        camera = await worker.connect()
        assert (await camera.ask(DATA, NOW_MS + number)).status == 201
    for client in idle:
        assert await client.ended()
    assert (await known.ask(DATA, NOW_MS + 3)).status == 201
    assert (await (await worker.connect()).reply()).code == "overloaded", "all that are there are known"


async def test_a_turn_is_a_bounded_number_of_requests(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """58,000 requests of one receive were answered in one step of the loop, and stalled everybody for seconds."""
    turns: list[int] = []

    def counting(ready: Callable[[], None]) -> Callable[[], None]:
        def turn() -> None:
            before = worker.stats.answers[404, "not_found"]
            ready()
            turns.append(worker.stats.answers[404, "not_found"] - before)

        return turn

    poller = worker.receiver.poller
    watch, again = poller.watch, poller.again
    monkeypatch.setattr(poller, "watch", lambda sock, ready: watch(sock, counting(ready)))
    monkeypatch.setattr(poller, "again", lambda sock, ready: again(sock, counting(ready)))
    client = await worker.connect()
    await client.send(GET * 500)
    for _ in range(500):
        assert (await client.reply()).status == 404
    assert sum(turns) == 500
    assert max(turns) == connection.REQUESTS_AT_ONCE


async def test_others_have_their_turn_between_those_of_one_that_sends_much(worker: Worker) -> None:
    greedy, modest = await worker.connect(), await worker.connect()
    assert (await modest.ask(DATA)).status == 201
    greedy.send_now(GET * 900)
    modest.send_now(modest.request(b"", "a.m3u8"))
    assert (await modest.reply()).status == 204
    assert worker.stats.answers[404, "not_found"] < 900, "it was not waited for"


async def test_a_receive_of_a_stranger_is_small(worker: Worker) -> None:
    client = await worker.connect()
    client.send_now(GET * 3500)
    await until(lambda: worker.stats.answers[404, "not_found"] > 0)
    assert worker.budget.peak_bytes <= connection.STRANGER_RECEIVE_BYTES
    for _ in range(3500):
        assert (await client.reply()).status == 404


@pytest.mark.parametrize("name", ["x.mpd", "init-stream0.m4s", "a/chunk-stream0-00001.m4s"])
async def test_a_name_of_dash_ends_the_connection_at_once(worker: Worker, name: str) -> None:
    """ffmpeg reads no answers: the sending has to fail, else it exits 0 and nothing was stored."""
    client = await worker.connect()
    await client.send(client.request(bytes(100_000), name)[:-1])
    with trio.fail_after(5):
        try:
            reply = await client.reply()
            assert (reply.status, reply.code, reply.closes) == (415, "unsupported_name", True)
            while True:
                await client.send(b"x")
                await trio.sleep(0.001)
        except trio.BrokenResourceError:
            pass


async def test_a_part_of_a_chunk_is_refused(worker: Worker) -> None:
    """It was stored as the whole, and the whole file drew 409 then."""
    client = await worker.connect()
    reply = await client.ask(DATA, Content_Range="bytes 0-4999/9000")
    assert (reply.status, reply.code) == (400, "partial")
    assert (await client.ask(video(9000))).status == 201


async def test_two_credentials_are_refused(worker: Worker) -> None:
    client = await worker.connect()
    reply = await client.ask(DATA, authorization="Bearer other")
    assert (reply.status, reply.code, reply.closes) == (400, "malformed", True)


async def test_http_1_0_gets_no_100(worker: Worker) -> None:
    client = await worker.connect()
    wire = client.request(DATA, Expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    await client.send(wire)
    assert (await client.reply()).status == 201


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_an_offer_to_upgrade_is_ignored(worker: Worker, upgrade: str) -> None:
    client = await worker.connect()
    for number in range(2):
        reply = await client.ask(DATA, NOW_MS + number, Connection="Upgrade", Upgrade=upgrade)
        assert reply.status == 201


async def test_the_systems_buffer_of_answers_is_small(worker: Worker) -> None:
    await worker.connect()
    await until(lambda: bool(worker.connections))
    size = worker.connections[0].sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert size <= 64 * 1024


# --- in the log -----------------------------------------------------------------------------------------------------


async def test_a_refusal_is_in_the_log_with_device_and_code(worker: Worker) -> None:
    client = await worker.connect()
    with capture_logs() as logs:
        await client.ask(DATA, device=3, token="wrong")
        await client.ask(b"no video", device=2)
        await client.ask(DATA, "a.mkv")
        await client.ask(DATA, device=3, token="wrong")
    told = [(log["code"], log["device"]) for log in logs if log["event"] == "refused"]
    assert told == [("bad_token", 3), ("unknown_media", 2), ("not_found", 1)]


def test_refusals_in_the_log_are_sampled() -> None:
    noted = Refusals()
    with capture_logs() as logs:
        for number in range(1000):
            noted.note(answers.BAD_TOKEN, number / 1000, device=number)
        noted.note(answers.EMPTY, 1.0, target=b"/v1/devices/7/chunks/1")
        noted.note(answers.BAD_TOKEN, LOG_EVERY_S, device=5)
    assert [(log["code"], log["device"], log["more"]) for log in logs] == [
        ("bad_token", 0, 0),
        ("empty", 7, 0),
        ("bad_token", 5, 999),
    ]
    assert refusals.LOG_EVERY_S >= 1
