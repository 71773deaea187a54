"""Use cases that move money and are killed: a child process of test_money_killed, which forks one run after the other
and lets each die by SIGKILL one step later than the one before.

A step is every call of the books (each statement of a transaction), the begin and the commit of every transaction,
every write of the bitmap, every system call by which the gateway records, and the return of the gateway.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from retention.plans import PlanKind
from service.agreement import cancelling, payments, purchases, renewing
from service.agreement.desk import Actor, Desk
from tests.retention.killed_sweeps import Counting
from tests.service.agreement.money_world import METHOD, MoneyWorld, noon_ms

DUE = date(2025, 2, 26)
"""Two days before the first month of a plan that began on the world's first day is over."""
ADA = Actor("owner", 2)
DEVICE, TRYING = 1, 2
PLANS = {"stacked": 3}


def prepare(folder: Path) -> None:
    """Ada has device 1 with a monthly plan (1) that is due, and device 2 on trial; what is asked stands in CASES."""
    with MoneyWorld(folder) as world:
        assert world.add_owner() == ADA
        assert [world.add_device(ADA) for _ in range(2)] == [DEVICE, TRYING]
        world.buy(ADA, DEVICE, "monthly", "first")
        world.go(DUE)
        purchases.start_trial(world.desk, ADA, TRYING)


def buy(desk: Desk) -> None:
    """During a trial, which is cut."""
    purchases.buy(desk, ADA, TRYING, PlanKind.ANNUAL, method=METHOD, reference="killed")


def buy_behind(desk: Desk) -> None:
    """Behind a monthly plan, whose renewal stops."""
    purchases.buy(desk, ADA, DEVICE, PlanKind.ANNUAL, method=METHOD, reference="killed")


def buy_declined(desk: Desk) -> None:
    purchases.buy(desk, ADA, TRYING, PlanKind.ANNUAL, method="declined-1", reference="killed")


def buy_and_terminate(desk: Desk) -> None:
    """The device is terminated while the gateway works: the charge is given back."""
    desk.gateway.after = lambda: world_of(desk).terminate(TRYING)  # type: ignore[attr-defined]
    buy(desk)


def renew(desk: Desk) -> None:
    renewing.renew(desk)


def renew_and_cancel(desk: Desk) -> None:
    """The plan is cancelled while the gateway works: the charge is given back."""
    desk.gateway.after = lambda: cancelling.cancel(desk, ADA, 1)  # type: ignore[attr-defined]
    renewing.renew(desk)


def cancel(desk: Desk) -> None:
    """The monthly plan, paid ahead: the month that has not begun is refunded."""
    renewing.renew(desk)
    cancelling.cancel(desk, ADA, 1)


def cancel_annual(desk: Desk) -> None:
    buy(desk)
    cancelling.cancel_of_device(desk, ADA, TRYING)


CASES: dict[str, Callable[[Desk], None]] = {
    case.__name__: case
    for case in (
        buy,
        buy_behind,
        buy_declined,
        buy_and_terminate,
        renew,
        renew_and_cancel,
        cancel,
        cancel_annual,
    )
}


class Steps:
    """Counts steps, says their names through a pipe, and dies after one of them."""

    def __init__(self, last: int, told: int) -> None:
        self._left, self._told = last, told

    def __call__(self, name: str) -> None:
        os.write(self._told, f"{name}\n".encode())
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class SteppingCatalog:
    """A catalog whose transactions are steps, and each call inside them."""

    def __init__(self, real: Any, step: Steps) -> None:
        self._real, self._step = real, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @contextmanager
    def books(self, **named: Any) -> Iterator[Any]:
        with self._real.books(**named) as books:
            if not named.get("write"):
                yield books
                return
            self._step("begin")
            yield Counting(books, self._step)
        self._step("commit")


def run_and_die(folder: Path, case: str, last: int, told: int) -> None:
    step = Steps(last, told)
    with MoneyWorld(folder, clock_ms=noon_ms(DUE)) as world:
        payments.os = Counting(os, step)  # type: ignore[attr-defined, assignment]
        desk = world.desk_of(SteppingCatalog(world.catalog, step), Counting(world.bitmap, step))
        world.desk = desk
        _WORLDS[id(desk.gateway)] = world
        try:
            CASES[case](desk)
        except payments.PaymentRefused:
            assert case == "buy_declined"
        except purchases.Conflict:
            assert case == "buy_and_terminate"


_WORLDS: dict[int, MoneyWorld] = {}


def world_of(desk: Desk) -> MoneyWorld:
    return _WORLDS[id(desk.gateway)]


def main(work: Path, case: str) -> None:
    """Print a JSON line for each run: its folder, the step after which it died, and whether it did."""
    last = 0
    while True:
        last += 1
        folder = work / str(last)
        shutil.copytree(work / "template", folder)
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run_and_die(folder, case, last, told)
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        with os.fdopen(heard) as pipe:
            steps = pipe.read().split()
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"folder": str(folder), "step": steps[-1], "killed": died}), flush=True)
        if not died:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
