"""A running API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.api.server import Server
from tests.service.world import World


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    with Server(world) as running:
        yield running
    assert running.bugs == []
