"""A server of the bench as tus clients use it: a POST that creates an upload, a PATCH with all of its bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from bench.servers import Running, Server, Setup
from bench.wire import TUS_PATCH, TUS_PATH


class Patched:
    """Another server that is sent to in that way.

    Args:
        uploads: see `bench.wire.Target.uploads`.
    """

    def __init__(self, server: Server, name: str, uploads: str = TUS_PATH) -> None:
        self._server = server
        self.name = name
        self._uploads = uploads

    @property
    def promises(self) -> tuple[str, ...]:
        return self._server.promises

    def available(self) -> str | None:
        return self._server.available()

    def install_commands(self) -> list[list[str]]:
        return self._server.install_commands()

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        with self._server.start(setup) as running:
            target = replace(running.target, dialect=TUS_PATCH, uploads=self._uploads)
            yield replace(running, target=target)
