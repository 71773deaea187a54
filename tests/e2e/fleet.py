"""Several hosts over one home, each in a network namespace with an address of its own, behind HAProxy.

    clients ── 127.0.0.1 ── HAProxy ── 10.x.y.11, .12, …   hosts, each in a namespace, which can be cut off
                               │
                               └────── 10.x.y.1            PostgreSQL and the S3 server, as the hosts reach them

It takes root, `ip` and `haproxy`.
"""

from __future__ import annotations

import copy
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from service.demo.ports import free_ports
from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.releases import COMING_RELEASE, coming_release
from tests.e2e.service import COMMAND_S, CommandFailed, Device, Service, until
from tests.e2e.violence import BUDGET_BYTES, CLIENTS, HEAL_S, SCENE_MS, Keeper
from tests.servers.postgres import PostgresServer
from tests.servers.seaweed import SeaweedServer

INGEST_PORT, API_PORT = 8080, 8081
POSTGRES_PORT, STORE_PORT = 15432, 18333
BUCKET = "fleet"

_ASK = """
import http.client, sys
method, address, port, path, token, body = sys.argv[1:]
connection = http.client.HTTPConnection(address, int(port), timeout=10)
data = open(body, "rb").read() if body else None
connection.request(method, path, data, {"Authorization": "Bearer " + token})
print(connection.getresponse().status)
"""


def require_tools() -> None:
    """Skips the test where there is no HAProxy, or no namespaces can be made."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root, and the program ip")
    name = f"ck{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces can be made here")
    _ip("netns", "del", name)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)


class Network:
    """A bridge, and namespaces on it. Leaving the context takes it all away.

    Args:
        hosts: how many namespaces.
    """

    def __init__(self, hosts: int) -> None:
        self._tag = secrets.token_hex(2)
        self._net = f"10.{random.randrange(64, 128)}.{random.randrange(256)}"
        self.bridge = f"ck{self._tag}"
        self.home = f"{self._net}.1"
        self.addresses = [f"{self._net}.{11 + n}" for n in range(hosts)]
        self.names = [f"ck{self._tag}-{n}" for n in range(hosts)]

    def __enter__(self) -> Network:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.home}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for n, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            _ip("netns", "add", name)
            _ip("link", "add", self._outside(n), "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", self._outside(n), "master", self.bridge, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

    def cut(self, n: int) -> None:
        """Whatever host `n` sends goes nowhere, and nothing reaches it."""
        _ip("link", "set", self._outside(n), "down")

    def mend(self, n: int) -> None:
        _ip("link", "set", self._outside(n), "up")

    def _outside(self, n: int) -> str:
        return f"ck{self._tag}v{n}"


class Balancer:
    """HAProxy before the hosts, and between them and their servers. Of the databases, the first one that takes
    connections."""

    def __init__(
        self, folder: Path, network: Network, databases: Sequence[PostgresServer], store: SeaweedServer
    ) -> None:
        ingest, api = free_ports(2)
        self.ingest, self.api = ("127.0.0.1", ingest), ("127.0.0.1", api)
        self._config = folder / "haproxy.cfg"
        servers = {
            port: "\n".join(
                f"    server h{n} {address}:{port} check port {API_PORT}"
                for n, address in enumerate(network.addresses)
            )
            for port in (INGEST_PORT, API_PORT)
        }
        checked = (
            "    balance leastconn\n    option httpchk GET /readyz\n    option redispatch\n"
            "    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions"
        )
        behind = "\n".join(
            f"    server p{n} 127.0.0.1:{database.port} check inter 500ms fall 1{' backup' if n else ''}"
            for n, database in enumerate(databases)
        )
        self._config.write_text(f"""
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 2s
    timeout client 2m
    timeout server 2m
    timeout check 2s
listen ingest
    bind 127.0.0.1:{ingest}
{checked}
{servers[INGEST_PORT]}
listen api
    bind 127.0.0.1:{api}
{checked}
{servers[API_PORT]}
listen postgres
    bind {network.home}:{POSTGRES_PORT}
{behind}
listen store
    bind {network.home}:{STORE_PORT}
    server here 127.0.0.1:{store.port}
