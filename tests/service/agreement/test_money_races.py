"""At once, in several processes, on one data folder: exactly one wins, and the books balance (`balance`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.agreement import purchases
from storage.rows.accounts import PaymentKind, PaymentState
from tests.retention.world import fast_folder
from tests.servers.catalogs import copy_catalog
from tests.service.agreement import balance
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.racing import ADA

ROOT = Path(__file__).parents[3]
DUE = date(2025, 2, 26)
ROUNDS = 10


Outcomes = list[dict[str, Any]]


def races(
    prepare: Callable[[MoneyWorld], None], jobs: list[str], *, devices: int = 1, rounds: int = 1
) -> Iterator[tuple[MoneyWorld, Outcomes]]:
    """Yield the world after each round, with what each job came to, in the order in which they ended."""
    with fast_folder() as base:
        with MoneyWorld(base / "0") as world:
            assert world.add_owner() == ADA
            for _ in range(devices):
                world.add_device(ADA)
            prepare(world)
            clock_ms = world.clock.ms
        for seed in range(1, rounds):
            shutil.copytree(base / "0", base / str(seed))
            copy_catalog(base / "0", base / str(seed))
        folders = [str(base / str(seed)) for seed in range(rounds)]
        command = [sys.executable, "-m", "tests.service.agreement.racing"]
        done = subprocess.run(
            [*command, json.dumps([clock_ms, folders, jobs])],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
            cwd=ROOT,
        )
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        for seed, folder in enumerate(folders):
            mine = [outcome for outcome in outcomes if outcome["seed"] == seed]
            assert sorted(o["job"] for o in mine) == sorted(jobs)
            with MoneyWorld(Path(folder), clock_ms=clock_ms) as world:
                yield world, mine
                balance.check(world)


def refusals(outcomes: list[dict[str, Any]]) -> Counter[str]:
    return Counter(o["refused"] for o in outcomes if "refused" in o)


def done(outcomes: Outcomes, job: str) -> list[Any]:
    return [o["done"] for o in outcomes if o["job"] == job and "done" in o]


def nothing(world: MoneyWorld) -> None:
    """As it is."""


def monthly(world: MoneyWorld) -> None:
    """Each device has a monthly plan that is due."""
    with world.desk.reading() as books:
        devices = [facts.device for facts in books.devices_of(ADA.account)]
    for device in devices:
        world.buy(ADA, device, "monthly", f"first-{device}")
    world.go(DUE)


def annual(world: MoneyWorld) -> None:
    """Device 1 has an annual plan, of which the second month has not begun."""
    world.buy(ADA, 1, "annual", "first")
    world.go(DUE)


def declined(world: MoneyWorld) -> None:
    monthly(world)
    world.decline(ADA)


def test_fifty_trials_at_once_are_one_trial() -> None:
    """7.1: on ten devices of one account."""
    jobs = [f"trial:{n % 10 + 1}" for n in range(50)]
    for world, outcomes in races(nothing, jobs, devices=10):
        assert refusals(outcomes) == {"trial_used": 49}
        trials = [span for device in range(1, 11) for span in world.spans(device)]
        assert [kind for kind, *_ in trials] == ["trial"]


def test_one_purchase_asked_for_by_many_is_one() -> None:
    for world, outcomes in races(nothing, ["buy:1:annual:same"] * 12):
        assert [o["done"] for o in outcomes] == [1] * 12
        assert len(world.spans(1)) == 1


def test_many_purchases_at_once_follow_each_other_day_by_day() -> None:
    """Behind the trial, which the first of them cuts. While one is not paid, another is told to wait for it."""
    jobs = [f"buy:1:{kind}:r{n}" for n, kind in enumerate(["monthly", "annual"] * 6)]
    for world, outcomes in races(_try, jobs):
        waited = refusals(outcomes)
        assert set(waited) <= {"purchase_open"}
        plans = sorted((s.plan for s in world.plans(1) if s.terms), key=lambda plan: plan.starts_on)
        assert len(plans) == 12 - waited["purchase_open"] >= 1
        for plan, behind in pairwise(plans):
            assert plan.ends_on is not None
            assert behind.starts_on == plan.ends_on + timedelta(days=1)
        assert sum(sub.renews for sub in world.plans(1)) <= 1


def _try(world: MoneyWorld) -> None:
    purchases.start_trial(world.desk, ADA, 1)


def test_pay_and_cancel_at_once() -> None:
    """An annual plan is cancelled by four while two more are bought behind it: one cancels, with one refund; what was
    bought moves up, or follows."""
    jobs = ["cancel:1"] * 4 + ["buy:1:monthly:m", "buy:1:annual:a"]
    for world, outcomes in races(annual, jobs, rounds=ROUNDS):
        waited = refusals(outcomes)
        assert waited.pop("purchase_open", 0) < 2, "one of the two may have to wait for the other"
        assert waited == {"plan_already_cancelled": 3}
        assert done(outcomes, "cancel:1") == [5400]
        refunds = [p.minor for p in world.payments(ADA.account) if p.kind is PaymentKind.REFUND]
        assert refunds == [5400]
        starts = sorted(sub.plan.starts_on for sub in world.plans(1))
        assert starts[1] == date(2025, 2, 28), "the day after the last month that was charged"


def test_renew_against_cancel() -> None:
    """Either the month is charged and given back, or it is not charged: it is never kept."""
    jobs = ["renew", "cancel:1", "renew", "cancel:1"]
    for world, outcomes in races(monthly, jobs, rounds=ROUNDS):
        assert refusals(outcomes) == {"plan_already_cancelled": 1}
        assert world.spans(1) == [("monthly", date(2025, 1, 31), date(2025, 2, 27))]
        assert not world.row(1).renews
        moved = Counter(str(p.kind) for p in world.payments(ADA.account))
        assert moved in ({"charge": 1}, {"charge": 2, "refund": 1})


def test_many_renew_at_once() -> None:
    """Twelve plans, six runs: each month is charged once."""
    for world, _ in races(monthly, ["renew"] * 6, devices=12):
        assert len(world.payments(ADA.account)) == 24
        assert {world.spans(device)[0][2] for device in range(1, 13)} == {date(2025, 3, 30)}


def test_two_renew_at_once() -> None:
    for world, outcomes in races(monthly, ["renew"] * 2, rounds=ROUNDS):
        assert len(world.payments(ADA.account)) == 2
        assert 1 <= sum(report["renewed"] for report in done(outcomes, "renew")) <= 2, (
            "both may have seen to it"
        )
        assert world.row(1).renews


def test_a_decline_at_once_is_one_failed_charge() -> None:
    for world, _ in races(declined, ["renew"] * 6):
        assert world.row(1).failed_charges == 1
        assert [p.state for p in world.payments(ADA.account)] == [PaymentState.DONE, PaymentState.FAILED]


@pytest.mark.parametrize("end", ["terminate:1", "suspend"])
def test_pay_and_be_shut_out_at_once(end: str) -> None:
    """Purchases and a renewal against the end of a device, or a suspension: paid and had, or given back."""
    jobs = ["renew", end, "buy:1:annual:a", "buy:2:annual:b", "settle"]
    for _, outcomes in races(monthly, jobs, devices=2, rounds=ROUNDS):
        assert set(refusals(outcomes)) <= {"terminated", "account_suspended"}
        assert done(outcomes, end) in (["terminated"], ["suspended"])
