"""Runs that are killed: real processes, forked one after the other, of which each dies by SIGKILL one step later than
the one before, until one gets through. So every step is tried, none by chance.

A module that uses this is started as a child of the test (forking pytest itself would copy its threads' locks), and
prints a JSON line for each run: `folder`, `killed`, and `step`, at which it died (of one that lived: its last).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.catalogs import copy_catalog, on_postgres


class Steps:
    """Counts steps, says their names through a pipe, and kills this process at one of them.

    Args:
        last: which step is the last, from 1 on.
        told: the pipe.
    """

    def __init__(self, last: int, told: int) -> None:
        self._left, self._told = last, told

    def __call__(self, name: str) -> None:
        os.write(self._told, f"{name}\n".encode())
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class Counting:
    """Stands before an object and says the name of each of its methods after it was called."""

    def __init__(self, real: Any, called: Callable[[str], None]) -> None:
        self._real, self._called = real, called

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value):
            return value

        def call(*args: Any, **named: Any) -> Any:
            result = value(*args, **named)
            self._called(name)
            return result

        return call


def run_and_kill(work: Path, run: Callable[[Path, Steps], None]) -> None:
    """Run again and again, each time on a copy of the folder `work/template`, until nothing is left to kill."""
    last = 0
    while True:
        last += 1
        folder = work / str(last)
        shutil.copytree(work / "template", folder)
        if on_postgres():
            copy_catalog(work / "template", folder, keep=True)
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run(folder, Steps(last, told))
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        with os.fdopen(heard) as pipe:
            steps = pipe.read().split()
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"folder": str(folder), "step": steps[-1], "killed": died}), flush=True)
        if not died:
            sys.exit(os.waitstatus_to_exitcode(status))
