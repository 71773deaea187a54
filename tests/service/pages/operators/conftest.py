"""A running API whose errands are carried out on its world, in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
import trio

from retention.proof import Prover
from retention.sweep import Sweep, SweepLimits
from service.errands.running import Errand, Kind, Told
from service.errands.work import planned, swept
from tests.service.api.server import Server
from tests.service.pages.visitor import Shown, Visitor
from tests.service.world import World

LIMITS = SweepLimits(
    expiry_slack_ms=0,
    delete_delay_ms=0,
    prepare_ttl_ms=86_400_000,
    lapse_grace_days=3,
    max_clock_skew_ms=300_000,
    max_rest_ms=400 * 86_400_000,
    bulk_limit=1,
    lease_ms=60_000,
    retry_ms=1000,
)


class Errandry:
    """Carries errands out as the child does, on a world. `hold`: called before each, in its thread."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.hold: Callable[[], object] = bool

    async def __call__(self, errand: Errand, told: Told) -> dict[str, Any]:
        return await trio.to_thread.run_sync(self._do, errand, abandon_on_cancel=True)

    def _do(self, errand: Errand) -> dict[str, Any]:
        self.hold()
        world = self._world
        if errand.kind is Kind.VERIFY:
            record = world.catalog.erasures(device=errand.device)[-1]
            proof = Prover(world.catalog, world.store, world.vault).prove(errand.device, record.epoch)
            return {**asdict(proof), "holds": proof.holds, "told": proof.told()}
        one_pass = Sweep(
            catalog=world.catalog,
            store=world.store,
            vault=world.vault,
            bitmap=world.bitmap,
            clock=world.clock,
            limits=LIMITS,
            who=f"operator {errand.who}",
        )
        if errand.kind is Kind.PLAN:
            return planned(one_pass, allow_bulk=errand.allow_bulk)
        return swept(one_pass, errand)


@pytest.fixture
def errandry(world: World) -> Errandry:
    return Errandry(world)


Counts = dict[str, dict[str, Any]]


@pytest.fixture
def counts() -> Counts:
    """What the workers of this host have published last, by name: for tests to fill."""
    return {}


@pytest.fixture
def server(world: World, errandry: Errandry, counts: Counts) -> Iterator[Server]:
    with Server(world, errands=errandry, workers=lambda: dict(counts)) as running:
        yield running
    assert running.bugs == []


def waited(visitor: Visitor, path: str, word: str) -> Shown:
    """The page, once it has this word."""
    for _ in range(500):
        shown = visitor.get(path)
        if word in shown.html.text:
            return shown
        time.sleep(0.02)
    raise AssertionError(f"{path} never says {word!r}: {shown.html.text}")
