"""A service of real processes for the tests: started, watched, stopped or killed, and always ended."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from retention.tokens import mint_viewer_token
from service.folder import open_folder
from tests.e2e.warm import WarmCommands
from tests.servers.catalogs import empty_address

CLIPKEEP = Path(sys.executable).with_name("clipkeep")
COMMAND_S = 60.0
"""Longest that one command may take. Far above what any takes, for machines that do other things too."""
SOON_S = 30.0
"""Longest that a test waits for something that happens within a second or two."""

_WARM = WarmCommands()

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Device:
    """A camera as the command line made it."""

    number: int
    token: str


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        return str(json.loads(self.body)["error"])


class CommandFailed(AssertionError):
    """A command that was expected to succeed did not."""


class Service:
    """One data folder and the processes that serve it. Leaving the context ends them, and checks their logs.

    Args:
        root: an empty folder of this test; the data folder is made inside it.
        environ: variables for all commands and processes, over this process's own.
        under: a command that runs all of them, which are given to it as arguments.
        address: where it listens.
    """

    def __init__(
        self,
        root: Path,
        *,
        environ: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        address: str = "127.0.0.1",
    ) -> None:
        self._under = under
        self._address = address
        self.data = root / "data"
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("CLIPKEEP_")}
        self.environ["CLIPKEEP_SCHEDULE_ON"] = "false"  # tests say themselves what is swept when
        self.environ["CLIPKEEP_HOME_SURVIVES"] = "server_crash"  # the servers of tests do not sync
        self.environ |= environ or {}
        self.lines: list[str] = []
        """All that any process wrote to stderr."""
        self.ingest = self.api = ("127.0.0.1", 0)
        self.trusting: ssl.SSLContext | None = None
        """Of a client of a service that speaks TLS."""
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self._groups: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for reader in self._readers:
            reader.join(SOON_S)
        if kind is None:
            self.assert_no_traceback()
        else:
            print("\n".join(self.lines[-200:]), file=sys.stderr)

    # --- commands ---------------------------------------------------------------------------------------------

    def run(self, *args: str, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, whatever that is."""
        words = [*args, "--data", str(self.data)]
        if self._under:
            command = [*self._under, str(CLIPKEEP), *words]
            done = subprocess.run(
                command, env=self.environ, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        else:
            done = _WARM.run(words, self.environ, timeout_s=timeout_s)
        self.lines += done.stderr.splitlines()
        return done

    def command(self, *args: str) -> Any:
        """Run one command that must succeed, and return its JSON document."""
        done = self.run(*args, "--json")
        if done.returncode:
            raise CommandFailed(f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout)

    def init(self, *args: str) -> Self:
        self.command("init", "--catalog", empty_address(self.data), *args)
        return self

    def configure(self, **limits: object) -> None:
        """Set limits, as `ingest_max_connections=5` for [ingest] max_connections; for processes started later."""
        self.environ |= {f"CLIPKEEP_{name.upper()}": str(value) for name, value in limits.items()}

    def add_devices(self, count: int, plan: str | None = "annual", *more: str) -> list[Device]:
        args = ["device", "add", "--count", str(count), *(["--plan", plan] if plan else []), *more]
        document = self.command(*args)
        found = document["devices"] if count > 1 else [document]
        return [Device(d["device"], d["token"]) for d in found]

    def viewer_token(self, device: int) -> str:
        return str(self.command("viewer-token", "--device", str(device))["token"])

    def viewer_tokens(self, devices: Iterable[int]) -> dict[int, str]:
        """Tokens as `viewer-token` makes them, by device: a command for each of many devices takes too long."""
        with open_folder(self.data, environ=self.environ) as opened:
            secret, expires_s = opened.vault.token_secret, opened.clock.now_ms() // 1000 + 3600
            return {
                device: mint_viewer_token(
                    secret, device, opened.catalog.device(device).token_generation, expires_s
                )
                for device in devices
            }

    # --- processes --------------------------------------------------------------------------------------------

    def launch(
        self,
        *,
        workers: int = 1,
        ports: tuple[int, int] = (0, 0),
        under: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        """Start `clipkeep serve`, and do not wait for it.

        Args:
            under: a command that runs the one which is given to it as arguments.
            log: where stderr goes; else it is read here.
        """
        assert self._process is None, "it runs already"
        command = [
            *self._under,
            *under,
            *(str(CLIPKEEP), "serve", "--data", str(self.data), "--workers", str(workers), "--json"),
            *("--ingest", f"{self._address}:{ports[0]}", "--api", f"{self._address}:{ports[1]}"),
        ]
        with open(log or os.devnull, "a") as file:
            self._process = subprocess.Popen(
                command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file if log else subprocess.PIPE,
                text=True,
                start_new_session=True,  # a group of its own, which can be ended as a whole
            )
        self._groups.append(self._process.pid)
        if log is None:
            reader = threading.Thread(target=self._read_lines, args=(self._process,), daemon=True)
            reader.start()
            self._readers.append(reader)

    def start(
        self,
        *,
        workers: int = 1,
        ports: tuple[int, int] = (0, 0),
        under: Sequence[str] = (),
        log: Path | None = None,
    ) -> Self:
        """Start `clipkeep serve` and wait until it serves."""
        self.launch(workers=workers, ports=ports, under=under, log=log)
        document = self.announced()
        self.ingest = _address(document["ingest"])
        self.api = _address(document["api"])
        return self

    def announced(self) -> dict[str, Any]:
        """Wait for the document that `serve` prints when all its processes serve."""
        assert self._process is not None
        assert self._process.stdout is not None
        stuck = threading.Timer(COMMAND_S, self.kill)
        stuck.start()
        try:
            text = ""
            while line := self._process.stdout.readline():
                text += line
                if line == "}\n":
                    found: dict[str, Any] = json.loads(text)
                    return found
        finally:
            stuck.cancel()
        raise CommandFailed("serve ended before it served:\n" + "\n".join(self.lines[-20:]))

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> dict[str, int]:
        """Process id of each child that runs, by its name (`api`, `w0`, …)."""
        found = {}
        for pid, parent, words in _processes():
            if parent == self.pid and "--name" in words:
                found[words[words.index("--name") + 1]] = pid
        return found

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = SOON_S) -> int:
        """Wait for the end of the supervisor. Returns its exit code, negative for a signal."""
        assert self._process is not None
        code = self._process.wait(timeout_s)
        self._ended()
        return code

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = COMMAND_S) -> int:
        """Stop gracefully. Returns the exit code."""
        self.send(number)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to supervisor and children at once, as far as they still are there."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(SOON_S)
            self._ended()
        until(lambda: not self.members(), "the killed processes are gone", every_s=0.01)

    def members(self) -> list[int]:
        """Processes of all groups that this service has ever started."""
        return [pid for pid, group in _groups() if group in self._groups]

    def _ended(self) -> None:
        assert self._process is not None
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def _read_lines(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.lines.append(line.rstrip("\n"))

    def assert_no_traceback(self) -> None:
        """No process and no command has shown one, neither plainly nor in a log line."""
        bad = [line for line in self.lines if "Traceback" in line or "Exception Group" in line]
        assert not bad, "\n".join(self.lines[-60:])

    # --- HTTP -------------------------------------------------------------------------------------------------

    def get(self, path: str, *, token: str | None = None) -> Reply:
        """One request to the API port."""
        return self._ask(self.api, "GET", path, None, {"Authorization": f"Bearer {token}"} if token else {})

    def put(self, device: Device, capture_ms: int, body: bytes) -> Reply:
        """One chunk, on a connection of its own."""
        path = f"/v1/devices/{device.number}/chunks/{capture_ms}"
        return self._ask(self.ingest, "PUT", path, body, {"Authorization": f"Bearer {device.token}"})

    def _ask(
        self, to: tuple[str, int], method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Reply:
        if self.trusting is None:
            connection = HTTPConnection(*to, timeout=SOON_S)
        else:
            connection = HTTPSConnection(*to, timeout=SOON_S, context=self.trusting)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers.items()), answer.read())
        finally:
            connection.close()

    def problems(self) -> dict[str, str]:
        """What `/readyz` says is wrong; empty when it is ready."""
        answer = self.get("/readyz")
        if answer.status == 200:
            return {}
        assert answer.status == 503
        found: dict[str, str] = json.loads(answer.body)["problems"]
        return found

    def metrics(self) -> dict[tuple[str, Labels], float]:
        """`/metrics`, as {(name, sorted labels): value}."""
        found = {}
        for line in self.get("/metrics").body.decode().splitlines():
            match = _METRIC.fullmatch(line)
            if match:
                labels = tuple(sorted(_LABEL.findall(match["labels"] or "")))
                found[match["name"], labels] = float(match["value"])
        return found

    def by_worker(self, name: str) -> dict[str, float]:
        """One metric that only has the label `worker`."""
        return {
            dict(labels)["worker"]: value
            for (found, labels), value in self.metrics().items()
            if found == name
        }


_METRIC = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


def until(condition: Callable[[], Any], what: str, timeout_s: float = SOON_S, every_s: float = 0.1) -> Any:
    """Wait until the condition returns something true, and return that."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s in vain until {what}"
        time.sleep(every_s)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _processes() -> Iterator[tuple[int, int, list[str]]]:
    """(pid, parent, command line) of every process that is not a zombie."""
    for pid, state, parent, _ in _stats():
        if state != "Z":
            with suppress(OSError):
                yield (
                    pid,
                    parent,
                    Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"),
                )


def _groups() -> Iterator[tuple[int, int]]:
    """(pid, process group) of every process that is not a zombie."""
    for pid, state, _, group in _stats():
        if state != "Z":
            yield pid, group


def _stats() -> Iterator[tuple[int, str, int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                text = Path("/proc", name, "stat").read_text(errors="replace")
                state, parent, group = text.rpartition(")")[2].split()[:3]
                yield int(name), state, int(parent), int(group)


def resident_bytes(pid: int) -> int:
    """The process's proportional share of memory (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")
