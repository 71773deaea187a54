"""Connections as they really are: pipelined, slow, silent, gone, too many at once, and stopped in the middle."""

from __future__ import annotations

import errno
import random
import socket
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ingest import answers, buffers, states
from ingest import connection as connection_module
from ingest.budget import REQUEST_BYTES, SHARE_SLACK_BYTES, STEP_BYTES, Account
from ingest.receiving import SCRATCH_BYTES, Limits
from storage.faults import Fault, no_faults
from storage.keys import KeyId, Outcome
from tests.ingest.conftest import Begin
from tests.ingest.served import MIB, PATIENT, Client, Worker, chunks, until
from tests.ingest.world import NOW_MS, video

DATA = video(5000)
AWAY_S = 60.0
"""A linger that no test waits for."""


def limits(**fields: float) -> Limits:
    return replace(PATIENT, **fields)  # type: ignore[arg-type]


class Gate:
    """A plan of the store that holds puts up until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, op: str, key: str, nth: int) -> Fault | None:
        assert op != "put" or self.open.wait(10)
        return None


async def in_bodies(worker: Worker, count: int) -> None:
    """Wait until so many connections have part of a body."""
    await until(lambda: sum(c.body_bytes > 0 for c in worker.connections) == count)


async def a_turn(worker: Worker) -> None:
    """Let the worker look at all that has come so far: a request that comes after it is answered. What did not happen
    until then was not going to."""
    stranger = await worker.connect()
    await stranger.send(b"DELETE /nowhere HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (await stranger.reply()).status == 404
    await stranger.close()


async def no_longer_listens(worker: Worker) -> None:
    """Wait until a stop has begun: nobody is let in any more."""
    with trio.fail_after(10):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", worker.port)
            except OSError:
                return
            await stream.aclose()


# --- pipelining --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [50, 3000, 1_000_000])
async def test_answers_come_in_the_order_of_the_requests(begin: Begin, chunked: bool, step: int) -> None:
    """Whatever is known first. Stock ffmpeg never waits for an answer."""
    worker = await begin()
    client = await worker.connect()
    request = partial(client.request, chunked=chunked)
    # Two chunks of one time in flight at once may be committed in either order, so this one comes first.
    assert (await client.ask(DATA, chunked=chunked)).status == 201
    wire = b"".join(
        [
            request(DATA, NOW_MS + 6),
            request(DATA, token="wrong"),
            request(DATA, NOW_MS + 1),
            request(b"#EXTM3U", "a.m3u8"),
            request(DATA),
            request(video(5000, 1)),
            request(b"no video", NOW_MS + 2),
            request(b"", NOW_MS + 3),
            request(DATA, NOW_MS + 4).replace(b"/v1/", b"/v9/"),
            request(DATA, NOW_MS + 5),
        ]
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_in_steps, client, wire, step)
        statuses = [(await client.reply()).status for _ in range(10)]
    assert statuses == [201, 401, 201, 204, 200, 409, 415, 400, 404, 201]


async def send_in_steps(client: Client, wire: bytes, step: int) -> None:
    for i in range(0, len(wire), step):
        await client.send(wire[i : i + step])
        await trio.lowlevel.checkpoint()


async def test_an_answer_that_is_known_waits_for_those_before_it(begin: Begin) -> None:
    worker = await begin()
    gate = Gate()
    worker.store.plan = gate
    client = await worker.connect()
    await client.send(
        client.request(DATA) + client.request(DATA, token="wrong") + client.request(b"x", "a.m3u8")
    )
    await until(lambda: bool(worker.connections) and worker.connections[0].owed == 3)
    await a_turn(worker)
    assert client.said_nothing(), "the 401 was not sent before the chunk's answer"
    gate.open.set()
    assert [(await client.reply()).status for _ in range(3)] == [201, 401, 204]


async def test_what_came_at_once_is_answered_though_nothing_more_comes(begin: Begin) -> None:
    """More requests than are owed at once, and than one turn takes: the last of them wait for answers, and then for a
    turn that no socket calls for."""
    worker = await begin(limits=limits(max_outstanding=40))
    client = await worker.connect()
    count = 120
    await client.send(b"".join(client.request(video(400, n), NOW_MS + n) for n in range(count)))
    with trio.fail_after(20):
        assert [(await client.reply()).status for _ in range(count)] == [201] * count


async def test_requests_are_read_on_while_answers_are_owed_up_to_a_bound(begin: Begin) -> None:
    """Past it the connection is no longer read, and nothing is lost."""
    worker = await begin(limits=limits(max_outstanding=4))
    gate = Gate()
    worker.store.plan = gate
    client = await worker.connect()
    total = 40
    sent = trio.Event()

    async def send() -> None:
        for number in range(total):
            await client.send(client.request(video(60_000, number), NOW_MS + number))
        sent.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await until(lambda: bool(worker.connections) and worker.connections[0].owed == 4)
        (connection,) = worker.connections
        await until(lambda: connection.state == states.HEAD_WAITS)
        await a_turn(worker)
        assert connection.owed == 4
        assert connection.state == states.HEAD_WAITS, "the device is not to blame"
        assert worker.budget.in_use_bytes <= 4 * 60_000 + SCRATCH_BYTES
        gate.open.set()
        statuses = Counter([(await client.reply()).status for _ in range(total)])
    assert sent.is_set()
    assert statuses == {201: total}
    assert [worker.stored(1, NOW_MS + n) for n in range(total)] == [video(60_000, n) for n in range(total)]


async def test_a_peer_that_reads_no_answers_cannot_pile_them_up(begin: Begin) -> None:
    """Invariant 15: refusals cost no budget, so their answers need a bound of their own."""
    worker = await begin(limits=limits(max_outstanding=10_000))
    client = await worker.connect(receive_buffer_bytes=4096)
    request = client.request(b"", "a.ts", token="wrong", method="DELETE")
    total = 60_000
    most = 0

    async def send() -> None:
        for _ in range(total // 100):
            await client.send(request * 100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await until(lambda: bool(worker.connections))
        (connection,) = worker.connections
        quiet = 0
        while quiet < 10:  # until it stands still
            before = worker.stats.answers[401, "bad_token"]
            await a_turn(worker)
            most = max(most, connection.unsent_bytes)
            quiet = quiet + 1 if worker.stats.answers[401, "bad_token"] == before else 0
        assert 0 < worker.stats.answers[401, "bad_token"] < total, "it stood still before the end"
        assert most < connection_module.REQUESTS_AT_ONCE * 500, "the answers of one turn"
        got = 0
        while got < total:
            assert (await client.reply()).status == 401
            got += 1


async def test_a_peer_that_reads_no_answers_is_let_go(begin: Begin) -> None:
    worker = await begin(limits=limits(send_timeout_s=0.2, linger_close_s=0.1))
    client = await worker.connect(receive_buffer_bytes=4096)
    request = client.request(b"", "a.ts", token="wrong", method="DELETE")

    async def send_for_ever() -> None:
        while True:
            await client.send(request * 100)

    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
        await send_for_ever()
    await until(lambda: not worker.connections)


# --- clients that go away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_gone_after_a_complete_body(worker: Worker, chunked: bool, how: str) -> None:
    """A complete body commits even when the client is gone (design §2)."""
    gate = Gate()
    worker.store.plan = gate
    client = await worker.connect()
    await client.send(client.request(DATA, chunked=chunked))
    await until(lambda: worker.store.asked["put"] == 1)
    if how == "closed":
        await client.close()
    else:
        client.reset()
    await a_turn(worker)
    gate.open.set()
    await until(lambda: worker.stored() == DATA)
    await until(lambda: not worker.connections and not worker.budget.in_use_bytes)


async def test_let_go_after_a_complete_body(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it still waits for its data key: it commits, and is acknowledged when the client is there."""
    gate = threading.Event()
    fetch = worker.vault.ensure_each

    def wait_and_fetch(ids: Collection[KeyId]) -> Mapping[KeyId, Outcome]:
        assert gate.wait(10)
        return fetch(ids)

    monkeypatch.setattr(worker.keyring, "_fetch", wait_and_fetch)
    client = await worker.connect()
    await client.send(client.request(DATA))
    await until(lambda: any(c.owed for c in worker.connections))
    (connection,) = worker.connections
    assert connection.state == states.TAKING
    connection.evict(None)
    await wait_all_tasks_blocked()
    gate.set()
    assert (await client.reply()).status == 201
    assert await client.ended()
    assert worker.stored() == DATA


