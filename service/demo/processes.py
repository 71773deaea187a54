"""The command line and the service as real processes, on one data folder; all of them ended with the demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import trio

from service.spawning import default_sigint, python_module
from service.supervisor import Address, parse_address
from storage.errors import WorldError

COMMAND_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0
DIE_TIMEOUT_S = 5.0
POLL_S = 0.05
LOG_TAIL_LINES = 12
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ANY_PORT = Address("127.0.0.1", 0)


class Clipkeep:
    """Runs `clipkeep` commands on one data folder, and the service.

    Args:
        folder: gets the data folder and the service's output.
    """

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.log = folder / "service.log"
        self._said = folder / "service.json"
        self._process: trio.Process | None = None
        self.ingest = self.api = ANY_PORT
        """Where the service listens; kept over restarts, as cameras know no other address."""
        self._offset_ms = 0

    # --- commands -------------------------------------------------------------------------------------------------

    async def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run one command and return the document that it printed.

        Args:
            ok: exit codes that are no failure.

        Raises:
            WorldError: it failed, took too long, or printed no JSON object.
        """
        command = _command(*arguments, "--data", str(self.data), "--json")
        finished = None
        with trio.move_on_after(COMMAND_TIMEOUT_S):
            finished = await trio.run_process(
                command,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
                env=_embedded_defaults(),
            )
        what = "clipkeep " + " ".join(arguments)
        if finished is None:
            raise WorldError(f"not done after {COMMAND_TIMEOUT_S:g} s", subject=what)
        if finished.returncode not in ok:
            raise WorldError(f"exit {finished.returncode}: {finished.stderr.decode().strip()}", subject=what)
        try:
            document = json.loads(finished.stdout)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise WorldError("printed no JSON object", subject=what)
        return document

    # --- time -----------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The service's time: this host's, moved as the test clock is."""
        return time.time_ns() // 1_000_000 + self._offset_ms

    async def to_noon(self) -> None:
        """Let it be the next 12:00 UTC, so that no midnight comes in the middle of a demo."""
        into_day_ms = time.time_ns() // 1_000_000 % DAY_MS
        await self.advance((DAY_MS // 2 - into_day_ms) % DAY_MS)

    async def advance(self, by_ms: int) -> None:
        """Move the time of all processes forward."""
        await self._move("--advance", by_ms)

    async def _move(self, option: str, by_ms: int) -> None:
        document = await self.run("clock", f"{option}={by_ms}ms")
        self._offset_ms = int(document["offset_ms"])

    # --- the service ----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() comes first"
        return self._process.pid

    async def start(self) -> None:
        """Start the service; returns when it serves.

        Raises:
            WorldError: it ended, or does not serve in START_TIMEOUT_S.
        """
        where = ("--ingest", str(self.ingest), "--api", str(self.api))
        command = _command("serve", *where, "--data", str(self.data), "--json")
        with self._said.open("wb") as said, self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command,
                # Files and not pipes: with --keep the service outlives us.
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=log,
                start_new_session=True,  # its own group: to be killed as a whole, and never by our Ctrl-C
                preexec_fn=default_sigint,
                env=_embedded_defaults(),
            )
        document = await self._first_document(self._process)
        self.ingest = parse_address(document["ingest"].removeprefix("http://"), option="ingest")
        self.api = parse_address(document["api"].removeprefix("http://"), option="api")

    async def _first_document(self, process: trio.Process) -> Any:
        with trio.move_on_after(START_TIMEOUT_S):
            while process.poll() is None:
                try:
                    return json.loads(self._said.read_bytes())
                except ValueError:
                    await trio.sleep(POLL_S)
        raise WorldError(
            f"the service does not start; its log ends with:\n{self.log_tail()}", subject="clipkeep serve"
        )

    async def kill(self) -> None:
        """SIGKILL to the supervisor and its workers, all at once; returns when nobody listens any more.

        Raises:
            WorldError: something still listens.
        """
        assert self._process is not None, "start() comes first"
        os.killpg(self._process.pid, signal.SIGKILL)  # its leader is not reaped yet: the group is ours
        await self._process.wait()
        deadline_s = trio.current_time() + DIE_TIMEOUT_S
        while await _listens(self.ingest) or await _listens(self.api):
            if trio.current_time() > deadline_s:
                raise WorldError(
                    f"something still listens {DIE_TIMEOUT_S:g} s after SIGKILL", subject="clipkeep serve"
                )
            await trio.sleep(POLL_S)

    async def end(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace. Idempotent. Shielded from cancellation, for its own bounds end it."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(grace_s):
                await process.wait()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def log_tail(self) -> str:
        """The last lines of the service's log."""
        if not self.log.exists():
            return "(empty)"
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(lines) or "(empty)"


def _command(*arguments: str) -> list[str]:
    return python_module("service.cli", *arguments)


def _embedded_defaults() -> dict[str, str]:
    """The environment without what would change the configuration; the demo says itself what is swept when."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("CLIPKEEP_")}
    return others | {"CLIPKEEP_SCHEDULE_ON": "false"}


async def _listens(address: Address) -> bool:
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError:
        return False
    stream.socket.close()
    return True
