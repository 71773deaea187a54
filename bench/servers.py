"""The servers under test: what each must offer to the harness, and the list of them.

A new peer is one class with the members of `Server`, added to `all_servers`. It takes chunks in one of the
dialects of `bench.wire` and acknowledges each once the store has its bytes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.certificates import ServedPair
from bench.children import POLL_S, Child
from bench.errors import BenchError
from bench.tlsclient import client_context
from bench.wire import Device, Target

START_TIMEOUT_S = 120.0
BUCKET = "bench"
PEERS_VARIABLE = "CLIPKEEP_BENCH_PEERS"
DEFAULT_PEERS = Path("bench-results/peers")


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
        store_url: where Clipkeep keeps its objects instead of the null store: file:///… or s3://bucket/prefix,
            then with the operator's own AWS settings. Promises are checked on the null store only.
        tls: what is served over TLS on each port; None: in clear.
        starts_on: UTC date on which the devices' plans begin, for uploads of the past; None is today.
    """

    store_port: int
    folder: Path
    devices: int
    workers: int
    cpus: Sequence[int]
    latency_s: float = 0.0
    store_url: str | None = None
    starts_on: str | None = None
    tls: ServedPair | None = None

    def authority(self) -> str:
        """Path of what clients trust; empty: in clear."""
        return "" if self.tls is None else str(self.tls.certificate)

    def environment(self) -> Mapping[str, str]:
        """Name the null store, with dummy credentials; nothing of the operator's own AWS settings is used."""
        found = {}
        if self.tls is not None:
            found = {
                "CLIPKEEP_TLS_CERTIFICATE": str(self.tls.certificate),
                "CLIPKEEP_TLS_KEY": str(self.tls.key),
            }
        if self.store_url is not None:
            return found
        endpoint = f"http://127.0.0.1:{self.store_port}"
        return {
            **found,
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
    """A server that is ready: its processes' session, and where to send; of Clipkeep also where to read, its data
    folder, the process whose children are its catalog's server, where that has one, and the sessions of further hosts.
    """

    session: int
    target: Target
    api_port: int = 0
    data: Path = Path()
    catalog_server: int | None = None
    more_sessions: tuple[int, ...] = ()

    @property
    def sessions(self) -> tuple[int, ...]:
        return (self.session, *self.more_sessions)


class Server(Protocol):
    """One server under test.

    Attributes:
        promises: what its acknowledgement means and what stands behind it: printed in each report.
    """

    @property
    def name(self) -> str: ...

    @property
    def promises(self) -> tuple[str, ...]: ...

    def available(self) -> str | None:
        """Return None when it can be started here, else what is missing."""

    def install_commands(self) -> list[list[str]]:
        """Return the commands that install it for this bench, to be run in order."""

    def start(self, setup: Setup) -> AbstractContextManager[Running]:
        """Start it, wait until it is ready, and end it with the context.

        Raises:
            BenchError: it did not become ready in `START_TIMEOUT_S`.
        """


def wait_until_ready(
    child: Child, at: str, within_s: float = START_TIMEOUT_S, *, authority: str = ""
) -> None:
    """Poll `at`, host, port and path, until it answers 200; over TLS when there is an authority.

    Raises:
        BenchError: the child ended, or the time is over.
    """
    url, context = f"http://{at}", None
    if authority:
        url, context = f"https://{at}", client_context(authority)
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if not child.is_running():
            raise child.failure("ended before it was ready")
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=1, context=context) as response,
        ):
            if response.status == 200:
                return
        time.sleep(POLL_S)
    raise child.failure(f"was not ready within {within_s:.0f} s")


def numbered_devices(count: int) -> tuple[Device, ...]:
    """Return devices 1 to `count` for a peer, which looks at no token."""
    return tuple(Device(number, "bench") for number in range(1, count + 1))


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago. Another process may take one first; then the start fails loudly."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def peers_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where peers are installed: `CLIPKEEP_BENCH_PEERS`, else `bench-results/peers` here."""
    return Path(environ.get(PEERS_VARIABLE) or DEFAULT_PEERS)


def all_servers(folder: Path) -> tuple[Server, ...]:
    """Return Clipkeep first, then its peers in the order in which they are shown. `folder` is the peers'."""
    # Imported here because each module needs this one.
    from bench.clipkeep_server import ClipkeepServer
    from bench.peers.nginx import NginxDefaultPeer, NginxPeer
    from bench.peers.starlette_peer import StarlettePeer
    from bench.peers.tus_node import TusNodePeer
    from bench.peers.tusd import TusdPeer

    return (
        ClipkeepServer(),
        StarlettePeer(),
        TusNodePeer(folder),
        TusdPeer(folder),
        NginxDefaultPeer(folder),
        NginxPeer(folder),
    )


def tus_servers(folder: Path) -> tuple[Server, ...]:
    """Return those that speak tus, to be sent to by creation and one PATCH: Clipkeep first."""
    from bench.clipkeep_server import ClipkeepServer
    from bench.patched import Patched
    from bench.peers.tus_node import TusNodePeer
    from bench.peers.tusd import TusdFilesPeer, TusdPeer

    return (
        Patched(ClipkeepServer(), "clipkeep-tus", "/v1/devices/{device}/uploads"),
        Patched(TusNodePeer(folder), "tus-node"),
        Patched(TusdPeer(folder), "tusd"),
        Patched(TusdFilesPeer(folder), "tusd-files"),
    )


def choose(names: Sequence[str], folder: Path, *, tus: bool = False) -> tuple[Server, ...]:
    """Return the named servers in the order of `all_servers`, or `tus_servers`; no names means all.

    Raises:
        BenchError: one of the names is unknown.
    """
    servers = tus_servers(folder) if tus else all_servers(folder)
    known = [server.name for server in servers]
    for name in names:
        if name not in known:
            raise BenchError(f"is no server of this bench; known: {', '.join(known)}", subject=name)
    return tuple(server for server in servers if not names or server.name in names)


def split_available(servers: Sequence[Server]) -> tuple[list[Server], dict[str, str]]:
    """Return those that can start here, and by name why the others cannot, with the command that helps."""
    reasons = {server.name: server.available() for server in servers}
    can_start = [server for server in servers if reasons[server.name] is None]
    skipped = {
        name: f"{reason}; `clipkeep bench peers --install {name}`"
        for name, reason in reasons.items()
        if reason is not None
    }
    return can_start, skipped
