"""Devices that upload, and a viewer that reads everything back."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from types import TracebackType
from typing import Self

from storage.days import MS_PER_DAY
from tests.e2e.service import SOON_S, Device, Service

PACKET_BYTES = 188
_POOL = bytearray(random.Random(188).randbytes(PACKET_BYTES * 4096))
_POOL[::PACKET_BYTES] = b"\x47" * 4096
_FRAME = b"\x47\x41\x00\x10\0\0\1\xe0\0\0\x80\x80\5\x21\0\1\0\1"
"""Begins a packet: one in which a frame with the time 0 starts."""
RETRY_S = 0.05


def chunk_body(device: int, capture_ms: int, packets: int) -> bytes:
    """MPEG-TS with a frame that starts in its first packet, and noise; the same for the same arguments, and for no
    others."""
    name = _FRAME + f"{device}/{capture_ms}/{packets}".encode().ljust(PACKET_BYTES - len(_FRAME), b".")
    start = capture_ms % (4096 - packets) * PACKET_BYTES
    return name + bytes(_POOL[start : start + (packets - 1) * PACKET_BYTES])


@dataclass
class Acknowledged:
    """What a service has promised to keep: sha256 by device and capture time. Shared by threads."""

    chunks: dict[tuple[int, int], bytes] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    """All answers by status."""
    surprises: list[str] = field(default_factory=list)
    """Answers that should never have come."""
    codes: Counter[str] = field(default_factory=Counter)
    """The refusals among them by code."""
    slowest_s: float = 0.0
    """The longest that anybody waited for an answer after the whole of a batch was sent."""


def earlier_today_ms(by_ms: int) -> int:
    """So long ago, but not before midnight UTC: a plan that began today entitles to nothing before it."""
    now_ms = int(time.time() * 1000)
    return max(now_ms - by_ms, now_ms - now_ms % MS_PER_DAY)


class Uploader:
    """One device on one connection: sends `depth` chunks at a time, then reads their answers, for ever.

    What was not acknowledged is sent again, with the same bytes, until it is.

    Args:
        new: whether connections are made anew for every round.
        bodies: makes the chunk of a device, a capture time and a number of packets (for films: of a scene).
        plays_ms: how long each chunk plays; the next one's time is so much later.
        pause_s: between two rounds that were answered.
        retry_s: before a round that was refused, or whose connection broke, is sent again.
        patience_s: after so long without an answer the connection is given up.
    """

    def __init__(
        self,
        service: Service,
        device: Device,
        kept: Acknowledged,
        *,
        depth: int = 4,
        packets: tuple[int, int] = (20, 600),
        new: bool = False,
        first_ms: int | None = None,
        expected: Sequence[int] = (200, 201, 503),
        bodies: Callable[[int, int, int], bytes] = chunk_body,
        plays_ms: int = 1,
        pause_s: float = 0.0,
        retry_s: float = RETRY_S,
        patience_s: float = SOON_S,
    ) -> None:
        self._service = service
        self._device = device
        self._kept = kept
        self._depth = depth
        self._packets = packets
        self._new = new
        self._expected = expected
        self._bodies = bodies
        self._plays_ms = plays_ms
        self._pause_s = pause_s
        self._retry_s = retry_s
        self._patience_s = patience_s
        self._next_ms = first_ms or earlier_today_ms(3_600_000)
        self._owed: list[tuple[int, int]] = []
        """(capture_ms, packets) not acknowledged yet."""
        self._random = random.Random(device.number)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"device-{device.number}")
        self.asked_to_leave = False
        """The server said `Connection: close`."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(SOON_S + self._patience_s)
        assert not self._thread.is_alive(), "an uploader hangs"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(self._service.ingest, timeout=self._patience_s) as sock:
                    self._use(sock)
            except OSError:
                self._stop.wait(self._retry_s)  # the service is away for the moment

    def _use(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = sock.makefile("rb")
        with reader:
            while not self._stop.is_set():
                while len(self._owed) < self._depth:
                    self._owed.append((self._next_ms, self._random.randint(*self._packets)))
                    self._next_ms += self._plays_ms
                batch = self._owed[: self._depth]
                # The answers to what did arrive are read even when a send fails half-way.
                with suppress(BrokenPipeError, ConnectionResetError):
                    for capture_ms, packets in batch:
                        sock.sendall(self._request(capture_ms, packets))
                sent_s = time.monotonic()
                refused = False
                for capture_ms, packets in batch:
                    answer = read_answer(reader.readline, reader.read)
                    self._kept.slowest_s = max(self._kept.slowest_s, time.monotonic() - sent_s)
                    self._note(capture_ms, packets, answer)
                    refused = refused or answer.status == 503
                    if answer.close:
                        return
                self._stop.wait(self._retry_s if refused else self._pause_s)
                if self._new:
                    return

    def _request(self, capture_ms: int, packets: int) -> bytes:
        body = self._bodies(self._device.number, capture_ms, packets)
        return (
            f"PUT /v1/devices/{self._device.number}/chunks/{capture_ms} HTTP/1.1\r\nHost: clipkeep\r\n"
            f"Authorization: Bearer {self._device.token}\r\nClip-Duration-Ms: {self._plays_ms}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _note(self, capture_ms: int, packets: int, answer: Answer) -> None:
        status = answer.status
        self._kept.answers[status] += 1
        if status in (200, 201):
            body = self._bodies(self._device.number, capture_ms, packets)
            self._kept.chunks[self._device.number, capture_ms] = hashlib.sha256(body).digest()
            self._owed.remove((capture_ms, packets))
        elif status not in self._expected:
            self._kept.surprises.append(f"device {self._device.number} at {capture_ms}: {answer}")
        else:
            self._kept.codes[answer.code] += 1
            if status == 503 and answer.retry_after_s is None:
                self._kept.surprises.append(f"device {self._device.number}: {answer} without Retry-After")


@dataclass(frozen=True)
class Answer:
    """What a client acts upon."""

    status: int
    close: bool = False
    """The connection ends."""
    retry_after_s: float | None = None
    body: bytes = b""

    @property
    def code(self) -> str:
        """Of a refusal."""
        return str(json.loads(self.body)["error"])


def read_answer(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> Answer:
    """One answer; 100 Continue is passed over.

    Raises:
        ConnectionError: the connection ended first.
    """
    while True:
        line = readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("no answer")
        status, headers = int(line.split()[1]), {}
        while (header := readline().strip().lower()) != b"":
            name, _, value = header.partition(b":")
            headers[name] = value.strip()
        length = int(headers.get(b"content-length", b"0"))
        body = read(length) if length else b""
        if len(body) < length:
            raise ConnectionResetError("half an answer")
        if status != 100:
            retry_after = headers.get(b"retry-after")
            return Answer(
                status,
                headers.get(b"connection") == b"close",
                None if retry_after is None else float(retry_after),
                body,
            )


class Load:
    """Several uploaders, for the time of a `with` block; all have ended behind it."""

    def __init__(self, uploaders: Sequence[Uploader]) -> None:
        self._uploaders = uploaders

    def __enter__(self) -> Self:
        for uploader in self._uploaders:
            uploader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for uploader in self._uploaders:
            uploader.stop()
        for uploader in self._uploaders:
            uploader.join()


def lost_chunks(
    service: Service, kept: Acknowledged, *, threads: int = 4, tokens: Mapping[int, str] | None = None
) -> list[str]:
    """Read every acknowledged chunk through the API, and tell which are not what was acknowledged.

    Args:
        tokens: of viewers, by device; else they are made.
    """
    by_device: dict[int, list[tuple[int, bytes]]] = {}
    for (device, capture_ms), digest in kept.chunks.items():
        by_device.setdefault(device, []).append((capture_ms, digest))
    tokens = tokens or service.viewer_tokens(by_device)

    def read(device: int) -> list[str]:
        lost = []
        connection = HTTPConnection(*service.api, timeout=SOON_S)
        headers = {"Authorization": f"Bearer {tokens[device]}"}
        try:
            for capture_ms, digest in by_device[device]:
                connection.request("GET", f"/v1/devices/{device}/chunks/{capture_ms}", headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    lost.append(f"device {device} at {capture_ms}: {answer.status} {body[:200]!r}")
                elif hashlib.sha256(body).digest() != digest:
                    lost.append(f"device {device} at {capture_ms}: other bytes")
        finally:
            connection.close()
        return lost

    with ThreadPoolExecutor(threads) as pool:
        return [line for lines in pool.map(read, by_device) for line in lines]


def assert_all_kept(service: Service, kept: Acknowledged, tokens: Mapping[int, str] | None = None) -> None:
    """Invariant 1: what was acknowledged is readable, byte for byte; and nothing strange was answered."""
    assert not kept.surprises, kept.surprises[:20]
    assert kept.chunks, f"nothing was acknowledged: {kept.answers}"
    lost = lost_chunks(service, kept, tokens=tokens)
    assert not lost, f"{len(lost)} of {len(kept.chunks)} lost: {lost[:20]}"
