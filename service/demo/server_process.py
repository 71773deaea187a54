"""A server in a process of its own, for the demo and the tests: started, waited for, and ended with its starter."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.demo.watchdog import Watchdog
from storage.errors import WorldError

START_S = 60.0
"""Longest wait for a start: a machine that runs the whole suite takes its time."""
END_S = 60.0
_ASK_EVERY_S = 0.02


class ServerFailed(WorldError):
    """A server that the demo, the bench or a test needs could not be made, or did not start."""

    code = "server_failed"


class ServerProcess:
    """Ends with its starter, and what it says goes into a file `log` of its folder.

    Args:
        name: of the program, for people.
        folder: what it has stored. The watchdog removes it when the starter is gone.
        command: program and arguments.
        settings: as `subprocess.Popen` takes them.
    """

    def __init__(self, name: str, folder: Path, command: Sequence[str | Path], **settings: Any) -> None:
        self._name = name
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **settings
            )
        self._watchdog = Watchdog(self._process.pid, str(folder))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Wait until it can be used.

        Raises:
            ServerFailed: it ended, or takes too long; with what it said last.
        """
        deadline = time.monotonic() + START_S
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{self._name} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(_ASK_EVERY_S)

    def send(self, number: signal.Signals) -> None:
        """To the process and its children."""
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, number: signal.Signals) -> None:
        """End it by this signal, and wait until it is over. SIGKILL is for its children too; any other is its own to
        hand on."""
        self._watchdog.call_off()
        if number is signal.SIGKILL:
            self.send(number)
        else:
            self._process.send_signal(number)
        self._process.wait(END_S)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
