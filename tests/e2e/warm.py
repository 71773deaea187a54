"""Commands without their start: a process loads the program once, and forks for each command.

A command takes a second of CPU to load and a tenth to run, and a test runs several before it comes to what it is about.
What a fork runs is `service.cli.main` with arguments, environment and files of its own, and it ends by itself, as the
program does. That the program itself starts, and how a Ctrl-C ends it meanwhile, is tests/service/test_cli.py's.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class WarmCommands:
    """The process that forks, of this process, from its first command on until this process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address = ""

    def run(
        self, arguments: list[str], environ: Mapping[str, str], *, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `clipkeep` with these arguments to its end.

        Raises:
            subprocess.TimeoutExpired: it was killed.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            asked = json.dumps(
                {"arguments": arguments, "environ": dict(environ), "cwd": os.getcwd()}
            ).encode()
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout_s)
                connection.connect(self._started())
                socket.send_fds(connection, [len(asked).to_bytes(4, "big")], [out.fileno(), err.fileno()])
                connection.sendall(asked)
                pid = _number(connection)
                try:
                    code = _number(connection)
                except TimeoutError:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(arguments, timeout_s) from None
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            return subprocess.CompletedProcess(arguments, code, *texts)

    def _started(self) -> str:
        with self._lock:
            if not self._address:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tests.e2e.warm"],
                    cwd=ROOT,
                    env={
                        name: value for name, value in os.environ.items() if not name.startswith("CLIPKEEP_")
                    }
                    | {"PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                assert process.stdin is not None
                assert process.stdout is not None
                atexit.register(_end, process)
                address = process.stdout.readline().decode().strip()
                assert address, "it did not start"
                self._address = "\0" + address
            return self._address


def _number(connection: socket.socket) -> int:
    data = connection.recv(4, socket.MSG_WAITALL)
    assert len(data) == 4, "what runs commands has ended"
    return int.from_bytes(data, "big", signed=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def serve() -> None:
    """Fork for each command that is asked for, until stdin ends."""
    from service.cli import COMMANDS, _command

    gc.disable()
    for name in COMMANDS:
        _command((name,))
    gc.collect()
    gc.freeze()
    gc.enable()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # in the abstract namespace, at an address of the system's choice
        listener.listen(64)
        print(listener.getsockname()[1:].decode(), flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
        while True:
            ready, _, _ = select.select([listener, sys.stdin.buffer.raw], [], [])
            if listener not in ready:
                return
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    head, files, _, _ = socket.recv_fds(connection, 4, 2)
    asked = json.loads(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
    pid = os.fork()
    if not pid:
        connection.close()
        _become(asked, *files)
    connection.sendall(pid.to_bytes(4, "big", signed=True))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        connection.sendall(code.to_bytes(4, "big", signed=True))


def _become(asked: dict[str, Any], out: int, err: int) -> None:
    """Be the command, and end as it does."""
    from service.cli import main

    code: object = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((nothing, out, err)):
            os.dup2(file, number)
            os.close(file)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environ"])
        sys.argv = ["clipkeep", *asked["arguments"]]
        main()
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    serve()
