"""Servers of a demo or a test end with the process that started them, also when that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.demo.server_process import ServerProcess
from service.spawning import python_module
from tests.servers.postgres import postgres_server, system_binaries, wheel_binaries
from tests.servers.seaweed import seaweed_program, seaweed_server

ROOT = Path(__file__).parents[2]
END_S = 30.0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("server", ["postgres", "seaweed"])
def test_a_server_ends_with_its_starter(server: str, number: signal.Signals) -> None:
    """The main of this module is what is killed: SIGTERM too ends Python without a word."""
    if (wheel_binaries() or system_binaries() if server == "postgres" else seaweed_program()) is None:
        pytest.skip("this server is not installed")
    command = python_module("tests.service.test_watchdog", server)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ) as starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().split()
        assert is_running(int(pid))
        starter.send_signal(number)
    deadline = time.monotonic() + END_S
    while (is_running(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(int(pid))
    assert not Path(folder).exists()


def _start(server: str) -> None:
    if server == "postgres":
        binaries = wheel_binaries() or system_binaries()
        assert binaries is not None
        with postgres_server(binaries) as postgres:
            _tell_and_wait(postgres.process, postgres.folder)
    else:
        program = seaweed_program()
        assert program is not None
        with seaweed_server(program) as seaweed:
            _tell_and_wait(seaweed.process, seaweed.folder)


def _tell_and_wait(process: ServerProcess | None, folder: Path) -> None:
    assert process is not None
    sys.stdout.write(f"{process.pid} {folder}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    _start(sys.argv[1])
