"""Requests under an idempotency key that are killed: a child process of test_keys_killed, which forks one run after the
other and lets each die by SIGKILL one step later than the one before. Steps are those of killed_money."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from retention.money import Money
from retention.plans import PlanKind
from service.agreement import cancelling, crediting, purchases
from service.agreement.cancelling import Cancelled
from service.agreement.desk import OPERATOR
from service.agreement.gateway import recording
from service.agreement.idempotency import Answer, Decide, once, reference_for
from service.agreement.purchases import Started
from storage.catalog.books import Books
from tests.killing import Counting, Steps, run_and_kill
from tests.service.agreement.killed_money import ADA, DEVICE, TRYING, SteppingCatalog
from tests.service.agreement.money_world import METHOD, MoneyWorld

KEY = "a-key-of-the-clients"
HASH = bytes(32)
ANSWERS = "answers.txt"


def prepare(folder: Path) -> None:
    """Ada has device 1 with an annual plan (1), and device 2 without one."""
    with MoneyWorld(folder) as world:
        assert world.add_owner() == ADA
        assert [world.add_device(ADA) for _ in range(2)] == [DEVICE, TRYING]
        world.buy(ADA, DEVICE, "annual", "first")


def _started(done: Started) -> str:
    return json.dumps([done.device, done.subscription.plan_id, str(done.subscription.plan), str(done.fee)])


def _cancelled(done: Cancelled) -> str:
    refunds = [[row.reference, row.minor] for row in done.refunds]  # their state is that of the moment
    return json.dumps(
        [done.subscription.plan_id, str(done.subscription.plan), str(done.cancellation.refund), refunds]
    )


def buy(world: MoneyWorld, decide: Decide) -> str:
    reference = reference_for(ADA.account, KEY, "purchase")
    return _started(
        purchases.buy(world.desk, ADA, TRYING, PlanKind.ANNUAL, method=METHOD, reference=reference)
    )


def trial(world: MoneyWorld, decide: Decide) -> str:
    def told(books: Books, done: Started) -> None:
        decide(books, 201, _started(done))

    return _started(purchases.start_trial(world.desk, ADA, TRYING, told=told))


def grant(world: MoneyWorld, decide: Decide) -> str:
    def told(books: Books, done: Started) -> None:
        decide(books, 201, _started(done))

    return _started(purchases.grant(world.desk, OPERATOR, TRYING, PlanKind.ANNUAL, told=told))


def cancel(world: MoneyWorld, decide: Decide) -> str:
    def told(books: Books, done: Cancelled) -> None:
        decide(books, 201, _cancelled(done))

    return _cancelled(cancelling.cancel(world.desk, ADA, 1, told=told))


def credit(world: MoneyWorld, decide: Decide) -> str:
    reference = reference_for(ADA.account, KEY, "credit")
    row = crediting.credit(world.desk, OPERATOR, 1, Money(100, "USD"), why="w", reference=reference)
    return json.dumps([row.payment_id, row.reference, row.minor])


CASES: dict[str, Callable[[MoneyWorld, Decide], str]] = {
    case.__name__: case for case in (buy, trial, grant, cancel, credit)
}


def ask(world: MoneyWorld, case: str) -> Answer:
    return once(world.desk, ADA.account, KEY, HASH, lambda decide: (201, CASES[case](world, decide)))


def run(case: str, folder: Path, step: Steps) -> None:
    with MoneyWorld(folder) as world:
        recording.os = Counting(recording.os, step)  # type: ignore[attr-defined, assignment]
        world.desk = world.desk_of(SteppingCatalog(world.catalog, step), Counting(world.bitmap, step))
        (folder / ANSWERS).write_text(ask(world, case).body)
        step("answered")


if __name__ == "__main__":
    run_and_kill(Path(sys.argv[1]), partial(run, sys.argv[2]))
