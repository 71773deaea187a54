"""Use cases at the same moment in as many processes: a child process of test_money_races, which forks one for each job
of a round, lets all of them open the data folder, and then lets them go at once.

A job is "WHAT" or "WHAT:NUMBER:…", see JOBS. Each process asks the gateway after a pause of its own (a few
milliseconds, from the round's seed), so that rounds differ in who comes when.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from service.agreement import cancelling, devices, purchases, renewing
from service.agreement.desk import OPERATOR, Actor
from service.agreement.settling import settle_pending
from storage.errors import ClipkeepError
from tests.service.agreement.money_world import MoneyWorld

ADA = Actor("owner", 2)
MAX_PAUSE_MS = 15
"""About what one transaction takes beside others: so that each may come before or behind each."""


def trial(world: MoneyWorld, device: str) -> Any:
    return purchases.start_trial(world.desk, ADA, int(device)).subscription.plan_id


def buy(world: MoneyWorld, device: str, kind: str, reference: str) -> Any:
    return world.buy(ADA, int(device), kind, reference).subscription.plan_id


def cancel(world: MoneyWorld, plan_id: str) -> Any:
    return cancelling.cancel(world.desk, ADA, int(plan_id)).cancellation.refund.minor


def renew(world: MoneyWorld) -> Any:
    return asdict(renewing.renew(world.desk))


def settle(world: MoneyWorld) -> Any:
    return dict(settle_pending(world.desk, older_than_ms=0))


def terminate(world: MoneyWorld, device: str) -> Any:
    return devices.terminate(world.desk, OPERATOR, int(device), why="race")[0].state


def suspend(world: MoneyWorld) -> Any:
    world.change_account(ADA, suspended_ms=world.clock.ms)
    return "suspended"


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job for job in (trial, buy, cancel, renew, settle, terminate, suspend)
}


def run(folder: Path, clock_ms: int, job: str, seed: int, ready: int, start: int) -> dict[str, Any]:
    """Open everything, say so, wait, and do the job."""
    what, *arguments = job.split(":")
    random = Random(seed)
    with MoneyWorld(folder, clock_ms=clock_ms) as world:
        before_s, after_s = (random.random() * MAX_PAUSE_MS / 1000 for _ in range(2))
        world.gateway.before = lambda: time.sleep(before_s)
        world.gateway.after = lambda: time.sleep(after_s)
        os.write(ready, b".")
        os.read(start, 1)  # returns when the parent closes its end
        try:
            return {"job": job, "done": JOBS[what](world, *arguments)}
        except ClipkeepError as error:
            return {"job": job, "refused": error.code}


def at_once(folder: Path, clock_ms: int, seed: int, jobs: list[str]) -> bool:
    """One round: print a JSON line for each job. Returns whether all came to an end."""
    heard, ready = os.pipe()
    start, go = os.pipe()
    children = []
    for number, job in enumerate(jobs):
        child = os.fork()
        if child == 0:
            os.close(go)
            status = 1
            try:
                outcome = run(folder, clock_ms, job, seed * 1000 + number, ready, start)
                os.write(1, (json.dumps({"seed": seed, **outcome}) + "\n").encode())  # short, so whole
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    os.close(ready)
    for _ in jobs:
        assert os.read(heard, 1) == b".", "one could not open the folder"
    os.close(go)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    os.close(heard)
    os.close(start)
    return not any(statuses)


if __name__ == "__main__":
    clock_ms, folders, jobs = json.loads(sys.argv[1])
    ended = [at_once(Path(folder), clock_ms, seed, jobs) for seed, folder in enumerate(folders)]
    sys.exit(not all(ended))
