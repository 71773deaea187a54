"""What the supervisor's children have in common: they speak one line when they are ready, and die with it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

import trio

READY_LINE = "ready"
ORPHANED_EXIT = 70


def die_with_supervisor() -> None:
    """End this process at once when the supervisor is gone, however it went.

    The supervisor holds the other end of stdin. Nothing acknowledged is lost: what is acknowledged is durable.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(ORPHANED_EXIT)

    threading.Thread(target=watch, daemon=True, name="supervisor-watch").start()


def say_ready() -> None:
    """Tell the supervisor that this process serves."""
    sys.stdout.write(READY_LINE + "\n")
    sys.stdout.flush()


async def on_stop_signal(
    stop: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; ignore the ones after it."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            stop()