""")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Balancer:
        self._process = subprocess.Popen(
            ["haproxy", "-db", "-f", self._config], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Fleet:
    """Hosts that serve, and clients that go through the balancer and never give up."""

    def __init__(self, hosts: Sequence[Service], network: Network, balancer: Balancer, seed: int) -> None:
        self.hosts = hosts
        self.network = network
        self.random = random.Random(seed)
        self.seed = seed
        self.keepers = [Keeper(host, 1, ports=(INGEST_PORT, API_PORT)) for host in hosts]
        self.front = copy.copy(hosts[0])
        """The home as clients see it: commands go to the first host's folder, requests to any host."""
        self.front.ingest, self.front.api = balancer.ingest, balancer.api
        self.kept = Acknowledged()
        self.healed_s: list[float] = []
        self._tokens: dict[int, str] = {}

    def tell(self, text: str) -> None:
        print(f"[seed {self.seed}] {text}", file=sys.stderr, flush=True)

    def start(self) -> None:
        for keeper in self.keepers:
            keeper.start()
        until(lambda: self._listed() == len(self.hosts), "every host is listed", HEAL_S)

    def _listed(self) -> int:
        return sum(host["state"] == "serves" for host in self.hosts[0].command("hosts")["hosts"])

    def add_devices(self, count: int) -> list[Device]:
        """With a plan that has run for three days."""
        began = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
        return self.hosts[0].add_devices(count, "annual", "--starts-on", began)

    def load(self, devices: Sequence[Device], scenes: list[bytes], pause_s: float) -> Load:
        began_ms = int(time.time() * 1000) - 86_400_000
        self._tokens = self.hosts[0].viewer_tokens([device.number for device in devices])
        return Load(
            [
                Uploader(
                    self.front,
                    device,
                    self.kept,
                    bodies=lambda number, capture_ms, scene: scenes[scene % len(scenes)],
                    packets=(0, len(scenes) - 1),
                    plays_ms=SCENE_MS,
                    first_ms=began_ms,
                    pause_s=pause_s,
                    retry_s=max(0.2, pause_s),
                    patience_s=COMMAND_S,
                )
                for device in devices
            ]
        )

    def kill(self, n: int) -> None:
        """SIGKILL to all of a host, which its manager then starts again."""
        self.hosts[n].kill()
        self.keepers[n].start()

    def cut(self, n: int, seconds: float) -> None:
        self.network.cut(n)
        time.sleep(seconds)
        self.network.mend(n)

    def freeze(self, n: int, seconds: float) -> None:
        members = self.hosts[n].members()
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in members:
            os.kill(pid, signal.SIGCONT)

    def upgrade(self, folder: Path) -> None:
        """Bring one host after another to a release that is yet to come, as operations.md says."""
        coming = coming_release(folder)
        first = self.hosts[0]
        first.environ |= coming  # its commands are of that release before its service is
        first.command("catalog", "migrate", "--before")
        for n, host in enumerate(self.hosts):
            assert host.stop() == 0
            host.environ |= coming
            self.keepers[n].start()
            listed = [one for one in first.command("hosts")["hosts"] if one["state"] == "serves"]
            later = [one["name"] for one in listed if one["release"] == COMING_RELEASE]
            assert sorted(later) == self.network.names[: n + 1], listed
            self.heal()
            if n < len(self.hosts) - 1:
                with pytest.raises(CommandFailed, match="catalog_in_use"):
                    first.command("catalog", "migrate", "--after")
        first.command("catalog", "migrate", "--after")
        self.heal()

    def heal(self) -> None:
        """Wait until every client had a chunk acknowledged, and every host says that it is ready."""
        seen, began_s = set(self.kept.chunks), time.monotonic()

        def served() -> bool:
            assert not self.kept.surprises, self.kept.surprises[:10]
            return len({device for device, _ in set(self.kept.chunks) - seen}) == CLIENTS

        until(served, "every client is served", HEAL_S)
        for host in self.hosts:
            until(lambda host=host: not host.problems(), "every host is ready", HEAL_S)  # type: ignore[misc]
        self.healed_s.append(time.monotonic() - began_s)
        self.tell(f"healed in {self.healed_s[-1]:.1f} s, {len(self.kept.chunks)} chunks acknowledged")

    def ask_inside(self, n: int, method: str, path: str, token: str, body: Path | None = None) -> int:
        """The status that a host answers to somebody on its own machine, cut off or not."""
        port = API_PORT if method == "GET" else INGEST_PORT
        command = ["ip", "netns", "exec", self.network.names[n], sys.executable, "-c", _ASK]
        command += [method, self.network.addresses[n], str(port), path, token, str(body or "")]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)

    def assert_sound(self) -> None:
        """Nothing that was acknowledged is lost, through any host; catalog and objects fit together."""
        assert_all_kept(self.front, self.kept, self._tokens)
        checked = self.hosts[0].command("check", "--deep")
        assert checked["broken"] == [], checked["broken"][:10]
        assert checked["chunks"] >= len(self.kept.chunks)
        self.tell(
            f"{len(self.kept.chunks)} chunks acknowledged, none lost; answers {dict(self.kept.answers)}, refusals"
            f" {dict(self.kept.codes)}; slowest answer {self.kept.slowest_s:.1f} s, slowest healing"
            f" {max(self.healed_s, default=0):.1f} s"
        )


