"""What any number of clients can make a worker hold: a real process, whose memory the system tells (invariant 15).

Programs of clients are drawn at random, above all such as have no token. The bound is that of docs/operations.md.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.load import earlier_today_ms
from tests.e2e.service import Device, Service, until
from tests.ingest.world import video

pytestmark = pytest.mark.e2e

MIB = 1 << 20
BUDGET_BYTES = 32 * MIB
SHARE_BYTES = 16 * MIB
STRANGER_BYTES = MIB
SEGMENTS = 2
CONNECTIONS = 60
CONNECTION_BYTES = 32 * 1024
"""Of a connection: 7 kB, and what a turn's answers and a half-read receive take."""
SLACK_BYTES = 12 * MIB
"""What the allocator keeps, and Python makes and drops between two collections."""
PROGRAM_S = 1.5

GETS = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000
TINY = b"1\r\nx\r\n" * 20_000


def strangers(device: int) -> dict[str, bytes]:
    """What a client without a token may send."""
    path = b"/v1/devices/%d/chunks/1" % device
    return {
        "many requests": GETS,
        "refused, sized": b"PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" % path
        + bytes(2_000_000),
        "refused, in tiny chunks": b"PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % path
        + TINY,
        "half a head": b"PUT %s HTTP/1.1\r\nHost: a\r\nA: " % path + b"v" * 15_000,
        "a head too large": b"PUT %s HTTP/1.1\r\nHost: a\r\nA: " % path + b"v" * 50_000,
        "empty lines": b"\r\n" * 100_000,
        "noise": bytes(range(256)) * 100,
        "a trailer": b"PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " % path
        + b"v" * 15_000,
        "an expectation": b"PUT %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        % path,
    }


KINDS = [*strangers(0)]


@dataclass(frozen=True)
class Program:
    """What one client does, and whether it reads its answers."""

    steps: tuple[str, ...]
    reads: bool


@dataclass
class Running:
    """A program under way."""

    sock: socket.socket
    rest: memoryview
    reads: bool
    received: int = 0
    over: bool = field(default=False)


@dataclass
class World:
    """A service of one worker."""

    service: Service
    device: Device
    worker: int
    base_bytes: int
    times: Iterator[int] = field(default_factory=lambda: count(earlier_today_ms(3_600_000)))

    def memory(self, what: str = "VmRSS") -> int:
        for line in Path(f"/proc/{self.worker}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{what} is not told")

    def upload(self) -> int:
        return self.service.put(self.device, next(self.times), video()).status


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with started(tmp_path_factory.mktemp("bounds")) as made:
        yield made


@pytest.fixture
def fresh_world(tmp_path: Path) -> Iterator[World]:
    """One whose budget is empty. What the programs of many clients leave behind is worked off for most of a minute."""
    with started(tmp_path) as made:
        yield made


@contextmanager
def started(path: Path) -> Iterator[World]:
    with Service(path) as service:
        service.init()
        service.configure(
            ingest_budget_bytes=BUDGET_BYTES,
            ingest_share_bytes=SHARE_BYTES,
            ingest_stranger_bytes=STRANGER_BYTES,
            segments_max_segments=SEGMENTS,
            ingest_send_timeout_s=2,
        )
        (device,) = service.add_devices(1)
        service.start()
        made = World(service, device, service.children()["w0"], 0)
        for _ in range(5):
            assert made.upload() == 201
        made.base_bytes = made.memory()
        yield made


def play(world: World, programs: list[Program], wires: dict[str, bytes]) -> int:
    """Let as many clients as may be do so, each one of the programs. Returns the most memory seen meanwhile."""
    selector = selectors.DefaultSelector()
    peak_bytes = 0
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            program = programs[number % len(programs)]
            sock = stack.enter_context(socket.create_connection(world.service.ingest))
            sock.setblocking(False)
            wire = memoryview(b"".join(wires[step] for step in program.steps))
            events = selectors.EVENT_WRITE | (selectors.EVENT_READ if program.reads else 0)
            selector.register(sock, events, Running(sock, wire, program.reads))
        deadline_s = time.monotonic() + PROGRAM_S
        while selector.get_map() and time.monotonic() < deadline_s:
            for key, events in selector.select(0.1):
                if not step(key.data, events):
                    selector.unregister(key.fileobj)
                elif not len(key.data.rest) and events & selectors.EVENT_WRITE:
                    selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
            peak_bytes = max(peak_bytes, world.memory())
        assert world.upload() in (201, 503), "others go on"
        peak_bytes = max(peak_bytes, world.memory())
    return peak_bytes


def step(client: Running, events: int) -> bool:
    """Send and receive what can be. Returns whether it goes on."""
    try:
        if events & selectors.EVENT_READ and not client.sock.recv(1 << 16):
            return False
        if events & selectors.EVENT_WRITE and len(client.rest):
            client.rest = client.rest[client.sock.send(client.rest) :]
    except BlockingIOError:
        pass
    except OSError:
        return False
    return client.reads or len(client.rest) > 0


programs_of = st.lists(
    st.builds(Program, st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).map(tuple), st.booleans()),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(programs_of)
@example([Program(("refused, sized", *("many requests",) * 8), reads=False)])
@example([Program(("many requests",) * 8, reads=True)])
@example([Program(("half a head",), reads=True)])
@example([Program(("a trailer",), reads=False), Program(("refused, in tiny chunks",) * 3, reads=False)])
def test_strangers_grow_a_worker_by_no_more_than_they_may(world: World, programs: list[Program]) -> None:
    """Any pipeline of anything. 700 connections that pipelined what they did not read took 7.6 GB once."""
    peak_bytes = play(world, programs, strangers(world.device.number))
    assert peak_bytes - world.base_bytes <= STRANGER_BYTES + CONNECTIONS * CONNECTION_BYTES + SLACK_BYTES
    until(
        lambda: world.memory() - world.base_bytes <= SLACK_BYTES,
        "the memory is given back",
    )


