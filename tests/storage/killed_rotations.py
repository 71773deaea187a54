"""Rotations that are killed: a child process of test_key_rotation, which forks one rotation after the other and lets
each die by SIGKILL one executed line later than the one before."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import storage._key_rotation as key_rotation
from storage.keys import KeyStore
from tests.killing import Steps, run_and_kill

WATCHED = ("_key_rotation.py", "_key_files.py")


def rotate(folder: Path, step: Steps) -> None:
    """A step is a line, told before it runs."""

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        name = os.path.basename(frame.f_code.co_filename)
        if name not in WATCHED:
            return None
        if event == "line":
            step(f"{name}:{frame.f_code.co_name}:{frame.f_lineno}")
        return on_line

    key_rotation.REWRAP_BATCH_ROWS = 2
    with KeyStore.open(folder) as store:
        sys.settrace(on_line)
        store.rotate()
        sys.settrace(None)


if __name__ == "__main__":
    run_and_kill(Path(sys.argv[1]), rotate)
