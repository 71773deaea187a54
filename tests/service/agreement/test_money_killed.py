"""Money moves exactly once, whoever is killed on the way: real processes, killed by SIGKILL at every step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.agreement import cancelling
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.payments import PaymentRefused
from service.agreement.settling import SETTLE_AFTER_MS
from storage.rows.accounts import PaymentState
from tests.retention.world import fast_folder
from tests.servers.catalogs import drop_catalog
from tests.service.agreement import balance
from tests.service.agreement.killed_money import ADA, CASES, DEVICE, DUE, TRYING, prepare
from tests.service.agreement.money_world import MoneyWorld, noon_ms

ROOT = Path(__file__).parents[3]
RACES = {"buy_behind", "buy_and_terminate", "renew_and_cancel"}
"""Whose end depends on what came first."""


def end_state(world: MoneyWorld) -> dict[str, Any]:
    """Plans and money: what the owner sees. Payments are numbered by who came first, so they are told apart by kind."""
    paid = {
        (str(p.kind), p.device, p.minor, str(p.state), p.plan_id is not None)
        for p in world.payments(ADA.account)
        if p.state is not PaymentState.FAILED
    }
    return {
        "plans": {device: world.plans(device) for device in (DEVICE, TRYING)},
        "paid": paid,
        "notices": sorted({n.subject for n in world.notices(ADA)}),
    }


def finished(folder: Path, case: str) -> dict[str, Any]:
    """What is left when `renew` runs again and the owner asks again: alone, then both."""
    with MoneyWorld(folder, clock_ms=noon_ms(DUE) + SETTLE_AFTER_MS) as world:
        world.desk.entitlements.recover()  # what any process does at its start
        world.renew()
        balance.check(world)
        asked_again(world, case)
        world.renew()
        balance.check(world)
        left = [path.name for path in (folder / "payments").iterdir() if path.suffix != ".json"]
        assert len(left) <= 1, "at most the temporary file of the one that died"
        return end_state(world)


def asked_again(world: MoneyWorld, case: str) -> None:
    """The client, who got no answer, sends the same request once more."""
    try:
        if case in ("buy_and_terminate", "buy_declined"):
            CASES[case.removesuffix("_and_terminate")](world)
        elif case.startswith("cancel") or case == "renew_and_cancel":
            if case == "cancel_annual" and not any(sub.terms for sub in world.plans(TRYING)):
                CASES["buy"](world)
            device = TRYING if case == "cancel_annual" else DEVICE
            cancelling.cancel_of_device(world.desk, ADA, device)
        else:
            CASES[case](world)
    except (Conflict, PaymentRefused):
        pass  # as the one that died would have been told
    except Unprocessable as error:
        if error.code != "no_running_plan":
            raise


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_step_it_ends_as_if_it_had_not_been(case: str) -> None:
    """Or as if it had died before its first step, where what follows, or what raced with it, comes first then."""
    with fast_folder() as folder:
        prepare(folder / "template")
        command = [sys.executable, "-m", "tests.service.agreement.killed_money", str(folder), case]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300, cwd=ROOT)
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        assert [o["killed"] for o in outcomes] == [True] * (len(outcomes) - 1) + [False]
        steps = {o["step"] for o in outcomes}
        assert {"begin", "commit", "link", "fsync", "add_payment", "put_payment", "add_event"} <= steps
        if case != "buy_declined":
            assert {"write", "change_device", "add_notice"} <= steps
        expected = [finished(Path(outcomes[-1]["folder"]), case), finished(folder / "template", case)]
        assert (expected[0] == expected[1]) == (case not in RACES)
        for outcome in outcomes[:-1]:
            assert finished(Path(outcome["folder"]), case) in expected, outcome
            shutil.rmtree(outcome["folder"])
            drop_catalog(Path(outcome["folder"]))
