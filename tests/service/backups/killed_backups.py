"""Backups that are killed: a child process of test_backups, see `tests.killing`. A step is a line, told before it
runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from service.backups.making import Destinations, make_backup
from service.folder import open_folder
from tests.killing import Steps, run_and_kill
from tests.retention.world import NOON

WATCHED = ("making.py",)


def back_up(folder: Path, step: Steps) -> None:
    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        name = os.path.basename(frame.f_code.co_filename)
        if name not in WATCHED:
            return None
        if event == "line":
            step(f"{name}:{frame.f_code.co_name}:{frame.f_lineno}")
        return on_line

    to = Destinations(folder / "backups", folder / "keys-backups")
    with open_folder(folder / "data") as opened:
        sys.settrace(on_line)
        make_backup(opened, to, now_ms=NOON, progress=lambda *_: None)
        sys.settrace(None)


if __name__ == "__main__":
    run_and_kill(Path(sys.argv[1]), back_up)
