"""Chunks that wait for others of their day, on a connection: it is read on, within bounds, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import trio

from ingest.budget import REQUEST_BYTES
from ingest.gathering import Gathering
from storage.days import MS_PER_DAY
from tests.ingest.conftest import Begin
from tests.ingest.served import PATIENT
from tests.ingest.world import NOW_MS, video

DAYS = 10
SIZE = 188
FOR_EVER_S = 1000.0


def days_apart(number: int) -> int:
    return NOW_MS - number % DAYS * MS_PER_DAY - number


async def until_waiting(gathering: Gathering, chunks: int) -> None:
    with trio.fail_after(20):
        while gathering.waiting_bytes < chunks * (SIZE + REQUEST_BYTES):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_sixteen_of_a_day_share_an_object(begin: Begin) -> None:
    """Without waiting, though no more than 64 answers are owed otherwise."""
    worker = await begin(gathering=Gathering(wait_s=FOR_EVER_S))
    client = await worker.connect()
    count = 4 + 16 * DAYS
    await client.send(b"".join(client.request(video(SIZE, n), days_apart(n)) for n in range(4)))
    assert [(await client.reply()).status for _ in range(4)] == [201] * 4
    more = [days_apart(n) for n in range(4, count + DAYS) if n % DAYS >= 4][: 16 * 6]
    await client.send(b"".join(client.request(video(SIZE, n), ms) for n, ms in enumerate(more)))
    with trio.fail_after(20):
        assert [(await client.reply()).status for _ in more] == [201] * len(more)
    assert len(worker.objects.objects) == 4 + 6
    assert worker.budget.in_use_bytes == 0
    assert worker.gathering.waiting_bytes == 0


async def test_a_connection_is_read_on_up_to_a_bound_and_what_waits_is_charged(begin: Begin) -> None:
    worker = await begin(
        gathering=Gathering(days=1, wait_s=FOR_EVER_S),
        limits=replace(PATIENT, max_gathered=7, max_outstanding=2),
    )
    client = await worker.connect()
    await client.send(client.request(video(SIZE), NOW_MS))
    assert (await client.reply()).status == 201
    sent = [client.request(video(SIZE, n), NOW_MS - n * MS_PER_DAY) for n in range(1, 15)]
    await client.send(b"".join(sent))
    await until_waiting(worker.gathering, 7)
    assert (await (await worker.connect()).ask(b"")).status == 400, "others have had their turn since"
    assert worker.gathering.waiting_bytes == 7 * (SIZE + REQUEST_BYTES), "the others are not read yet"
    assert worker.budget.in_use_bytes >= 7 * (SIZE + REQUEST_BYTES)
    worker.uploads.hurry()
    with trio.fail_after(20):
        assert [(await client.reply()).status for _ in sent] == [201] * len(sent)
    assert worker.budget.in_use_bytes == 0


async def test_a_stop_waits_for_nobody_and_loses_nothing(begin: Begin) -> None:
    """Of a client that has gone, too: what was complete is stored."""
    worker = await begin(gathering=Gathering(days=1, wait_s=FOR_EVER_S))
    gone, stays = await worker.connect(), await worker.connect()
    await gone.send(gone.request(video(SIZE), NOW_MS))
    assert (await gone.reply()).status == 201
    await gone.send(gone.request(video(SIZE, 1), NOW_MS - MS_PER_DAY))
    await stays.send(stays.request(video(SIZE, 2), NOW_MS - 2 * MS_PER_DAY))
    await until_waiting(worker.gathering, 2)
    await gone.stream.aclose()
    worker.server.stop()
    with trio.fail_after(20):
        assert (await stays.reply()).status == 201
        await worker.uploads.drain()
    assert len(worker.catalog.chunks(1, 0, 2**45, limit=10)) == 3
    assert worker.budget.in_use_bytes == 0


async def test_answers_that_nobody_reads_stay_charged(begin: Begin) -> None:
    """A device that gathers may be owed 1024 of them: they are memory like any other (invariant 15)."""
    worker = await begin(gathering=Gathering(days=1, wait_s=FOR_EVER_S))
    client = await worker.connect()
    await client.send(client.request(video(SIZE), NOW_MS))
    assert (await client.reply()).status == 201
    [connection] = worker.server._connections
    for n in range(1, 21):
        await client.send(client.request(video(SIZE, n), NOW_MS - n * MS_PER_DAY))
    await until_waiting(worker.gathering, 20)
    connection._unsent += b"x"  # the socket took no more than what came before
    worker.uploads.hurry()
    with trio.fail_after(20):
        while connection.owed:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert connection.unsent_bytes > 0
    assert worker.budget.in_use_bytes == 20 * REQUEST_BYTES >= connection.unsent_bytes
    connection.give_up()
    assert worker.budget.in_use_bytes == 0