def admitted(device: Device, capture_ms: int, framing: bytes) -> bytes:
    """The head of a chunk."""
    path = b"PUT /v1/devices/%d/chunks/%d HTTP/1.1\r\nHost: x\r\n" % (device.number, capture_ms)
    return path + b"Authorization: Bearer %s\r\n%s\r\n\r\n" % (device.token.encode(), framing)


def devices(device: Device, times: Iterator[int]) -> dict[str, bytes]:
    """What a device may send, beside what a stranger may."""

    def head(framing: bytes) -> bytes:
        return admitted(device, next(times), framing)

    chunk = video()
    return {
        **strangers(device.number),
        "small chunks": b"".join(head(b"Content-Length: %d" % len(chunk)) + chunk for _ in range(2000)),
        "a large chunk": head(b"Content-Length: 8000000") + video(8_000_000),
        "half a chunk": head(b"Content-Length: 16000000") + video(3_000_000),
        "no video": (head(b"Content-Length: 100000") + bytes(100_000)) * 10,
        "tiny pieces": head(b"Transfer-Encoding: chunked") + TINY,
    }


@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.builds(
            Program,
            st.lists(
                st.sampled_from(
                    [*KINDS, "small chunks", "a large chunk", "half a chunk", "no video", "tiny pieces"]
                ),
                min_size=1,
                max_size=3,
            ).map(tuple),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
@example([Program(("small chunks", *("many requests",) * 4), reads=False)])
@example([Program(("half a chunk",), reads=True), Program(("a large chunk",), reads=True)])
def test_devices_grow_a_worker_by_no_more_than_the_budget(world: World, programs: list[Program]) -> None:
    """Past it clients wait, then get 503; the process never dies of memory."""
    peak_bytes = play(world, programs, devices(world.device, world.times))
    segments_bytes = (SEGMENTS + 1) * 19 * MIB
    bound = BUDGET_BYTES + segments_bytes + CONNECTIONS * CONNECTION_BYTES + SLACK_BYTES
    assert peak_bytes - world.base_bytes <= bound


def in_budget(world: World) -> float:
    """Bytes that the worker has charged."""
    return world.service.by_worker("clipkeep_ingest_budget_bytes")["w0"]


def test_pages_that_a_body_has_not_reached_are_in_the_budget(fresh_world: World) -> None:
    """Buffers that large bodies have filled are lent to bodies that send little, while others fill the budget anew.
    What they had been filled with came on top: twice the budget in all."""

    def begun(stack: ExitStack, number: int, announced: int, sent: int) -> None:
        head = admitted(fresh_world.device, next(fresh_world.times), b"Content-Length: %d" % announced)
        for _ in range(number):
            sock = stack.enter_context(socket.create_connection(fresh_world.service.ingest))
            sock.sendall(head + bytes(sent))

    before_bytes = fresh_world.memory()
    with ExitStack() as stack:
        begun(stack, 2, 16 * MIB, 14 * MIB)
        until(lambda: in_budget(fresh_world) >= 28 * MIB, "two large bodies have come, all but their ends")
    until(lambda: in_budget(fresh_world) == 0, "they were let go")
    with ExitStack() as stack:
        begun(stack, 2, 16 * MIB, 100_000)
        until(lambda: in_budget(fresh_world) >= 200_000, "both buffers are lent again")
        begun(stack, 28, MIB, MIB - 1000)
        until(lambda: in_budget(fresh_world) >= 27 * MIB, "the budget is nearly full")
        peak_bytes = fresh_world.memory()
        assert fresh_world.upload() == 201, "there is room for one more"
    # How much of the first filling is still there when the second begins is the pool's choice: all together counts.
    assert peak_bytes - before_bytes <= BUDGET_BYTES + 30 * CONNECTION_BYTES + SLACK_BYTES


UNREAD_BYTES = 64 * 512
"""Of a connection whose client reads no answers: `ingest.max_outstanding` of at most 512 bytes."""


def refused(world: World) -> float:
    """Chunks that the worker has answered 415."""
    return sum(
        value
        for (name, labels), value in world.service.metrics().items()
        if name == "clipkeep_ingest_answers_total" and ("code", "unknown_media") in labels
    )


def test_answers_that_devices_do_not_read(fresh_world: World) -> None:
    """Each owes 64 answers at most, and has no more of them in memory when it reads none."""
    connections, requests = 100, 1000
    wire = b"".join(
        admitted(fresh_world.device, next(fresh_world.times), b"Content-Length: 300") + bytes(300)
        for _ in range(requests)
    )
    before_bytes, before = fresh_world.memory(), refused(fresh_world)
    with ExitStack() as stack:
        running = []
        for _ in range(connections):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(fresh_world.service.ingest)
            sock.setblocking(False)
            running.append(Running(sock, memoryview(wire), False))
        peak_bytes, charged_bytes, answered = 0, 0.0, -1.0
        for _ in range(10):
            deadline_s = time.monotonic() + 1
            while time.monotonic() < deadline_s:
                for client in running:
                    step(client, selectors.EVENT_WRITE)
                peak_bytes = max(peak_bytes, fresh_world.memory())
            charged_bytes = max(
                charged_bytes, in_budget(fresh_world)
            )  # requests that came with those before them
            known, answered = answered, refused(fresh_world)
            if known == answered > before:
                break
    assert 64 * connections < answered - before < requests * connections, "it goes on without being read"
    assert (peak_bytes - before_bytes - charged_bytes) / connections <= CONNECTION_BYTES + UNREAD_BYTES