async def test_let_go_in_the_turn_in_which_its_body_ends(worker: Worker) -> None:
    """The verdict stands and nothing more is read: a chunk that was left to the task then would be nobody's, and the
    connection would wait for its answer for ever."""
    client = await worker.connect()
    data = client.request(DATA)
    await client.send(data[:-10])
    await in_bodies(worker, 1)
    (connection,) = worker.connections
    client.send_now(data[-10:])
    connection.evict(answers.TOO_SLOW)
    connection.ready()  # as the poller does, whose turn comes after the reaper's
    assert (await client.reply()).code == "too_slow"
    assert await client.ended()
    await until(lambda: not worker.connections)
    assert worker.budget.in_use_bytes == 0
    assert worker.stored() is None


@pytest.mark.parametrize("waited", [False, True])
async def test_without_memory_for_a_body_no_bytes_of_the_budget_are_lost(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, waited: bool
) -> None:
    worker = await begin(patience_s=10.0)

    def none_left(*_: int) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(buffers, "mmap", none_left)
    client = await worker.connect()
    data = client.request(video(MIB))
    head = data.index(b"\r\n\r\n") + 4
    if waited:  # for room in the budget, which then is charged before the receive
        await client.send(data[:head])
        await until(lambda: any(c.state == states.BODY for c in worker.connections))
        others = Account()
        charged = worker.budget.charge(others, worker.budget.share_bytes)
        others_too = Account()
        charged_too = worker.budget.charge(others_too, worker.budget.total_bytes - charged)
        await client.send(data[head : head + 1000])
        await until(lambda: worker.budget.waiting == 1)
        worker.budget.refund(others, charged)
        worker.budget.refund(others_too, charged_too)
    else:
        await client.send(data[: head + 1000])
    await until(lambda: not worker.connections)
    assert worker.budget.in_use_bytes == 0
    assert worker.receiver.pool.lent_bytes == 0
    monkeypatch.undo()
    assert (await (await worker.connect()).ask(video(MIB))).status == 201


