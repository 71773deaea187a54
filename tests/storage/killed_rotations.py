"""Rotations that are killed: a child process of test_key_rotation, which forks one rotation after the other and lets
each die by SIGKILL one executed line later than the one before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import storage._key_rotation as key_rotation
from storage.keys import KeyStore

WATCHED = ("_key_rotation.py", "_key_files.py")


def rotate_and_die(folder: Path, after_lines: int, told: int) -> None:
    """Run the rotation; say the place of each line through the pipe `told`, before it runs."""
    lines = 0

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        name = os.path.basename(frame.f_code.co_filename)
        if name not in WATCHED:
            return None
        if event == "line":
            lines += 1
            os.write(told, f"{name}:{frame.f_code.co_name}:{frame.f_lineno}\n".encode())
            if lines == after_lines:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    key_rotation.REWRAP_BATCH_ROWS = 2
    with KeyStore.open(folder) as store:
        sys.settrace(on_line)
        store.rotate()
        sys.settrace(None)


def main(work: Path) -> None:
    """Print a JSON line for each rotation: its folder, the line before which it died, and whether it did."""
    after_lines = 0
    while True:
        after_lines += 1
        folder = work / str(after_lines)
        shutil.copytree(work / "template", folder)
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                rotate_and_die(folder, after_lines, told)
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        with os.fdopen(heard) as pipe:
            places = pipe.read().split()
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"folder": str(folder), "place": places[-1], "killed": died}), flush=True)
        if not died:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
