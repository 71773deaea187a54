"""The servers under test: what each must offer to the harness, and the list of them.

A new peer is one class with `name`, `available` and `start`, added to `all_servers`. It takes the same
requests as Clipkeep (design.md, contract of the ingest port) and answers 201 once the store has the bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.children import POLL_S, Child
from bench.errors import BenchError
from bench.load import Target

START_TIMEOUT_S = 30.0
BUCKET = "bench"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is started with.

    Attributes:
        store_port: the null store's, on 127.0.0.1.
        folder: for the server's data and logs; the same one at each start of a bench run.
        devices: how many will send.
        workers: processes that serve uploads.
        cpus: cores of the server; none means all.
        latency_s: how long the store takes for each answer, for a server that sizes its pool by it.
    """

    store_port: int
    folder: Path
    devices: int
    workers: int
    cpus: Sequence[int]
    latency_s: float = 0.0

    def environment(self) -> Mapping[str, str]:
        """Name the store, with dummy credentials; nothing of the operator's own AWS settings is used."""
        endpoint = f"http://127.0.0.1:{self.store_port}"
        return {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CLIPKEEP_S3_ENDPOINT": endpoint,
            "CLIPKEEP_BENCH_S3_ENDPOINT": endpoint,
        }


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready: its processes' session, and where to send."""

    session: int
    target: Target


class Server(Protocol):
    """One server under test."""

    name: str

    def available(self) -> str | None:
        """Return None when it can be started here, else the reason and the command that helps."""

    def start(self, setup: Setup) -> AbstractContextManager[Running]:
        """Start it, wait until it is ready, and end it with the context.

        Raises:
            BenchError: it did not become ready in `START_TIMEOUT_S`.
        """


def wait_until_ready(child: Child, url: str) -> None:
    """Poll `url` until it answers 200.

    Raises:
        BenchError: the child ended, or the time is over.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if not child.is_running():
            raise child.failure("ended before it was ready")
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=1) as response,
        ):
            if response.status == 200:
                return
        time.sleep(POLL_S)
    raise child.failure(f"was not ready within {START_TIMEOUT_S:.0f} s")


def all_servers() -> tuple[Server, ...]:
    """Return Clipkeep first, then its peers in the order in which they are shown."""
    # Imported here because each module needs this one.
    from bench.clipkeep_server import ClipkeepServer
    from bench.peers.starlette_peer import StarlettePeer

    return ClipkeepServer(), StarlettePeer()


def choose(names: Sequence[str]) -> tuple[Server, ...]:
    """Return the named servers in the order of `all_servers`; no names means all.

    Raises:
        BenchError: one of the names is unknown.
    """
    servers = all_servers()
    known = {server.name for server in servers}
    for name in names:
        if name not in known:
            raise BenchError(f"is no server of this bench; known: {', '.join(sorted(known))}", subject=name)
    return tuple(server for server in servers if not names or server.name in names)


def split_available(servers: Sequence[Server]) -> tuple[list[Server], dict[str, str]]:
    """Return those that can start here, and why the others cannot, by name."""
    reasons = {server.name: server.available() for server in servers}
    can_start = [server for server in servers if reasons[server.name] is None]
    return can_start, {name: reason for name, reason in reasons.items() if reason is not None}
