"""A running API with its pages, and somebody who opens them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.api.server import Server
from tests.service.pages.visitor import Visitor
from tests.service.world import World


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    with Server(world) as running:
        yield running
    assert running.bugs == []


@pytest.fixture
def visitor(server: Server) -> Visitor:
    return Visitor(server)