@contextmanager
def fleet_of(
    hosts: int,
    root: Path,
    postgres: PostgresServer,
    store: SeaweedServer,
    *,
    seed: int,
    max_stale_s: float = 5.0,
    standby: PostgresServer | None = None,
    survives: str = "server_crash",
) -> Iterator[Fleet]:
    """Hosts that have joined one home, none of which serves yet."""
    databases = [postgres] if standby is None else [postgres, standby]
    require_tools()
    with psycopg.connect(postgres.url(), autocommit=True) as operator:
        for name in ("home", "keys"):
            operator.execute(f"DROP DATABASE IF EXISTS {name} (FORCE)".encode())
            operator.execute(f"CREATE DATABASE {name}".encode())
    store.make_bucket(BUCKET)
    try:
        with Network(hosts) as network, Balancer(root, network, databases, store) as balancer:
            environ = store.environ | {"PGPASSWORD": postgres.password}
            environ["CLIPKEEP_S3_ENDPOINT"] = f"http://{network.home}:{STORE_PORT}"
            made = []
            for name, address in zip(network.names, network.addresses, strict=True):
                (root / name).mkdir()
                host = Service(
                    root / name, environ=environ, under=("ip", "netns", "exec", name), address=address
                )
                host.configure(
                    hosts_max_stale_s=max_stale_s,
                    hosts_name=name,
                    ingest_budget_bytes=BUDGET_BYTES,
                    home_survives=survives,
                )
                made.append(host)
            home, keys = (_over(postgres, network.home, name) for name in ("home", "keys"))
            made[0].command("init", "--catalog", home, "--vault", keys, "--store", f"s3://{BUCKET}/p")
            for n, host in enumerate(made[1:], 1):
                made[0].command("host", "invite", "--out", str(root / f"invite-{n}"))
                host.command("host", "join", str(root / f"invite-{n}"))
            fleet = Fleet(made, network, balancer, seed)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PGPASSWORD", postgres.password)  # for what this process opens by itself
                try:
                    yield fleet
                finally:
                    for host in made:
                        host.__exit__(*sys.exc_info())
    finally:
        store.remove_bucket(BUCKET)


def _over(postgres: PostgresServer, address: str, database: str) -> str:
    """The URL of a database as the hosts reach it, without the password."""
    parts = urlsplit(postgres.url(database))
    return urlunsplit(parts._replace(netloc=f"{postgres.user}@{address}:{POSTGRES_PORT}"))
