"""`clipkeep serve`: starts the workers and the API process, restarts what dies, stops all of it together.

Children stay in this process's group and hold the other end of a pipe from it, so they die with it.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from service.child import READY_LINE, on_stop_signal
from service.spawning import python_module
from storage.errors import CallerError, ClipkeepError, WorldError

RESTART_PAUSE_S = 0.5
MAX_RESTART_PAUSE_S = 10.0
STEADY_S = 30.0
"""A child that ran so long is restarted without having to wait longer and longer."""
KILL_AFTER_S = 5.0
"""After a child's own deadline has passed."""

_PORT = re.compile("[0-9]{1,5}")

_log = structlog.get_logger("supervisor")


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, *, option: str) -> Address:
    """HOST:PORT.

    Raises:
        CallerError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _PORT.fullmatch(port) or int(port) > 65535:
        raise CallerError(f"{option}: {text!r} is not HOST:PORT", code="bad_address")
    return Address(host.strip("[]"), int(port))


@contextmanager
def claim(address: Address, *, option: str) -> Iterator[Address]:
    """Find out that nobody listens there yet, and which port 0 is; hold it until all are claimed.

    Workers share their port among themselves; without this look they would share it with a stranger's too, or the
    ingest port with the API's, each getting some of the other's connections.

    Raises:
        CallerError: the address is in use or cannot be bound.
    """
    with ExitStack() as stack:
        try:
            info = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
            sock = stack.enter_context(socket.socket(*info[:3]))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(info[4])
            sock.listen(1)  # only one that listens keeps others off, also from the wildcard address
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that can be no name
            why = getattr(error, "strerror", None) or "no such host"
            raise CallerError(
                f"{option}: cannot listen: {why}; choose another", subject=str(address), code="cannot_listen"
            ) from error
        yield Address(address.host, sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Child:
    """What one child process is."""

    name: str
    command: list[str]
    last: bool = False
    """Stopped when all others have ended: they need it to the end."""
    reloads: bool = False
    """It takes a SIGHUP, and reads its certificates again."""


class Supervisor:
    """Runs children until told to stop.

    Args:
        stop_deadline_s: how long children may take to stop; after it and a little more they are killed.
        reloads: a SIGHUP is passed on to the children that reload; else there is nothing to read again, which is
            logged. It ends nothing: who set a hook for certificates keeps the service, also without any.
    """

    def __init__(self, children: list[Child], *, stop_deadline_s: float, reloads: bool = False) -> None:
        self._children = children
        self._reloads = reloads
        self._reloading: dict[str, trio.Process] = {}
        """Those that are ready, by name."""
        self._stop_deadline_s = stop_deadline_s
        self._stopping = trio.Event()
        self._others = sum(not child.last for child in children)
        self._others_ended = trio.Event()
        self.restarts = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start all children; `started` when each said that it is ready. Returns when all have ended.

        Raises:
            WorldError: a child ended before it was ever ready; the others are stopped.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(on_stop_signal, self.stop)
            await nursery.start(self._pass_reload)
            async with trio.open_nursery() as keepers:
                async with trio.open_nursery() as starting:
                    for child in self._children:
                        starting.start_soon(keepers.start, self._keep, child)
                task_status.started()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Stop all children gracefully."""
        _log.info("stopping", deadline_s=self._stop_deadline_s)
        self._stopping.set()

    async def _pass_reload(self, task_status: trio.TaskStatus[None]) -> None:
        """A child that is not ready yet reads the files that are there now."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if not self._reloads:
                    _log.info("nothing_to_reload", detail="[tls] names no certificate")
                    continue
                _log.info("reloading", children=len(self._reloading))
                for process in self._reloading.values():
                    process.send_signal(signal.SIGHUP)

    async def _keep(
        self, child: Child, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run one child, again and again, until its stop."""
        stopping = self._others_ended if child.last else self._stopping
        try:
            await self._keep_until(stopping, child, task_status)
        finally:
            self._others -= not child.last
            if not self._others:
                self._others_ended.set()

    async def _keep_until(
        self, stopping: trio.Event, child: Child, task_status: trio.TaskStatus[None]
    ) -> None:
        pause_s = RESTART_PAUSE_S
        served = False
        while not stopping.is_set():
            began_s = trio.current_time()
            async with _process_of(child) as process, trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_with_us, stopping, process)
                if await self._became_ready(process):
                    if child.reloads:
                        self._reloading[child.name] = process
                    if not served:
                        served = True
                        _log.info("child_ready", child=child.name, pid=process.pid)
                        task_status.started()
                await process.wait()
                self._reloading.pop(child.name, None)
                nursery.cancel_scope.cancel()
            if stopping.is_set():
                _log.info("child_stopped", child=child.name, exit=process.returncode)
                break
            _log.error("child_ended", child=child.name, exit=process.returncode)
            if not served:
                raise WorldError(f"{child.name} could not start; its log above says why", code="cannot_start")
            self.restarts += 1
            if trio.current_time() - began_s > STEADY_S:
                pause_s = RESTART_PAUSE_S
            with trio.move_on_after(pause_s):
                await stopping.wait()
            pause_s = min(pause_s * 2, MAX_RESTART_PAUSE_S)
        if not served:
            task_status.started()  # stopped before it was ready: nobody waits for more

    async def _became_ready(self, process: trio.Process) -> bool:
        """Whether the child said so before it ended."""
        assert process.stdout is not None
        said = b""
        async for piece in process.stdout:
            said += piece
            if READY_LINE.encode() in said:
                return True
        return False

    async def _stop_with_us(self, stopping: trio.Event, process: trio.Process) -> None:
        """Pass the stop on; a child that ignores it is killed."""
        await stopping.wait()
        process.send_signal(signal.SIGTERM)
        await trio.sleep(self._stop_deadline_s + KILL_AFTER_S)
        _log.error("child_killed", pid=process.pid)
        process.kill()


