"""Child processes of a bench: started on chosen cores, spoken to in JSON lines, always ended.

Each child leads a session of its own. So a Ctrl-C in the terminal reaches only the harness, which then ends
its children in order; and "the whole process tree of the server" is simply its session.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.errors import BenchError
from bench.procfs import session_stats
from service.spawning import default_sigint

END_GRACE_S = 10.0
"""From SIGTERM to SIGKILL: a service drains what it has begun."""
DEATH_S = 2.0
"""From SIGKILL to the end of a process that is in no system call of a broken disk."""
ZOMBIE = "Z"
LOG_TAIL_CHARS = 2000
POLL_S = 0.02


@contextlib.contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Run the calling thread, and what it forks meanwhile, on these cores only; none means anywhere."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the end of the block. One that comes while a child is forked would be lost:
    Python runs hooks around a fork, and prints and forgets what is raised in them. For the main thread.
    """
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda heard_number, _: heard.append(heard_number))
        for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for heard_number in heard:
        signal.raise_signal(heard_number)


class Child:
    """One process, and all that it starts.

    Args:
        name: for messages and the log's name.
        argv: program and arguments.
        cpus: cores it may use; none means all.
        folder: gets `{name}.log`: stderr, and stdout too when `speaks` is false.
        environment: added to this process's.
        speaks: stdout carries JSON lines for `event`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cpus: Sequence[int] = (),
        folder: Path,
        environment: Mapping[str, str] | None = None,
        speaks: bool = True,
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._lines = b""
        try:
            with interrupts_deferred(), self._log.open("ab") as log, pinned(cpus):
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,  # its end tells a child that the harness is gone, however it went
                    stdout=subprocess.PIPE if speaks else log,
                    stderr=log,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                    preexec_fn=default_sigint,  # `interrupt` is to be heard
                )
        except KeyboardInterrupt:
            self.end()
            raise

    @property
    def session(self) -> int:
        """Session, process group and process id of the leader: all the same number."""
        return self._process.pid

    def is_running(self) -> bool:
        """Tell without reaping: until `end`, the number stays ours."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._process.returncode is None and os.waitid(os.P_PID, self.session, flags) is None

    def event(self, timeout_s: float, wanted: str | None = None) -> dict[str, Any]:
        """Return the next JSON line of the child's stdout; skip others when `wanted` names an `event`.

        Raises:
            BenchError: the time is over, or the child ended or spoke no JSON.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            document = self._document(self._line(deadline_s))
            if wanted is None or document.get("event") == wanted:
                return document

    def _document(self, line: bytes) -> dict[str, Any]:
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self.failure(f"said what is not a JSON object: {line[:200]!r}")
        return document

    def _line(self, deadline_s: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None, "this child does not speak"
        while b"\n" not in self._lines:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([stdout], [], [], left_s)[0]:
                raise self.failure("said nothing in time")
            data = os.read(stdout.fileno(), 65536)
            if not data:
                raise self.failure("ended early")
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    def failure(self, what: str) -> BenchError:
        """Build an error that ends with the tail of the child's log."""
        tail = self._log.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip()
        return BenchError(
            f"{what}; its log ends with:\n{tail}" if tail else f"{what}; it logged nothing", subject=self.name
        )

    def interrupt(self) -> None:
        """SIGINT to the whole group: stop early and report."""
        self._signal(signal.SIGINT)

    def end(self) -> None:
        """SIGTERM to the whole group, SIGKILL to what is left after the grace, then reap. Idempotent."""
        if self._process.returncode is not None:
            return
        try:
            self._signal(signal.SIGTERM)
            deadline_s = time.monotonic() + END_GRACE_S
            while self.is_running() and time.monotonic() < deadline_s:
                time.sleep(POLL_S)
        finally:
            self._signal(signal.SIGKILL)  # the leader is not reaped yet, so the group is still this one
            self._wait_until_dead()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()

    def _wait_until_dead(self) -> None:
        """Wait until none of the session runs: what comes next has the cores and the ports to itself. Whoever
        adopts what the leader left behind reaps it in its own time."""
        deadline_s = time.monotonic() + DEATH_S
        while time.monotonic() < deadline_s:
            if all(fields[0] == ZOMBIE for fields in session_stats(self.session).values()):
                return
            time.sleep(POLL_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.session, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end()
