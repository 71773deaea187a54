"""Clipkeep as a server under test: real processes, started by its command line in a temporary data folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.catalog_engines import new_database, started_postgres
from bench.children import LOG_TAIL_CHARS, Child, pinned
from bench.errors import BenchError
from bench.promises import check_promises
from bench.servers import BUCKET, START_TIMEOUT_S, Running, Setup, free_ports, wait_until_ready
from bench.wire import Device, Target
from service.spawning import python_module
from storage.open_catalog import SQLITE

DATA_FOLDER = "clipkeep-data"
DEVICES_FILE = "devices.json"
SHARED_BUFFERS = "1GB"
"""Of the PostgreSQL server beside a service."""
COMMAND_TIMEOUT_S = 120.0
"""For `init`, and for `device add` of many thousand devices."""


@dataclass(frozen=True, slots=True)
class Home:
    """What a service is started over.

    Attributes:
        data: the data folder.
        catalog: as `init --catalog` takes it.
        vault: as `init --vault` takes it; None is a folder.
        catalog_server: the process whose children are the catalog's server, where it has one.
    """

    data: Path
    catalog: str = SQLITE
    vault: str | None = None
    catalog_server: int | None = None


class ClipkeepServer:
    """`clipkeep serve` with its defaults: encryption, checksums and durable catalog commits on.

    The first start in a folder makes the data folder and the devices, and checks the promises; later ones find
    them there.
    """

    name = "clipkeep"
    _warm_rounds = 1
    """Chunks of each device after which it has its data key wherever its chunks come to."""

    def __init__(self) -> None:
        self.promises: tuple[str, ...] = ()

    def available(self) -> str | None:
        if importlib.util.find_spec("service.cli") is None or _program() is None:
            return "the clipkeep command is not installed: pip install clipkeep"
        return None

    def install_commands(self) -> list[list[str]]:
        return [python_module("pip", "install", "clipkeep")]

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        with self._home(setup) as home:
            is_first = not home.data.exists()
            if is_first:
                _prepare(setup, home)
            with self.serving(setup, home.data) as running:
                # With its first chunk of a month a device gets its data key, and the worker fetches it: what all
                # devices do once is no part of what a chunk costs.
                devices = running.target.devices
                target = replace(running.target, warm_chunks=self._warm_rounds * len(devices))
                if is_first and setup.store_url is None and home.catalog_server is None:
                    self.promises = check_promises(target, setup.store_port, home.data, setup.environment())
                yield replace(running, target=target, catalog_server=home.catalog_server)

    @contextlib.contextmanager
    def home(self, setup: Setup) -> Iterator[Home]:
        """A data folder with its devices, without a service."""
        with self._home(setup) as home:
            _prepare(setup, home)
            yield home

    @contextlib.contextmanager
    def _home(self, setup: Setup) -> Iterator[Home]:
        yield Home(setup.folder / DATA_FOLDER)

    @contextlib.contextmanager
    def serving(
        self, setup: Setup, data: Path, *, within_s: float = START_TIMEOUT_S, name: str = ""
    ) -> Iterator[Running]:
        """Serve a data folder that is there. `name` is the log's.

        Raises:
            BenchError: it was not ready within `within_s`.
        """
        devices = tuple(Device(*pair) for pair in json.loads((setup.folder / DEVICES_FILE).read_text()))
        ingest, api = free_ports(2)
        argv = [
            *("serve", "--data", str(data), "--workers", str(setup.workers)),
            *("--ingest", f"127.0.0.1:{ingest}", "--api", f"127.0.0.1:{api}"),
        ]
        with Child(
            name or self.name,
            [_command(), *argv],
            cpus=setup.cpus,
            folder=setup.folder,
            environment=setup.environment(),
            speaks=False,
        ) as child:
            wait_until_ready(child, f"127.0.0.1:{api}/readyz", within_s, authority=setup.authority())
            target = Target("127.0.0.1", ingest, devices, authority=setup.authority())
            yield Running(child.session, target, api, data)


class ClipkeepOnPostgres(ClipkeepServer):
    """The same with its catalog on a durable PostgreSQL server, on the same cores: a new one, and a new data folder, at
    each start."""

    name = "clipkeep-postgres"

    @contextlib.contextmanager
    def _home(self, setup: Setup) -> Iterator[Home]:
        with pinned(setup.cpus), started_postgres(SHARED_BUFFERS) as (url, postmaster):
            data = Path(tempfile.mkdtemp(prefix=f"{DATA_FOLDER}-", dir=setup.folder)) / "data"
            yield Home(data, url, catalog_server=postmaster)


class ClipkeepHosts(ClipkeepServer):
    """One home on a durable PostgreSQL server, its vault there too, and several hosts over it, each with its own data
    folder and as many workers as a single one. All are on the same cores, and connections go to each in turn."""

    def __init__(self, hosts: int) -> None:
        super().__init__()
        self.hosts = hosts
        self.name = f"clipkeep-hosts-{hosts}"
        self._warm_rounds = 1 if hosts == 1 else 4 * hosts  # each of them comes to any host

    @contextlib.contextmanager
    def _home(self, setup: Setup) -> Iterator[Home]:
        with pinned(setup.cpus), started_postgres(SHARED_BUFFERS) as (url, postmaster):
            data = Path(tempfile.mkdtemp(prefix=f"{DATA_FOLDER}-", dir=setup.folder)) / "data"
            yield Home(data, url, new_database(url, "keys"), postmaster)

    @contextlib.contextmanager
    def serving(
        self, setup: Setup, data: Path, *, within_s: float = START_TIMEOUT_S, name: str = ""
    ) -> Iterator[Running]:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(super().serving(setup, data, within_s=within_s))
            more = []
            for number in range(2, self.hosts + 1):
                joined, invitation = data.with_name(f"data-{number}"), data.with_name(f"invitation-{number}")
                run_command(setup, ["host", "invite", "--data", str(data), "--out", str(invitation)])
                run_command(setup, ["host", "join", str(invitation), "--data", str(joined)])
                serving = super().serving(setup, joined, within_s=within_s, name=f"{self.name}-{number}")
                more.append(stack.enter_context(serving))
            target = replace(first.target, more_ports=tuple(running.target.port for running in more))
            sessions = tuple(running.session for running in more)
            yield replace(first, target=target, more_sessions=sessions)


def _program() -> str | None:
    """Find the command beside this interpreter first: the installed version that this bench belongs to."""
    return shutil.which("clipkeep", path=str(Path(sys.executable).parent)) or shutil.which("clipkeep")


def _command() -> str:
    program = _program()
    if program is None:
        raise BenchError("the command is not installed: pip install clipkeep", subject="clipkeep")
    return program


def _prepare(setup: Setup, home: Home) -> None:
    data = home.data
    store_url = setup.store_url or f"s3://{BUCKET}/{secrets.token_hex(4)}"  # two homes never share a store
    vault = [] if home.vault is None else ["--vault", home.vault]
    run_command(setup, ["init", "--data", str(data), "--store", store_url, "--catalog", home.catalog, *vault])
    starts = ["--starts-on", setup.starts_on] if setup.starts_on else []
    added = run_command(
        setup,
        [
            *("device", "add", "--data", str(data), "--count", str(setup.devices)),
            *("--plan", "annual", *starts, "--json"),
        ],
    )
    try:
        devices = read_devices(added)
    except ValueError as error:
        raise BenchError(
            "`device add --json` printed what this bench cannot read", subject="clipkeep"
        ) from error
    path = setup.folder / DEVICES_FILE
    path.touch(mode=0o600)  # tokens
    path.write_text(json.dumps(devices))


def read_devices(text: str) -> list[Device]:
    """Parse what `device add --json` prints, of one device or of many.

    Raises:
        ValueError: it is something else.
    """
    try:
        document = json.loads(text)
        listed = document.get("devices", [document])
        return [Device(int(entry["device"]), str(entry["token"])) for entry in listed]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no devices with tokens") from error


def viewer_token(setup: Setup, data: Path, device: int) -> str:
    """Return a token with which this bench may read a device's recordings."""
    made = run_command(setup, ["viewer-token", "--data", str(data), "--device", str(device), "--json"])
    return str(json.loads(made)["token"])


def run_command(setup: Setup, arguments: Sequence[str], *, within_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run one command to its end and return its stdout.

    Raises:
        BenchError: it failed, or did not end in time.
    """
    environment = {**os.environ, **setup.environment()}
    try:
        with pinned(setup.cpus):
            done = subprocess.run(
                [_command(), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=within_s,
                check=True,
            )
    except subprocess.CalledProcessError as error:
        tail = str(error.stderr)[-LOG_TAIL_CHARS:].strip()
        raise BenchError(f"`clipkeep {arguments[0]}` failed:\n{tail}", subject="clipkeep") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"`clipkeep {arguments[0]}` did not end in time", subject="clipkeep") from error
    return done.stdout
