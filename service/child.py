"""What the supervisor's children have in common: they speak one line when they are ready, die with it, and open as many
files as they have connections."""

from __future__ import annotations

import os
import resource
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


async def on_reload_signal(
    reload: Callable[[], object], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `reload`, which may read files, in a thread at each SIGHUP, one after the other."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            await trio.to_thread.run_sync(reload)


def allowed_connections(wanted: int, own_files: int) -> int:
    """Raise this process's limit of open files as far as it may and need be; how many connections it then allows.

    Without it idle connections could take the files that storing or reading a chunk needs. (The usual soft limit is
    1024, for programs that use select(), which this one does not.)
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + own_files
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - own_files))
