"""Ends a server that was started for a demo or a test when its starter is gone, however that went.

A starter that is killed ends nothing, and its servers would run on for ever. A shell waits at a pipe of which only the
starter has the other end. (PR_SET_PDEATHSIG ends a child with the *thread* that started it, and a change of user voids
it.)
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

_WAIT_AND_KILL = 'while read -r _; do :; done; kill -s CONT "$1"; kill -s KILL "$1"; rm -rf -- "$2"'
END_S = 10.0


class Watchdog:
    """Kills a process of ours, and removes its folder, when this process is gone. `call_off` comes before it is ended
    otherwise: its number may be another's then.

    Args:
        pid: of the process. PostgreSQL's and PgBouncer's others end with it.
        folder: what it has stored.
    """

    def __init__(self, pid: int, folder: str) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_AND_KILL, "watchdog", str(pid), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends the starter's group must not end the watchdog
            cwd="/",
        )

    def call_off(self) -> None:
        self._shell.kill()
        self._shell.wait(END_S)
        if self._shell.stdin is not None:
            with suppress(OSError):
                self._shell.stdin.close()