@asynccontextmanager
async def _process_of(child: Child) -> AsyncIterator[trio.Process]:
    """A child's process. Leaving early, because another child could not start, kills it: it dies as with us."""
    process = await trio.lowlevel.open_process(
        child.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=_ignore_signals
    )
    try:
        yield process
    finally:
        with trio.move_on_after(KILL_AFTER_S, shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


@contextmanager
def first_error() -> Iterator[None]:
    """Let the first of our own errors out of the groups that nurseries make of them."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = group.subgroup(ClipkeepError)
        if ours is None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _ignore_signals() -> None:
    """In the child, before it is itself: a Ctrl-C reaches the whole group, also a child that still imports. Once it
    serves it listens for SIGINT as for SIGTERM; until then the supervisor's SIGTERM ends it. A SIGHUP to the whole
    group is a reload, for those that listen for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def children_of(
    *,
    data: Path,
    ingest: Address,
    api: Address,
    workers: int,
    store_url: str | None,
    host: str,
    schedule: bool,
) -> list[Child]:
    """The feed, the API process, the `schedule` where it is wanted, and `workers` ingest workers.

    Args:
        host: the random id of this run.
    """
    common = ["--data", str(data), *(["--store", store_url] if store_url else [])]
    feed = python_module("service.feed_process", "--name", "feed", "--data", str(data), "--host-id", host)
    children = [
        Child("feed", feed, last=True),
        Child("api", _module("service.api_process", api, "api", common), reloads=True),
    ]
    if schedule:
        command = python_module("service.schedule_process", "--name", "schedule", *common)
        children.append(Child("schedule", command))
    for number in range(workers):
        name = f"w{number}"
        children.append(Child(name, _module("service.worker", ingest, name, common), reloads=True))
    return children


def _module(module: str, address: Address, name: str, common: list[str]) -> list[str]:
    return python_module(module, "--name", name, "--host", address.host, "--port", str(address.port), *common)
