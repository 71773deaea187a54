"""A whole worker in this process, on a loopback socket, and a client that speaks to it byte by byte."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.budget import Budget
from ingest.committing import Uploads
from ingest.connection import Connection
from ingest.gathering import Gathering
from ingest.handshakes import HandshakeLimits, Handshakes
from ingest.health import Health
from ingest.keyring import Keyring
from ingest.receiving import Limits, Receiver
from ingest.server import IngestServer, listen
from ingest.stats import Stats
from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from retention.tokens import mint_device_token
from storage.days import month_of_day
from storage.faults import FaultyStore
from storage.keys import KeyId, KeyStore
from storage.memory import MemoryStore
from storage.objects import ObjectStore
from storage.rows.devices import DeviceFacts, PlanRow
from storage.rows.recordings import ChunkRow
from storage.segment import TAG_BYTES, decrypt_chunk
from tests.ingest.world import NOW_MS, TODAY, FaultyCatalog, ManualClock
from tests.servers.catalogs import copy_catalog

CLASS_DAYS = 30
DEVICES = 9
FIRST_GENERATION = 1
"""Of the tokens of a device that is new."""
MIB = 1024 * 1024
PATIENT = Limits(
    body_grace_s=60.0, head_timeout_s=60.0, idle_timeout_s=60.0, send_timeout_s=60.0, linger_close_s=0.5
)
"""Limits that no test runs into unless it sets them."""


def make_template(folder: Path) -> None:
    """The files of a data folder with `DEVICES` entitled devices: made once, copied for each test."""
    KeyStore.create(folder / "keys").close()
    catalog = FaultyCatalog.of(folder, made=True, keep=True)
    EntitlementBitmap.create(folder / "bitmap", 100)
    with EntitlementBitmap.open(folder / "bitmap", writable=True) as bitmap:
        entitlements = Entitlements(catalog, bitmap, ManualClock())
        plan = PlanRow(0, "monthly", TODAY - 100, None, CLASS_DAYS)
        entitlements.rebuild()
        entitlements.add_devices(DEVICES, account=1, plans=[plan])
    catalog.close()


@dataclass
class Worker:
    """Everything of a worker but the process. Fields are what a test may set before `start`."""

    folder: Path
    nursery: trio.Nursery
    limits: Limits = PATIENT
    budget_bytes: int = 64 * MIB
    share_bytes: int = 32 * MIB
    patience_s: float = 2.0
    wait_s: float = 10.0
    linger_s: float = 0.01
    max_connections: int = 1000
    gathering: Gathering = field(default_factory=Gathering)
    tls: ssl.SSLContext | None = None
    handshake_limits: HandshakeLimits = field(default_factory=HandshakeLimits)
    is_proxy: Callable[[str], bool] = lambda address: False
    bitmap_name: str = "bitmap"
    clock: ManualClock = field(default_factory=ManualClock)
    objects: ObjectStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.stack = ExitStack()
        self.catalog = FaultyCatalog.of(self.folder)
        self.stack.callback(self.catalog.close)
        self.vault = self.stack.enter_context(KeyStore.open(self.folder / "keys"))
        self.bitmap = self.stack.enter_context(
            EntitlementBitmap.open(self.folder / self.bitmap_name, writable=True)
        )
        self.store = FaultyStore(self.objects, sleep=time.sleep)
        self.stats = Stats()
        self.health = Health(self._probe)
        self.keyring = Keyring(self.vault.ensure_each)
        self.uploads = Uploads(
            store=self.store,
            catalog=self.catalog,
            keyring=self.keyring,
            clock=self.clock,
            health=self.health,
            stats=self.stats,
            worker="w0",
            linger_s=self.linger_s,
            target_bytes=MIB,
            max_segments=8,
            prepare_ttl_ms=600_000,
            gathering=self.gathering,
        )
        self.budget = Budget(
            self.budget_bytes, self.share_bytes, patience_s=self.patience_s, wait_s=self.wait_s
        )
        self.receiver = Receiver(
            limits=self.limits,
            budget=self.budget,
            bitmap=self.bitmap,
            uploads=self.uploads,
            health=self.health,
            stats=self.stats,
            clock=self.clock,
            token_secret=self.vault.token_secret,
        )
        self.handshakes = (
            None
            if (context := self.tls) is None
            else Handshakes(lambda: context, self.handshake_limits, self.is_proxy)
        )
        self.server = IngestServer(
            self.receiver, self.stats, max_connections=self.max_connections, handshakes=self.handshakes
        )
        self.served = trio.Event()
        self.clients: list[Client] = []

    async def start(self) -> Worker:
        await self.nursery.start(self.keyring.run)
        await self.nursery.start(self.health.run)
        await self.nursery.start(self.uploads.run)
        listener = listen("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        await self.nursery.start(self._serve, listener)
        return self

    async def _serve(
        self, listener: socket.socket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self.server.run(listener, task_status=task_status)
        self.served.set()

    async def _probe(self) -> None:
        await trio.to_thread.run_sync(self.store.server_time_s)

    # --- changing and looking ---------------------------------------------------------------------------------

    def change(self, device: int, change: Callable[[DeviceFacts], DeviceFacts]) -> None:
        """What the command line does to a device."""
        Entitlements(self.catalog, self.bitmap, self.clock).change(device, change, what="test")

    def lapse(self, device: int) -> None:
        """Its plan's last day was yesterday."""

        def end(facts: DeviceFacts) -> DeviceFacts:
            (plan,) = facts.plans
            return replace(facts, plans=(replace(plan, ends_on=TODAY - 1, cancelled_on=TODAY - 20),))

        self.change(device, end)

    def token(self, device: int = 1) -> str:
        return mint_device_token(self.vault.token_secret, device, FIRST_GENERATION)

    def stored(self, device: int = 1, capture_ms: int = NOW_MS) -> bytes | None:
        """What a reader gets (invariants 1 and 11), None when the catalog knows no such chunk."""
        row = self.catalog.chunk(device, capture_ms)
        return None if row is None else self.plain(row)

    def plain(self, row: ChunkRow) -> bytes:
        """What is stored of a chunk, or of a part."""
        key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
        cipher = AESGCM(self.vault.get([key_id])[key_id])
        stored = self.objects.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
        return decrypt_chunk(cipher, row.nonce, stored, device=row.device, capture_ms=row.capture_ms)

    @property
    def connections(self) -> list[Connection]:
        return list(self.server._connections)

    # --- connecting --------------------------------------------------------------------------------------------

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> Client:
        sock = trio.socket.socket()
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await sock.connect(("127.0.0.1", self.port))
        client = Client(trio.SocketStream(sock), self)
        self.clients.append(client)
        return client

    async def connect_tls(self, context: ssl.SSLContext) -> Client:
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", self.port))
        stream = trio.SSLStream(
            trio.SocketStream(sock), context, server_hostname="clips.example", https_compatible=True
        )
        await stream.do_handshake()
        client = Client(stream, self)
        self.clients.append(client)
        return client


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error code, "" when there is none."""
        return str(json.loads(self.body)["error"]) if self.body else ""

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """One connection of a device."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], worker: Worker) -> None:
        self.stream = stream
        self.transport = stream if isinstance(stream, trio.SocketStream) else stream.transport_stream
        self._sock = self.transport.socket
        self.worker = worker
        self._received = b""

    def request(
        self,
        body: bytes | None = b"",
        capture_ms: int | str = NOW_MS,
        *,
        device: int = 1,
        token: str | None = None,
        method: str = "PUT",
        chunked: bool = False,
        **headers: str,
    ) -> bytes:
        """The bytes of one request. `capture_ms` as text is a live name; `body` None leaves the length out."""
        kind = f"chunks/{capture_ms}" if isinstance(capture_ms, int) else f"live/{capture_ms}"
        token = self.worker.token(device) if token is None else token
        lines = [
            f"{method} /v1/devices/{device}/{kind} HTTP/1.1",
            "Host: here",
            f"Authorization: Bearer {token}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            body = chunks(body or b"")
        elif body is not None and "Content_Length" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(self, body: bytes | None = b"", capture_ms: int | str = NOW_MS, **fields: object) -> Reply:
        """Send one request and wait for its answer."""
        await self.send(self.request(body, capture_ms, **fields))  # type: ignore[arg-type]
        return await self.reply()

    def said_nothing(self) -> bool:
        """Whether no byte of an answer has come that was not read yet."""
        with socket.socket(fileno=os.dup(self._sock.fileno())) as sock, suppress(BlockingIOError):
            sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return False
        return not self._received

    def send_now(self, data: bytes) -> None:
        """Send a few bytes without letting anybody else have a turn."""
        with socket.socket(fileno=os.dup(self._sock.fileno())) as sock:
            assert sock.send(data) == len(data)

    async def reply(self, *, of_head: bool = False) -> Reply:
        """`of_head`: no body comes, whatever its length is said to be."""
        with trio.fail_after(10):
            while b"\r\n\r\n" not in self._received:
                await self._more()
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            status = int(first.split(" ")[1])
            length = int(headers["content-length"]) if status not in (100, 204) and not of_head else 0
            while len(self._received) < length:
                await self._more()
            body, self._received = self._received[:length], self._received[length:]
        return Reply(status, headers, body)

    async def _more(self) -> None:
        data = await self.stream.receive_some(65_536)
        assert data, f"the connection ended after {self._received!r}"
        self._received += data

    async def ended(self) -> bool:
        """Wait for the server to close; True when it sent nothing more before that."""
        with trio.fail_after(10):
            while data := await self.stream.receive_some(65_536):
                self._received += data
        return not self._received

    async def close(self) -> None:
        await self.stream.aclose()

    def reset(self) -> None:
        """End it as a device does whose power fails, when its network says so."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._sock.close()


def chunks(body: bytes, size: int = 1000) -> bytes:
    """A body in the chunked coding."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread, or another task, brings about."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.002)


def copy_template(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    copy_catalog(template, folder)
    return folder