async def test_a_body_that_waits_keeps_its_bytes(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receive buffer is everybody's: chunks that wait for their data keys, and what came behind them, are not
    overwritten by what the next connections send."""
    gate = threading.Event()
    fetch = worker.vault.ensure_each

    def wait_and_fetch(ids: Collection[KeyId]) -> Mapping[KeyId, Outcome]:
        assert gate.wait(10)
        return fetch(ids)

    monkeypatch.setattr(worker.keyring, "_fetch", wait_and_fetch)

    def waiting(number: int) -> bool:
        return sum(bool(connection.owed) for connection in worker.connections) == number

    clients = [await worker.connect() for _ in range(3)]
    for number, client in enumerate(clients, 1):
        requests = [client.request(video(60_000, number + at), NOW_MS + at, device=number) for at in range(2)]
        await client.send(b"".join(requests))
        await until(partial(waiting, number))
    gate.set()
    for number, client in enumerate(clients, 1):
        for at in range(2):
            assert (await client.reply()).status == 201
            assert worker.stored(number, NOW_MS + at) == video(60_000, number + at)
    assert worker.budget.in_use_bytes == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["closed", "reset", "half closed"])
@pytest.mark.parametrize("missing", [1, 2000])
async def test_gone_in_the_middle_of_a_body(worker: Worker, chunked: bool, how: str, missing: int) -> None:
    """An incomplete body never commits, and gives back what it held."""
    client = await worker.connect()
    await client.send(client.request(DATA, chunked=chunked)[:-missing])
    await in_bodies(worker, 1)
    if how == "closed":
        await client.close()
    elif how == "reset":
        client.reset()
    else:
        await client.stream.send_eof()
        assert await client.ended()
    await until(lambda: not worker.connections)
    assert worker.budget.in_use_bytes == 0
    assert not worker.objects.objects


async def test_a_half_closed_client_hears_what_became_of_its_chunks(worker: Worker) -> None:
    """As of a device that sends its last chunk and says that it is done; also behind an incomplete one."""
    for number, rest in enumerate((b"", b"PUT /v1", None)):
        client = await worker.connect()
        if rest is None:
            rest = client.request(DATA, NOW_MS + 99)[:-10]
        await client.send(client.request(DATA, NOW_MS + number) + rest)
        await client.stream.send_eof()
        assert (await client.reply()).status == 201
        assert await client.ended()


async def test_gone_while_answers_are_being_sent(begin: Begin) -> None:
    """The task that sends the rest must not outlive its socket, whose number the next connection gets."""
    worker = await begin(limits=limits(max_outstanding=10_000))
    for _ in range(3):
        client = await worker.connect(receive_buffer_bytes=4096)
        request = client.request(b"", "a.ts", token="wrong", method="DELETE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_in_steps, client, request * 60_000, 10_000)
            await until(lambda: any(connection.unsent_bytes for connection in worker.connections))
            nursery.cancel_scope.cancel()
        client.reset()
        await until(lambda: not worker.connections)
    assert (await (await worker.connect()).ask(DATA)).status == 201


# --- the slow and the silent -----------------------------------------------------------------------------------------


async def test_a_head_that_does_not_come(begin: Begin) -> None:
    worker = await begin(limits=limits(head_timeout_s=0.1))
    client = await worker.connect()
    await client.send(client.request(DATA)[:30])
    reply = await client.reply()
    assert (reply.status, reply.code, reply.closes) == (408, "head_timeout", True)
    assert await client.ended()
    assert worker.stats.answers == {(408, "head_timeout"): 1}


async def test_a_head_that_drips(begin: Begin) -> None:
    """The time is for the whole head, not for a byte of it."""
    worker = await begin(limits=limits(head_timeout_s=0.15))
    client = await worker.connect()
    with trio.fail_after(10):
        for byte in client.request(DATA, X_Long="x" * 5000):
            try:
                await client.send(bytes([byte]))
            except trio.BrokenResourceError:
                break
            await trio.sleep(0.01)
            if worker.stats.answers:
                break
    assert worker.stats.answers == {(408, "head_timeout"): 1}


@pytest.mark.parametrize("before", ["nothing", "a request", "an empty line"])
async def test_an_idle_connection_ends_without_a_word(begin: Begin, before: str) -> None:
    """No 408: it would pass for the answer to the next request."""
    worker = await begin(limits=limits(idle_timeout_s=0.15, head_timeout_s=0.05))
    client = await worker.connect()
    if before != "nothing":
        assert (await client.ask(DATA)).status == 201
    if before == "an empty line":
        await client.send(b"\r\n")
    assert await client.ended()
    assert (408, "head_timeout") not in worker.stats.answers


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_comes_too_slowly(begin: Begin, chunked: bool) -> None:
    worker = await begin(limits=limits(body_grace_s=0.1, min_body_bytes_per_s=1_000_000))
    client = await worker.connect()
    await client.send(client.request(DATA, chunked=chunked)[:-1])
    reply = await client.reply()
    assert (reply.status, reply.code, reply.closes) == (408, "too_slow", True)
    assert await client.ended()
    assert worker.stored() is None
    assert worker.stats.answers == {(408, "too_slow"): 1}


@pytest.mark.parametrize("wrong", ["slow", "malformed", "too long"])
async def test_a_refused_body_that_goes_wrong_gets_no_second_answer(begin: Begin, wrong: str) -> None:
    """It would pass for the answer to the next request."""
    worker = await begin(limits=limits(body_grace_s=0.1, min_body_bytes_per_s=10_000_000, drain_bytes=50_000))
    client = await worker.connect()
    rest = {"slow": b"5\r\nab", "malformed": b"xyz\r\n", "too long": chunks(video(60_000))}[wrong]
    await client.send(client.request(None, token="wrong", Transfer_Encoding="chunked") + rest)
    assert (await client.reply()).status == 401
    assert await client.ended()
    assert worker.stats.answers == {(401, "bad_token"): 1}


async def test_a_refused_body_too_long_to_drain_ends_the_connection(begin: Begin) -> None:
    worker = await begin(limits=limits(drain_bytes=1000))
    client = await worker.connect()
    reply = await client.ask(DATA, token="wrong")
    assert (reply.status, reply.closes) == (401, True)
    assert await client.ended()


async def test_waiting_for_us_is_not_held_against_a_client(begin: Begin) -> None:
    """Its clock stands still while it waits for its answers."""
    worker = await begin(
        limits=limits(max_outstanding=1, body_grace_s=0.1, head_timeout_s=0.1, min_body_bytes_per_s=1_000_000)
    )
    gate = Gate()
    worker.store.plan = gate
    client = await worker.connect()
    await client.send(client.request(DATA) + client.request(DATA, NOW_MS + 1))
    await trio.sleep(0.3)
    gate.open.set()
    assert [(await client.reply()).status for _ in range(2)] == [201, 201]


# --- the budget (invariant 15) ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_clients_that_pause_hold_what_they_sent_and_no_more(begin: Begin, chunked: bool) -> None:
    """Sending is charged, not the intention to: many slow devices share a small budget."""
    worker = await begin(budget_bytes=4 * STEP_BYTES, share_bytes=MIB)
    slow = [await worker.connect() for _ in range(40)]
    for number, client in enumerate(slow):
        await client.send(client.request(video(50_000, number), NOW_MS + number, chunked=chunked)[:-49_000])
    await in_bodies(worker, 40)
    await wait_all_tasks_blocked()
    assert worker.budget.in_use_bytes == sum(c.body_bytes + REQUEST_BYTES for c in worker.connections)
    assert worker.budget.in_use_bytes < 40 * (2500 + REQUEST_BYTES)
    other = await worker.connect()
    assert (await other.ask(video(60_000), device=2, chunked=chunked)).status == 201


async def test_past_the_budget_the_slowest_is_let_go(begin: Begin) -> None:
    worker = await begin(
        budget_bytes=4 * STEP_BYTES + REQUEST_BYTES, share_bytes=4 * STEP_BYTES, patience_s=0.1, wait_s=10.0
    )
    slow, fast = await worker.connect(), await worker.connect()
    body = video(4 * STEP_BYTES)
    await slow.send(slow.request(body)[:-1000])
    await until(lambda: worker.budget.in_use_bytes == len(body) - 1000 + REQUEST_BYTES)
    assert (await fast.ask(body, device=2)).status == 201
    reply = await slow.reply()
    assert (reply.status, reply.code, reply.closes) == (503, "overloaded", True)
    assert reply.headers["retry-after"]
    assert worker.stats.answers == {(201, ""): 1, (503, "overloaded"): 1}


async def test_one_is_let_go_for_many_who_wait(begin: Begin) -> None:
    """Those who wait all ask for it at the same time; its bytes are enough for all of them."""
    worker = await begin(
        budget_bytes=4 * STEP_BYTES + 2 * REQUEST_BYTES,
        share_bytes=4 * STEP_BYTES,
        patience_s=0.1,
        wait_s=10.0,
    )
    slow = [await worker.connect() for _ in range(2)]
    for number, client in enumerate(slow):
        await client.send(client.request(video(2 * STEP_BYTES), NOW_MS + number)[:-10])
    await until(lambda: worker.budget.in_use_bytes == 4 * STEP_BYTES - 20 + 2 * REQUEST_BYTES)
    fast = [await worker.connect() for _ in range(5)]
    for number, client in enumerate(fast):
        await client.send(client.request(DATA, NOW_MS + number, device=2))
    for client in fast:
        assert (await client.reply()).status == 201
    assert worker.stats.answers[503, "overloaded"] == 1
    assert sum(c.body_bytes > 0 for c in worker.connections) == 1


async def test_while_one_goes_no_other_is_let_go(worker: Worker) -> None:
    """Many who wait ask at the same time, before the first one's bytes have come back."""
    clients = [await worker.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        await client.send(client.request(DATA, NOW_MS + number)[:-10])
    await in_bodies(worker, 3)
    assert worker.server._let_slowest_go()
    assert worker.server._let_slowest_go()
    assert sum(connection.ending() for connection in worker.connections) == 1
    await in_bodies(worker, 2)
    assert worker.server._let_slowest_go()
    await in_bodies(worker, 1)
    assert worker.stats.answers == {(503, "overloaded"): 2}


async def test_the_first_verdict_stands(worker: Worker) -> None:
    client = await worker.connect()
    await client.send(client.request(DATA)[:-10])
    await in_bodies(worker, 1)
    (connection,) = worker.connections
    connection.evict(answers.TOO_SLOW)
    connection.evict(answers.OVERLOADED)
    connection.evict(None)
    assert (await client.reply()).code == "too_slow"
    assert worker.stats.answers == {(408, "too_slow"): 1}


async def test_when_all_wait_for_each_other_one_gives_way(begin: Begin) -> None:
    """The one that loses least; not all of them, when their patience ends at the same time."""
    worker = await begin(budget_bytes=4 * STEP_BYTES, share_bytes=4 * STEP_BYTES, patience_s=0.1, wait_s=10.0)
    clients = [await worker.connect() for _ in range(2)]
    body = video(3 * STEP_BYTES + STEP_BYTES // 2)
    wires = [client.request(body, NOW_MS + number) for number, client in enumerate(clients)]
    await clients[0].send(wires[0][: 5 * STEP_BYTES // 2])
    await until(lambda: worker.budget.in_use_bytes > 2.4 * STEP_BYTES)
    await clients[1].send(wires[1])
    await until(lambda: worker.budget.in_use_bytes > 3.4 * STEP_BYTES)
    await clients[0].send(wires[0][5 * STEP_BYTES // 2 :])
    await until(lambda: all(c.state == states.BODY_WAITS for c in worker.connections))
    assert (await clients[0].reply()).status == 201
    assert (await clients[1].reply()).code == "overloaded"
    assert await clients[1].ended()


async def test_who_waits_too_long_for_the_budget_is_told_so(begin: Begin) -> None:
    """Chunks that are being stored hold the budget: nobody can be let go, so the wait has an end."""
    worker = await begin(
        budget_bytes=4 * STEP_BYTES + REQUEST_BYTES, share_bytes=4 * STEP_BYTES, patience_s=0.05, wait_s=0.2
    )
    gate = Gate()
    worker.store.plan = gate
    first, second = await worker.connect(), await worker.connect()
    await first.send(first.request(video(4 * STEP_BYTES)))
    await until(lambda: worker.store.asked["put"] == 1)
    await second.send(second.request(DATA, device=2))
    reply = await second.reply()
    assert (reply.status, reply.code, reply.closes) == (503, "overloaded", True)
    gate.open.set()
    assert (await first.reply()).status == 201


async def test_a_connection_past_its_share_waits_for_its_own_answers(begin: Begin) -> None:
    """And holds up nobody else."""
    worker = await begin(share_bytes=4 * STEP_BYTES, patience_s=0.05, wait_s=10.0)
    gate = Gate()
    worker.store.plan = gate
    greedy, modest = await worker.connect(), await worker.connect()
    body = video(2 * STEP_BYTES)
    async with trio.open_nursery() as nursery:
        wire = b"".join(greedy.request(body, NOW_MS + number) for number in range(10))
        nursery.start_soon(greedy.send, wire)
        await until(lambda: worker.budget.in_use_bytes >= 4 * STEP_BYTES)
        await a_turn(worker)
        assert worker.budget.in_use_bytes <= 4 * STEP_BYTES + SHARE_SLACK_BYTES
        await modest.send(modest.request(DATA, device=2))
        await until(lambda: len(worker.connections) == 2 and all(c.owed for c in worker.connections))
        gate.open.set()
        assert [(await greedy.reply()).status for _ in range(10)] == [201] * 10
    assert (await modest.reply()).status == 201


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_never_exceeds_the_budget_and_loses_nothing_acknowledged(
    begin: Begin, seed: int
) -> None:
    """Invariants 1 and 15: clients of all kinds on a budget far too small for them, each trying until its chunk is
    stored."""
    worker = await begin(
        limits=limits(body_grace_s=0.3, min_body_bytes_per_s=50_000),
        budget_bytes=6 * STEP_BYTES,
        share_bytes=5 * STEP_BYTES,
        patience_s=0.05,
        wait_s=0.3,
    )
    rng = random.Random(seed)
    kept: dict[int, bytes] = {}
    statuses: Counter[int] = Counter()

    async def device(number: int, draw: random.Random) -> None:
        data = video(draw.randrange(1000, 5 * STEP_BYTES), number)
        while number not in kept:
            client = await worker.connect()
            wire = client.request(data, NOW_MS + number, chunked=draw.random() < 0.5)
            try:
                if draw.random() < 0.3:
                    cut = draw.randrange(len(wire))
                    await client.send(wire[:cut])
                    await trio.sleep(draw.choice((0.0, 0.02, 0.5)))
                    if draw.random() < 0.3:
                        client.reset()
                        continue
                    wire = wire[cut:]
                await client.send(wire)
            except trio.BrokenResourceError:
                pass  # let go in the middle: its answer may be there all the same
            try:
                reply = await client.reply()
            except (trio.BrokenResourceError, AssertionError):
                statuses[0] += 1
                continue
            finally:
                await client.close()
            statuses[reply.status] += 1
            if reply.status in (200, 201):
                kept[number] = data
            else:
                await trio.sleep(0.02)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(15):
                nursery.start_soon(device, number, random.Random(rng.random()))
    assert set(statuses) <= {0, 200, 201, 408, 503}
    assert {number: worker.stored(1, NOW_MS + number) for number in kept} == kept
    await until(lambda: not worker.connections)
    assert worker.budget.in_use_bytes == 0
    assert worker.budget.peak_bytes <= worker.budget.total_bytes


# --- stopping -----------------------------------------------------------------------------------------------


async def stopped(worker: Worker) -> None:
    with trio.fail_after(10):
        await worker.served.wait()


async def test_a_stop_ends_idle_connections_at_once(worker: Worker) -> None:
    fresh, used = await worker.connect(), await worker.connect()
    assert (await used.ask(DATA)).status == 201
    await until(lambda: len(worker.connections) == 2)
    worker.server.stop()
    assert await fresh.ended()
    assert await used.ended()
    for client in (fresh, used):
        await client.close()
    await stopped(worker)
    with pytest.raises(OSError, match=r".+"):
        await trio.open_tcp_stream("127.0.0.1", worker.port)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_stop_lets_bodies_under_way_finish(worker: Worker, chunked: bool) -> None:
    """They are received, committed and acknowledged; what comes after them is not read any more."""
    client = await worker.connect()
    wire = client.request(DATA, chunked=chunked)
    await client.send(wire[:2000])
    await in_bodies(worker, 1)
    worker.server.stop()
    await no_longer_listens(worker)
    await client.send(wire[2000:] + client.request(DATA, NOW_MS + 1))
    reply = await client.reply()
    assert (reply.status, reply.closes) == (201, True)
    assert await client.ended()
    await client.close()
    await stopped(worker)
    assert worker.stored() == DATA
    assert worker.stored(1, NOW_MS + 1) is None


async def test_a_stop_waits_for_answers_that_are_owed(begin: Begin) -> None:
    worker = await begin()
    gate = Gate()
    worker.store.plan = gate
    client = await worker.connect()
    await client.send(b"".join(client.request(DATA, NOW_MS + n) for n in range(3)))
    await until(lambda: bool(worker.connections) and worker.connections[0].owed == 3)
    worker.server.stop()
    await no_longer_listens(worker)
    gate.open.set()
    assert [(await client.reply()).status for _ in range(3)] == [201] * 3
    assert await client.ended()
    await client.close()
    await stopped(worker)


async def test_a_head_that_comes_during_a_stop_is_refused(worker: Worker) -> None:
    client = await worker.connect()
    wire = client.request(DATA)
    await client.send(wire[:20])
    await until(lambda: any(c.state == states.HEAD for c in worker.connections))
    worker.server.stop()
    await client.send(wire[20:])
    reply = await client.reply()
    assert (reply.status, reply.code, reply.closes) == (503, "stopping", True)
    assert reply.headers["retry-after"]
    assert await client.ended()
    await client.close()
    await stopped(worker)
    assert worker.stored() is None


async def test_a_stop_knows_of_a_connection_that_was_just_accepted(
    worker: Worker, nursery: trio.Nursery
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with theirs:
        worker.server._welcome(ours, "127.0.0.1", nursery)  # its task has not run yet
        worker.server.stop()
        await until(lambda: not worker.connections)
        assert theirs.recv(10) == b""
    await stopped(worker)


async def test_a_stop_twice_is_one(worker: Worker) -> None:
    worker.server.stop()
    worker.server.stop()
    await stopped(worker)


async def test_a_hard_end_leaves_no_socket_and_acknowledges_nothing(begin: Begin) -> None:
    """The deadline of a stop: cancelled wherever it is."""
    worker = await begin()
    gate = Gate()
    worker.store.plan = gate
    client = await worker.connect()
    await client.send(client.request(DATA) + client.request(DATA, NOW_MS + 1)[:-10])
    await until(lambda: worker.store.asked["put"] == 1)
    await in_bodies(worker, 1)
    worker.server.stop()
    (connection,) = worker.connections
    connection.evict(None)
    gate.open.set()
    assert (await client.reply()).status == 201
    assert await client.ended()
    worker.store.plan = no_faults
