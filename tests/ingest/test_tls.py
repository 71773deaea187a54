"""TLS on the ingest port: requests come as in clear, nothing waits unseen, and no stranger holds more than a bound."""

from __future__ import annotations

import random
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import NamedTuple

import pytest
import trio

from ingest.budget import Account
from ingest.handshakes import HANDSHAKE_CHARGE_BYTES, HandshakeLimits, steps_in_a_turn
from ingest.tls import SEND_BYTES, Shared, TlsWire
from tests.ingest.conftest import Begin
from tests.ingest.served import NOW_MS, PATIENT, Client, Worker, until
from tests.ingest.world import video
from tests.servers.certificates import Authority, server_context

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.issue("clips.example"))


class Pipe(NamedTuple):
    ours: socket.socket
    wire: TlsWire
    client: ssl.SSLObject
    outgoing: ssl.MemoryBIO
    """What the client encrypted."""
    theirs: socket.socket
    incoming: ssl.MemoryBIO
    """What the client decrypts."""


@pytest.fixture
def pipe(context: ssl.SSLContext) -> Iterator[Pipe]:
    made = pipe_of(context)
    with made.ours, made.theirs:
        yield made


def pipe_of(server: ssl.SSLContext, shared: Shared | None = None) -> Pipe:
    """A server's end over a socket pair, and a client whose bytes the test carries. The handshake is done."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    wire = TlsWire(ours, server, shared or Shared())
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(incoming, outgoing)
    done = False
    while not done:
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if outgoing.pending:
            theirs.send(outgoing.read())
        with suppress(BlockingIOError):
            done = wire.shake()
        incoming.write(theirs.recv(65536))
    client.do_handshake()
    if outgoing.pending:
        theirs.send(outgoing.read())
    return Pipe(ours, wire, client, outgoing, theirs, incoming)


def read_all(wire: TlsWire, most: int) -> tuple[bytes, int]:
    """What can be read now, `most` bytes at once, and how often it took a call though no byte was on the socket."""
    view = memoryview(bytearray(most))
    found, calls = b"", 0
    while True:
        calls += 1
        try:
            received = wire.recv_into(view, most)
        except BlockingIOError:
            if not wire.pending():
                return found, calls
            continue
        if not received:
            return found, calls
        found += view[:received]


@pytest.mark.parametrize("seed", range(20))
def test_any_split_of_the_bytes_gives_the_same(pipe: Pipe, seed: int) -> None:
    dice = random.Random(seed)
    _, wire, client, outgoing, theirs, _ = pipe
    sent, got = b"", b""
    for _ in range(30):
        data = dice.randbytes(dice.choice((1, 100, 16_384, 40_000)))
        client.write(data)
        sent += data
        cipher = outgoing.read()
        while cipher:
            cut = dice.choice((1, 3, 5, 1000, 17_000, len(cipher)))
            theirs.send(cipher[:cut])
            cipher = cipher[cut:]
            found, _ = read_all(wire, dice.choice((1000, 16_384, 100_000)))
            got += found
            assert wire.held_bytes < 16_384 + 256
    assert got == sent
    assert not wire.pending()


@pytest.mark.parametrize("seed", range(5))
def test_connections_share_memory_and_see_nothing_of_each_other(context: ssl.SSLContext, seed: int) -> None:
    """One of them breaks in the middle, which is no matter to the others."""
    dice = random.Random(seed)
    shared = Shared()
    pipes = [pipe_of(context, shared) for _ in range(4)]
    sent, got, answered = [b""] * 4, [b""] * 4, [b""] * 4
    broken = -1
    with ExitStack() as stack:
        for pipe in pipes:
            stack.enter_context(pipe.ours)
            stack.enter_context(pipe.theirs)
        for turn in range(60):
            which = dice.randrange(4)
            pipe = pipes[which]
            if which == broken:
                continue
            if turn == 30:
                broken = which
                pipe.theirs.send(pipe.outgoing.read())
                read_all(pipe.wire, 100_000)
                pipe.theirs.send(b"\x17\x03\x03\x00\x20" + bytes(32))
                with pytest.raises(ssl.SSLError):
                    read_all(pipe.wire, 1000)
            else:
                data = dice.randbytes(dice.choice((1, 100, 16_384, 40_000)))
                pipe.client.write(data)
                sent[which] += data
                pipe.theirs.send(pipe.outgoing.read(dice.choice((5, 20_000, 1 << 20))))
                got[which] += read_all(pipe.wire, dice.choice((1000, 100_000)))[0]
                answer = dice.randbytes(20)
                assert pipe.wire.send(answer) == 20
                pipe.incoming.write(pipe.theirs.recv(65_536))
                answered[which] += answer
                assert pipe.client.read(100) == answer
            assert shared.incoming.pending == shared.outgoing.pending == 0
        for which, pipe in enumerate(pipes):
            if which != broken:
                pipe.theirs.send(pipe.outgoing.read())
                got[which] += read_all(pipe.wire, 100_000)[0]
                assert got[which] == sent[which]
                assert answered[which]


STRIDE = 3
"""From one place to the next; 1 was run as well. With 5 ways to break, each way comes to every part of it."""


class Breaking:
    """A client whose bytes reach the server up to a place, and something else, or nothing, from there."""

    def __init__(self, server: ssl.SSLContext, shared: Shared, trusting: ssl.SSLContext) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.wire = TlsWire(self.ours, server, shared)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._client = trusting.wrap_bio(self._incoming, self._outgoing)
        self._is_done = self._has_written = False
        self.shaken = False

    def next_bytes(self) -> bytes:
        """What the client says now: of its handshake, then of a request."""
        with suppress(BlockingIOError):
            self._incoming.write(self.theirs.recv(65_536))
        if not self._is_done:
            with suppress(ssl.SSLWantReadError):
                self._client.do_handshake()
                self._is_done = True
        elif not self._has_written:
            self._has_written = True
            self._client.write(b"secret of the one that breaks" * 20)
        return self._outgoing.read()

    def turn(self) -> None:
        """One of the server's."""
        view = memoryview(bytearray(500))
        with suppress(BlockingIOError):
            if not self.shaken:
                self.shaken = self.wire.shake()
            else:
                self.wire.recv_into(view, len(view))
                self.wire.send(b"an answer to the one that breaks" * 3000)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_one_that_breaks_at_any_byte_is_no_matter_to_others(
    context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """Its bytes end, or are others, from each place on in its handshake and its first request. Meanwhile one connection
    has half a record, one is in its handshake, and what OpenSSL reads and writes is everybody's."""
    dice = random.Random(7)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.maximum_version = version
    shared = Shared()
    steady = pipe_of(context, shared)
    at, reached, broke = 0, True, 0
    with ExitStack() as stack:
        for sock in (steady.ours, steady.theirs):
            stack.enter_context(sock)

        def nothing_stays() -> None:
            assert shared.incoming.pending == shared.outgoing.pending == 0

        while reached:
            said = dice.randbytes(dice.choice((1, 300, 17_000)))
            steady.client.write(said)
            cipher = steady.outgoing.read()
            half = dice.randrange(len(cipher))
            steady.theirs.send(cipher[:half])
            got, _ = read_all(steady.wire, 1000)

            shaking = Breaking(context, shared, trusting)
            shaking.theirs.send(shaking.next_bytes())
            shaking.turn()
            nothing_stays()

            one = Breaking(context, shared, trusting)
            kind = ("closed", "changed", "zeros", "record", "reset")[at % 5]
            left, reached = at, False
            try:
                for _ in range(8):
                    data = one.next_bytes()
                    if len(data) > left:
                        reached = True
                        one.theirs.send(data[:left])
                        if kind == "changed":
                            one.theirs.send(bytes([data[left] ^ 0x41]) + data[left + 1 :])
                        elif kind == "zeros":
                            one.theirs.send(bytes(1000))
                        elif kind == "record":
                            one.theirs.send(b"\x17\x03\x03\x00\x20" + bytes(32))
                        elif kind == "closed":
                            one.theirs.shutdown(socket.SHUT_WR)
                        else:
                            one.theirs.close()
                        for _ in range(4):
                            one.turn()
                            nothing_stays()
                        break
                    left -= len(data)
                    if data:
                        one.theirs.send(data)
                    one.turn()
                    nothing_stays()
            except OSError:
                broke += 1
            nothing_stays()
            if at % 2:
                with suppress(OSError):
                    one.wire.shutdown(socket.SHUT_WR)
                nothing_stays()
            one.ours.close()
            one.theirs.close()
            del one  # OpenSSL's memory of it goes, while the others are where they were

            answer = dice.randbytes(dice.choice((1, 20_000)))
            assert steady.wire.send(answer) == len(answer)
            nothing_stays()
            steady.theirs.send(cipher[half:])
            got += read_all(steady.wire, dice.choice((1000, 100_000)))[0]
            assert got == said
            heard = b""
            while len(heard) < len(answer):
                with suppress(ssl.SSLWantReadError):
                    heard += steady.client.read(65_536)
                    continue
                steady.incoming.write(steady.theirs.recv(65_536))
            assert heard == answer

            for _ in range(4):
                if data := shaking.next_bytes():
                    shaking.theirs.send(data)
                shaking.turn()
                nothing_stays()
            assert shaking.shaken
            shaking.ours.close()
            shaking.theirs.close()
            at += STRIDE
    assert at > 600, "a handshake and a request have more bytes than that"
    assert broke > 300 // STRIDE


def test_what_was_decrypted_and_not_taken_is_pending(pipe: Pipe) -> None:
    _, wire, client, outgoing, theirs, _ = pipe
    client.write(bytes(10_000))
    client.write(bytes(5000))
    theirs.send(outgoing.read())
    view = memoryview(bytearray(4000))
    sizes = []
    while True:
        sizes.append(wire.recv_into(view, 4000))
        if not wire.pending():
            break
    assert sum(sizes) == 15_000
    assert wire.held_bytes == 0
    with pytest.raises(BlockingIOError):
        wire.recv_into(view, 4000)


def test_records_of_a_byte_do_not_hold_the_turn(pipe: Pipe) -> None:
    _, wire, client, outgoing, theirs, _ = pipe
    for _ in range(1000):
        client.write(b"x")
    theirs.send(outgoing.read())
    view = memoryview(bytearray(MIB))
    assert wire.recv_into(view, MIB) == 256
    assert wire.pending()
    assert read_all(wire, MIB)[0] == b"x" * 744


def test_an_end_is_told_once_all_was_read(pipe: Pipe) -> None:
    _, wire, client, outgoing, theirs, _ = pipe
    client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    theirs.send(outgoing.read())
    view = memoryview(bytearray(100))
    assert wire.recv_into(view, 100) == 4
    assert wire.recv_into(view, 100) == 0


def test_bytes_that_were_changed_on_the_way_end_it(pipe: Pipe) -> None:
    _, wire, client, outgoing, theirs, _ = pipe
    client.write(b"some")
    cipher = bytearray(outgoing.read())
    cipher[-1] ^= 1
    theirs.send(cipher)
    with pytest.raises(ssl.SSLError):
        wire.recv_into(memoryview(bytearray(100)), 100)


@pytest.mark.parametrize("garbage", [b"\x17\x03\x03\xff\xff", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_record_longer_than_there_are_any_ends_it(pipe: Pipe, garbage: bytes) -> None:
    _, wire, _, _, theirs, _ = pipe
    theirs.send(garbage)
    with pytest.raises(OSError, match="longer"):
        wire.recv_into(memoryview(bytearray(100)), 100)


def test_sending_goes_on_where_the_socket_was_full(pipe: Pipe) -> None:
    _, wire, client, _, theirs, incoming = pipe
    data = random.Random(1).randbytes(3 * MIB)
    rest, got, blocked = memoryview(data), b"", 0
    while len(got) < len(data):
        try:
            if rest:
                rest = rest[wire.send(rest) :]
            else:
                wire.write_out()
        except BlockingIOError:
            blocked += 1
        assert wire.unsent_bytes <= SEND_BYTES + 1024
        with suppress(BlockingIOError):
            incoming.write(theirs.recv(50_000))
        with suppress(ssl.SSLWantReadError):
            got += client.read(MIB)
    assert got == data
    assert blocked


# --- a worker -----------------------------------------------------------------------------------------------------


async def raw(worker: Worker) -> trio.SocketStream:
    return (await worker.connect()).transport


async def ended(stream: trio.SocketStream) -> bytes:
    """What the worker says until it ends the connection."""
    said = b""
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(65_536):
            said += data
    return said


async def test_chunks_are_stored_as_in_clear(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context)
    client = await worker.connect_tls(authority.client())
    for number, packets in enumerate((1000, 4, 20_000, 64)):
        body = video(packets * 188, seed=number)
        reply = await client.ask(body, NOW_MS + number, chunked=number == 3)
        assert reply.status == 201
        assert worker.stored(1, NOW_MS + number) == body
    assert worker.stats.handshakes == {"done": 1}


async def test_what_waits_in_openssl_is_read_when_reading_goes_on(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    """All requests are sent at once, more than a turn takes and more than may be owed: nothing more comes on the
    socket that would wake an epoll."""
    worker = await begin(tls=context, limits=replace(PATIENT, max_outstanding=3))
    client = await worker.connect_tls(authority.client())
    count = 40
    requests = [client.request(video(40 * 188, seed=n), NOW_MS + n) for n in range(count)]
    await client.send(b"".join(requests))
    assert [(await client.reply()).status for _ in range(count)] == [201] * count


async def test_a_budget_that_is_full_stops_reading_and_goes_on(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context, budget_bytes=32 * MIB)
    client = await worker.connect_tls(authority.client())
    await until(lambda: bool(worker.connections))
    account = Account()
    worker.budget.charge(account, worker.budget.total_bytes - worker.budget.in_use_bytes)
    await client.send(client.request(body := video(300 * 188)))
    await until(lambda: worker.budget.waiting == 1)
    worker.budget.refund(account, account.charged_bytes)
    assert (await client.reply()).status == 201
    assert worker.stored() == body


async def test_the_beginning_of_a_record_is_charged_and_comes_back(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context)
    client = await worker.connect_tls(authority.client())
    await until(lambda: bool(worker.connections))
    assert worker.budget.in_use_bytes == 0
    part = b"\x17\x03\x03\x40\x00" + bytes(9000)
    await client.transport.send_all(part)
    await until(lambda: worker.budget.in_use_bytes == len(part))
    assert worker.receiver.strangers.held_bytes == len(part)
    client.reset()
    await until(lambda: not worker.connections)
    assert worker.receiver.strangers.held_bytes == 0


async def test_sessions_resume_within_a_worker(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context)
    trusting = authority.client()

    def twice() -> list[bool]:
        session, reused = None, []
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", worker.port)) as sock,
                trusting.wrap_socket(sock, server_hostname="clips.example", session=session) as tls,
            ):
                tls.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
                while tls.recv(65_536):
                    pass
                session = tls.session
                reused.append(bool(tls.session_reused))
        return reused

    assert await trio.to_thread.run_sync(twice) == [False, True]
    assert worker.stats.handshakes == {"done": 1, "resumed": 1}


async def test_a_request_in_clear_is_told_what_to_do(begin: Begin, context: ssl.SSLContext) -> None:
    worker = await begin(tls=context)
    client = await worker.connect()
    reply = await client.ask(video(1000 * 188))
    assert (reply.status, reply.code, reply.closes) == (400, "tls_required", True)
    assert "https://" in reply.body.decode()
    assert worker.stored() is None
    assert worker.stats.handshakes == {"plain": 1}


async def test_who_speaks_in_clear_holds_no_more_than_a_bound(
    begin: Begin, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that is told may take its time to read it, so no more than some are."""
    monkeypatch.setattr("ingest.server.MAX_TOLD_PLAIN", 1)
    worker = await begin(tls=context)
    first = await raw(worker)
    request = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
    await first.send_all(request)
    assert b"tls_required" in await first.receive_some(4096)
    assert worker.budget.in_use_bytes == 0, "what a handshake takes was given back"
    second = await raw(worker)
    await second.send_all(request)
    with suppress(trio.BrokenResourceError):  # it is reset, for its request was not read
        assert await second.receive_some(4096) == b""
    await first.aclose()
    await until(lambda: worker.server._told_plain == 0)
    third = await raw(worker)
    await third.send_all(request)
    assert b"tls_required" in await third.receive_some(4096)
    for stream in (second, third):
        await stream.aclose()


async def test_clear_is_taken_beside_tls_where_that_is_set(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context, handshake_limits=HandshakeLimits(plain=True))
    for number, client in enumerate((await worker.connect(), await worker.connect_tls(authority.client()))):
        assert (await client.ask(video(), NOW_MS + number)).status == 201


HELLO = bytes.fromhex("1603010200010001fc0303")
HOSTILE = {
    "no bytes": b"",
    "a byte of a hello": HELLO[:1],
    "half a hello": HELLO + bytes(200),
    "a hello of 16 KiB that has no end": b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(16 * 1024 - 4),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE.keys())
async def test_who_makes_no_handshake_ends_by_the_deadline(
    begin: Begin, context: ssl.SSLContext, sent: bytes
) -> None:
    worker = await begin(tls=context, handshake_limits=HandshakeLimits(handshake_s=0.3))
    stream = await raw(worker)
    if sent:
        await stream.send_all(sent)
    handshakes = worker.handshakes
    assert handshakes is not None
    await until(lambda: handshakes.under_way == 1)
    assert worker.budget.in_use_bytes == HANDSHAKE_CHARGE_BYTES
    await ended(stream)
    await until(lambda: worker.budget.in_use_bytes == 0)
    assert worker.stats.handshakes == {"timeout": 1}


async def test_a_byte_now_and_then_does_not_put_the_deadline_off(
    begin: Begin, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context, handshake_limits=HandshakeLimits(handshake_s=0.5))
    stream = await raw(worker)
    with trio.fail_after(5), suppress(trio.BrokenResourceError):
        for byte in HELLO + bytes(400):
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)
    assert worker.stats.handshakes == {"timeout": 1}


@pytest.mark.parametrize("kind", ["noise", "records of noise", "records of nothing", "an endless hello"])
async def test_garbage_ends_at_once(begin: Begin, context: ssl.SSLContext, kind: str) -> None:
    worker = await begin(tls=context, handshake_limits=HandshakeLimits(handshake_s=60))
    stream = await raw(worker)
    sent = {
        "noise": bytes(range(128, 256)) * 100,
        "records of noise": b"\x16\x03\x01\x00\x80" + bytes(range(128)),
        "records of nothing": b"\x16\x03\x01\x00\x00" * 20_000,
        "an endless hello": (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16 * 1024 - 4)) * 8,
    }[kind]
    with suppress(trio.BrokenResourceError):
        await stream.send_all(sent)
    await ended(stream)
    assert worker.stats.handshakes == {"failed": 1}


async def test_the_longest_handshake_makes_way(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context, handshake_limits=HandshakeLimits(max_handshakes=3))
    handshakes = worker.handshakes
    assert handshakes is not None
    silent = []
    for number in range(3):
        silent.append(await raw(worker))
        await until(lambda number=number: handshakes.under_way == number + 1)  # type: ignore[misc]
    client = await worker.connect_tls(authority.client())
    assert (await client.ask(video())).status == 201
    assert await ended(silent[0]) == b""
    assert handshakes.under_way == 2
    assert worker.stats.handshakes == {"made_way": 1, "done": 1}


@pytest.mark.parametrize(
    ("turn_s", "step_s", "steps"),
    [(0.0, 0.0004, 8), (0.02, 0.0004, 25), (0.02, 0.001, 10), (5.0, 0.0004, 256), (0.02, 0.0, 256)],
)
def test_all_else_has_half_of_each_turn(turn_s: float, step_s: float, steps: int) -> None:
    assert steps_in_a_turn(turn_s, step_s) == steps


async def test_many_who_come_at_once_take_their_turns(
    begin: Begin, authority: Authority, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Counter[int] = Counter()
    turn = 0

    def counted(turn_s: float, step_s: float) -> int:
        """Called after each step."""
        steps[turn] += 1
        return 8

    monkeypatch.setattr("ingest.handshakes.steps_in_a_turn", counted)
    worker = await begin(tls=context)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await trio.lowlevel.checkpoint()
            turn += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        async with trio.open_nursery() as clients:
            for number in range(60):
                clients.start_soon(_store_one, worker, authority, NOW_MS + number)
        nursery.cancel_scope.cancel()
    assert worker.stats.handshakes == {"done": 60}
    assert sum(steps.values()) >= 120
    assert max(steps.values()) <= 2 * 8, "a turn ends for one before another's begins"


async def _store_one(worker: Worker, authority: Authority, capture_ms: int) -> None:
    client = await worker.connect_tls(authority.client())
    assert (await client.ask(video(), capture_ms)).status == 201


async def test_a_stop_ends_handshakes(begin: Begin, context: ssl.SSLContext) -> None:
    worker = await begin(tls=context, handshake_limits=HandshakeLimits(handshake_s=60))
    stream = await raw(worker)
    handshakes = worker.handshakes
    assert handshakes is not None
    await until(lambda: handshakes.under_way == 1)
    worker.server.stop()
    assert await ended(stream) == b""
    await worker.served.wait()


# --- the PROXY protocol -------------------------------------------------------------------------------------------


async def test_a_camera_behind_a_proxy_that_says_who_it_is(
    begin: Begin, authority: Authority, context: ssl.SSLContext
) -> None:
    worker = await begin(tls=context, is_proxy=lambda address: True)
    client = await worker.connect()
    await client.send(b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n")
    stream = trio.SSLStream(
        client.transport, authority.client(), server_hostname="clips.example", https_compatible=True
    )
    secure = Client(stream, worker)
    body = video(300 * 188)
    assert (await secure.ask(body)).status == 201
    assert worker.stored() == body
    other = await worker.connect()
    await other.send(other.request(body, NOW_MS + 1))
    assert await ended(other.transport) == b""
    assert worker.stats.handshakes == {"done": 1, "not_proxied": 1}
    assert worker.stored(1, NOW_MS + 1) is None


async def test_what_a_header_says_of_the_client_is_not_looked_at(begin: Begin) -> None:
    """Neither a stranger's word nor a named proxy's: a device is known by its token, and nothing goes by addresses."""
    worker = await begin()
    client = await worker.connect()
    said = {"X-Forwarded-For": "no address", "X-Forwarded-Proto": "x", "Forwarded": 'for="'}
    assert (await client.ask(body := video(), **said)).status == 201
    assert worker.stored() == body
