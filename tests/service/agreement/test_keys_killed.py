"""A request that is repeated under its key gets the first answer, also when the process that had it was killed: real
processes, killed by SIGKILL at every step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.agreement.holders import may_be_alive, this_process
from service.agreement.settling import SETTLE_AFTER_MS
from tests.retention.world import fast_folder
from tests.servers.catalogs import drop_catalog
from tests.service.agreement import balance
from tests.service.agreement.killed_keys import ANSWERS, CASES, ask, prepare
from tests.service.agreement.money_world import MoneyWorld

ROOT = Path(__file__).parents[3]


def asked_again(folder: Path, case: str) -> str:
    """At once, by what the supervisor started in the place of the process that died. Then the books balance."""
    with MoneyWorld(folder) as world:
        world.desk.entitlements.recover()  # what any process does at its start
        answer = ask(world, case)
        assert ask(world, case).replayed
        assert ask(world, case).body == answer.body
        world.clock.ms += SETTLE_AFTER_MS
        world.renew()
        balance.check(world)
        return answer.body


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_step_the_repetition_gets_the_first_answer(case: str) -> None:
    with fast_folder() as folder:
        prepare(folder / "template")
        command = [sys.executable, "-m", "tests.service.agreement.killed_keys", str(folder), case]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300, cwd=ROOT)
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        assert [o["killed"] for o in outcomes] == [True] * (len(outcomes) - 1) + [False]
        steps = [o["step"] for o in outcomes]
        assert {"begin", "commit", "put_answer", "answered"} <= set(steps)
        first = (Path(outcomes[-1]["folder"]) / ANSWERS).read_text()
        for outcome in outcomes:
            assert asked_again(Path(outcome["folder"]), case) == first, outcome
            shutil.rmtree(outcome["folder"])
            drop_catalog(Path(outcome["folder"]))


def test_a_process_is_told_from_one_that_has_ended() -> None:
    me = this_process()
    assert may_be_alive(me)
    assert may_be_alive(""), "nobody can tell"
    boot_id, pid, started = me.split(":")
    assert not may_be_alive(f"{boot_id}:{pid}:{int(started) + 1}"), "an earlier one had the number"
    assert not may_be_alive(f"{'0' * len(boot_id)}:{pid}:{started}"), "before the machine was booted"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        name = f"{boot_id}:{child.pid}:{stat.rpartition(')')[2].split()[19]}"
        assert may_be_alive(name)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not may_be_alive(name), "dead, and not waited for"
    finally:
        child.kill()
        child.communicate()
    assert not may_be_alive(name)
