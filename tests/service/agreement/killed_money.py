"""Use cases that move money and are killed: a child process of test_money_killed, which forks one run after the other
and lets each die by SIGKILL one step later than the one before.

A step is every call of the books (each statement of a transaction), the begin and the commit of every transaction,
every write of the bitmap, every system call by which the gateway records, and the return of the gateway.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from retention.plans import PlanKind
from service.agreement import cancelling, payments, purchases
from service.agreement.desk import Actor
from service.agreement.errors import Conflict
from service.agreement.gateway import recording
from service.agreement.payments import PaymentUnavailable
from service.agreement.settling import SETTLE_AFTER_MS, settle_pending
from tests.killing import Counting, Steps, run_and_kill
from tests.service.agreement.money_world import METHOD, MoneyWorld, noon_ms

DUE = date(2025, 2, 26)
"""Two days before the first month of a plan that began on the world's first day is over."""
ADA = Actor("owner", 2)
DEVICE, TRYING = 1, 2


def prepare(folder: Path) -> None:
    """Ada has device 1 with a monthly plan (1) that is due, and device 2 on trial; what is asked stands in CASES."""
    with MoneyWorld(folder) as world:
        assert world.add_owner() == ADA
        assert [world.add_device(ADA) for _ in range(2)] == [DEVICE, TRYING]
        world.buy(ADA, DEVICE, "monthly", "first")
        world.go(DUE)
        purchases.start_trial(world.desk, ADA, TRYING)


def buy(world: MoneyWorld) -> None:
    """During a trial, which is cut."""
    purchases.buy(world.desk, ADA, TRYING, PlanKind.ANNUAL, method=METHOD, reference="killed")


def buy_behind(world: MoneyWorld) -> None:
    """Behind a monthly plan, whose renewal stops."""
    purchases.buy(world.desk, ADA, DEVICE, PlanKind.ANNUAL, method=METHOD, reference="killed")


def buy_declined(world: MoneyWorld) -> None:
    purchases.buy(world.desk, ADA, TRYING, PlanKind.ANNUAL, method="declined-1", reference="killed")


def buy_and_terminate(world: MoneyWorld) -> None:
    """The device is terminated while the gateway works: the charge is given back."""
    world.gateway.after = lambda: world.terminate(TRYING)
    buy(world)


def renew(world: MoneyWorld) -> None:
    world.renew()


def renew_and_cancel(world: MoneyWorld) -> None:
    """The plan is cancelled while the gateway works: the charge is given back."""
    world.gateway.after = lambda: world.cancel(ADA, 1)
    world.renew()


def cancel(world: MoneyWorld) -> None:
    """The monthly plan, paid ahead: the month that has not begun is refunded."""
    world.renew()
    world.cancel(ADA, 1)


def finish_later(world: MoneyWorld) -> None:
    """The gateway's answer is lost, and the next run finishes the purchase."""
    world.gateway.away = "after"
    with suppress(PaymentUnavailable):
        buy(world)
    world.gateway.away = ""
    world.clock.ms += SETTLE_AFTER_MS
    settle_pending(world.desk)


def cancel_annual(world: MoneyWorld) -> None:
    buy(world)
    cancelling.cancel_of_device(world.desk, ADA, TRYING)


CASES: dict[str, Callable[[MoneyWorld], None]] = {
    case.__name__: case
    for case in (
        buy,
        buy_behind,
        buy_declined,
        finish_later,
        buy_and_terminate,
        renew,
        renew_and_cancel,
        cancel,
        cancel_annual,
    )
}


class SteppingCatalog:
    """A catalog whose transactions are steps, and each call inside them."""

    def __init__(self, real: Any, step: Steps) -> None:
        self._real, self._step = real, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def transact(self, work: Callable[[Any], Any], **named: Any) -> Any:
        def stepping(books: Any) -> Any:
            self._step("begin")
            return work(Counting(books, self._step))

        done = self._real.transact(stepping, **named)
        self._step("commit")
        return done


def run(case: str, folder: Path, step: Steps) -> None:
    with MoneyWorld(folder, clock_ms=noon_ms(DUE)) as world:
        recording.os = Counting(os, step)  # type: ignore[attr-defined, assignment]
        world.desk = world.desk_of(SteppingCatalog(world.catalog, step), Counting(world.bitmap, step))
        try:
            CASES[case](world)
        except payments.PaymentRefused:
            assert case == "buy_declined"
        except Conflict:
            assert case == "buy_and_terminate"


if __name__ == "__main__":
    run_and_kill(Path(sys.argv[1]), partial(run, sys.argv[2]))
