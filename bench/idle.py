"""What idle connections cost: a server's memory with thousands of them, against the same server with none.

The server is first warmed with the same chunks over a few connections, which are closed again: code, pools
and buffers are there before the first figure. Then every idle connection sends one valid chunk, waits for
its ack and stays open. What the kernel keeps per socket is not in the figures.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.machine import Cores
from bench.media import transport_stream
from bench.procfs import Memory, session_memory
from bench.results import MB
from bench.servers import Server, Setup
from bench.stage import null_store
from bench.wire import ANSWER_LIMIT_BYTES, Heads, Target, parse_answer

CHUNK_BYTES = 4096
"""Small, so that what stays is the connection and not its chunk."""
BATCH = 100
"""Connections that wait for their acks together: within any backlog, and one group commit serves them."""
WARM_ROUNDS = 20
SETTLE_S = 2.0
"""Allocators return memory and log writers finish a moment later."""
ANSWER_TIMEOUT_S = 30.0
SPARE_FILES = 100


@dataclass(frozen=True)
class IdleSettings:
    """What `idle` runs with."""

    connections: int = 2000
    workers: int = 1

    def checked(self) -> IdleSettings:
        """Return self when it can be run.

        Raises:
            BenchError: out of bounds, or more than the system lets one process open.
        """
        if not 1 <= self.connections <= 20_000:
            raise BenchError("must be between 1 and 20000", subject="connections")
        _raise_file_limit(self.connections + SPARE_FILES)
        return self


@dataclass(frozen=True, slots=True)
class IdleResult:
    """Memory of the server's whole process tree with no connection and with all of them. Bytes."""

    server: str
    connections: int
    without: Memory
    with_all: Memory

    @property
    def rss_mb(self) -> float:
        return (self.with_all.rss_bytes - self.without.rss_bytes) / MB

    @property
    def pss_mb(self) -> float:
        return (self.with_all.pss_bytes - self.without.pss_bytes) / MB

    @property
    def kb_per_connection(self) -> float:
        return self.pss_mb * 1000 / self.connections

    def as_json(self) -> dict[str, Any]:
        extra = {"rss_mb": self.rss_mb, "pss_mb": self.pss_mb, "kb_per_connection": self.kb_per_connection}
        return {**asdict(self), **extra}


def measure_idle(
    settings: IdleSettings, servers: Sequence[Server], cores: Cores, settle_s: float = SETTLE_S
) -> Generator[IdleResult, None, None]:
    """Measure each server in turn.

    Raises:
        BenchError: a server did not start, or refused a chunk or a connection.
    """
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        root = Path(name)
        with null_store(root, cores.load, 0.0) as store:
            for server in servers:
                folder = root / server.name
                folder.mkdir()
                setup = Setup(store.port, folder, settings.connections, settings.workers, cores.server)
                with server.start(setup) as running:

                    def memory(session: int = running.session) -> Memory:
                        time.sleep(settle_s)
                        return session_memory(session)

                    without, with_all = _observe(running.target, settings.connections, memory)
                yield IdleResult(server.name, settings.connections, without, with_all)


def _observe(target: Target, connections: int, memory: Callable[[], Memory]) -> tuple[Memory, Memory]:
    body = transport_stream(CHUNK_BYTES)
    heads = Heads(target, len(body), int(time.time() * 1000))
    batch = min(BATCH, connections)
    with contextlib.ExitStack() as warm:
        sockets = [_connect(target, warm) for _ in range(batch)]
        for _ in range(max(1, min(WARM_ROUNDS, connections // batch))):
            _exchange(sockets, heads, body)
    without = memory()
    with contextlib.ExitStack() as held:
        for start in range(0, connections, batch):
            _exchange([_connect(target, held) for _ in range(min(batch, connections - start))], heads, body)
        return without, memory()


def _connect(target: Target, stack: contextlib.ExitStack) -> socket.socket:
    sock = socket.create_connection((target.host, target.port), ANSWER_TIMEOUT_S)
    return stack.enter_context(sock)


def _exchange(sockets: Sequence[socket.socket], heads: Heads, body: bytearray) -> None:
    """Send one chunk on each socket, then take the acks: all must be 201."""
    try:
        for sock in sockets:
            sock.sendall(heads.next() + body)
        for sock in sockets:
            received = b""
            while (found := parse_answer(received)) is None:
                data = sock.recv(ANSWER_LIMIT_BYTES)
                if not data:
                    raise ConnectionResetError("closed by the server")
                received += data
            if found[0] != 201:
                raise BenchError(f"a chunk was answered {found[0]}: {received[-200:]!r}", subject="idle")
    except (OSError, ValueError) as error:
        raise BenchError(f"an idle connection failed: {error}", subject="idle") from error


def _raise_file_limit(files: int) -> None:
    """Let this process, and the servers it starts, open as many files as the bench needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if hard != unlimited and hard < files:
        raise BenchError(f"the system allows {hard} open files, {files} are needed: raise `ulimit -n`")
    if soft != unlimited and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
