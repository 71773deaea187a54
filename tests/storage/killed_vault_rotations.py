"""Rotations of a vault on PostgreSQL that are killed: a child process of test_postgres_vault. It forks one rotation
after the other, each of which dies by SIGKILL one executed line later than the one before, and waits after each until
its parent has looked at what is left."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import storage.postgres.vault_rotation as vault_rotation
from storage.open_vault import open_vault
from tests.killing import Steps

MAX_TIMES = 1
"""How often one line is a step: a pass costs a third of a second."""
WATCHED = ("vault_rotation.py", "_key_files.py")


def rotate(url: str, master_key: Path, step: Steps) -> None:
    """A step is a line, told before it runs."""

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        name = os.path.basename(frame.f_code.co_filename)
        if name not in WATCHED:
            return None
        line = (name, frame.f_lineno)
        if event == "line" and (seen := times.get(line, 0)) < MAX_TIMES:
            times[line] = seen + 1
            step(f"{name}:{frame.f_code.co_name}:{frame.f_lineno}")
        return on_line

    times: dict[tuple[str, int], int] = {}
    vault_rotation.REWRAP_BATCH_ROWS = 2
    with open_vault(url, master_key) as vault:
        sys.settrace(on_line)
        vault.rotate()
        sys.settrace(None)


def main(url: str, master_key: Path) -> None:
    last, died = 0, True
    while died:
        last += 1
        heard, told = os.pipe()
        if (child := os.fork()) == 0:
            status = 1
            try:
                rotate(url, master_key, Steps(last, told))
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        with os.fdopen(heard) as pipe:
            steps = pipe.read().split()
        status = os.waitpid(child, 0)[1]
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not died and status:
            sys.exit(1)
        print(json.dumps({"step": steps[-1], "killed": died}), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
