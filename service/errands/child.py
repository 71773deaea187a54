"""An errand in a process of its own: begun, listened to, stopped."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from service.errands.running import Errand, Told
from service.spawning import python_module
from storage.errors import ClipkeepError, WorldError

MAX_LINE_BYTES = 1 << 20
"""Of what the process says; an answer has some 100 KB."""
STOP_WITHIN_S = 10.0
"""For it to give its lease back; then it is killed, and the lease runs out."""
_READ_BYTES = 1 << 16


class ErrandRefused(ClipkeepError):
    """What the process was refused, with the code that it met."""


class InChild:
    """Carries errands out, each in a new process.

    Args:
        store_url: as the service was given it; None: as the configuration says.
    """

    def __init__(self, root: Path, store_url: str | None) -> None:
        self._root = root
        self._store_url = store_url

    async def __call__(self, errand: Errand, told: Told) -> dict[str, Any]:
        """Raises ErrandRefused; WorldError `broken_off`: the process ended without an answer."""
        store = [] if self._store_url is None else ["--store", self._store_url]
        command = python_module(
            "service.errands.process",
            "--data",
            str(self._root),
            *store,
            "--errand",
            json.dumps(asdict(errand)),
        )
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = await _heard(process.stdout, told)
            status = await process.wait()
        finally:
            await _ended(process)  # while it can read: it takes the end of its stdin for our death
            await trio.aclose_forcefully(process.stdin)
            await trio.aclose_forcefully(process.stdout)
        if "refused" in said:
            raise ErrandRefused(said["detail"], code=said["refused"])
        if "answer" not in said:
            raise WorldError(
                f"the process of this {errand.kind} ended without an answer (status {status}); the log says more",
                code="broken_off",
            )
        return dict(said["answer"])


async def _heard(stdout: trio.abc.ReceiveStream, told: Told) -> dict[str, Any]:
    """Its last word: `answer` or `refused`; nothing when it ended without one. Raises WorldError `broken_off`."""
    last: dict[str, Any] = {}
    rest = b""
    while data := await stdout.receive_some(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise WorldError(f"it says a line of more than {MAX_LINE_BYTES} bytes", code="broken_off")
        for line in lines:
            said = json.loads(line)
            if "progress" in said:
                told(*said["progress"])
            else:
                last = said
    return last


async def _ended(process: trio.Process) -> None:
    """Have it end, by a word and then by force."""
    if process.poll() is not None:
        return
    with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_WITHIN_S):
        process.send_signal(signal.SIGINT)
        await process.wait()
    if process.poll() is None:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
