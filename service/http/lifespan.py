"""The application's own beginning and end (ASGI `lifespan`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio

App = Callable[[Any, Any, Any], Awaitable[None]]


class LifespanFailed(RuntimeError):
    """The application could not start, or not end."""


class Lifespan:
    """One run of an application's lifespan.

    Args:
        state: shared with the scopes of its requests.
    """

    def __init__(self, app: App, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._told_startup = False
        self._ending = trio.Event()
        self._task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The owning task: started when the application has, over when it has ended after `end`.

        Raises:
            LifespanFailed, or what the application raises.
        """
        self._task_status = task_status
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        await self._app(scope, self._receive, self._send)

    def end(self) -> None:
        """No request is under way any more."""
        self._ending.set()

    async def _receive(self) -> dict[str, str]:
        if not self._told_startup:
            self._told_startup = True
            return {"type": "lifespan.startup"}
        await self._ending.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._task_status.started()
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                raise LifespanFailed(message.get("message", ""))
