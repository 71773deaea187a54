"""Sweeps as an operator runs them: real processes, two at once, stopped and killed in the middle of their deletes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.folder import create_folder
from storage.days import MS_PER_DAY
from tests.e2e.service import CLIPKEEP, COMMAND_S
from tests.retention.world import World, fast_folder
from tests.servers.catalogs import empty_address

pytestmark = pytest.mark.e2e

OBJECTS = 40
PER_S = 5
INTO_PAUSE_S = 0.4
"""After a progress line comes the next batch at once, and then the rest of a second in which the sweep only waits."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder with a day that has been un-indexed, and its objects, which are due."""
    with fast_folder() as parent:
        root = parent / "data"
        create_folder(root, store_url=None, test_clock=True, environ={}, catalog_address=empty_address(root))
        with World(root, clock_ms=round(time.time() * 1000) - 20 * MS_PER_DAY, local=True) as world:
            device = world.add()
            for number in range(OBJECTS):
                world.keep([(device, world.clock.ms + number)])
        assert run(root, "sweep")["unindexed_chunks"] == OBJECTS
        run(root, "clock", "--advance", "2h")
        yield root


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    command = [CLIPKEEP, *words, "--data", str(root), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Tests that run in the background of a shell ignore Ctrl-C, and so would their children.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, text=True, preexec_fn=listen, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=COMMAND_S)
    return process.returncode, out, err


def run(root: Path, *words: str) -> dict[str, Any]:
    status, out, err = ended(start(root, *words))
    assert status == 0, (out, err)
    document: dict[str, Any] = json.loads(out)
    return document


def slowly(root: Path) -> subprocess.Popen[str]:
    """A sweep that takes seconds, has begun to delete, and waits between two batches: in no call of the store, whose
    outcome it would not know, and in no transaction, for whose end others would wait."""
    process = start(root, "sweep", "--max-deletes-per-s", str(PER_S))
    assert process.stderr is not None
    assert '"delete"' in process.stderr.readline()
    time.sleep(INTO_PAUSE_S)
    return process


def objects(root: Path) -> int:
    return sum(path.is_file() for path in (root / "objects" / "v1").rglob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_stopped_gives_its_lease_back(folder: Path, number: signal.Signals) -> None:
    """Ctrl-C, or `systemctl stop`: the next one goes on at once."""
    process = slowly(folder)
    process.send_signal(number)
    status, _, err = ended(process)
    assert (status, "interrupted: " in err) == (130, True)
    left = objects(folder)
    assert 0 < left < OBJECTS
    [failed] = run(folder, "sweeps")["failed"]
    assert failed["code"] == "interrupted"
    assert f"{OBJECTS - left} objects deleted" in failed["detail"]
    assert run(folder, "sweep")["deleted_objects"] == left
    assert objects(folder) == 0


def test_a_sweep_that_is_killed_is_made_good_when_its_lease_has_run_out(folder: Path) -> None:
    """Invariants 6 and 8."""
    process = slowly(folder)
    process.kill()
    process.communicate(timeout=COMMAND_S)
    assert 0 < objects(folder) < OBJECTS
    status, out, _ = ended(start(folder, "sweep"))
    assert (status, json.loads(out)["error"]) == (1, "busy")
    run(folder, "clock", "--advance", "2m")
    run(folder, "sweep")
    assert objects(folder) == 0
    assert run(folder, "check")["broken_count"] == 0


def test_two_at_once_do_the_work_of_one(folder: Path) -> None:
    """Invariant 8. And the operator's rate holds: so many deletes take their time."""
    began_s = time.monotonic()
    first = slowly(folder)
    first.send_signal(signal.SIGSTOP)
    left = objects(folder)
    status, out, _ = ended(start(folder, "sweep"))
    assert (status, json.loads(out)["error"]) == (1, "busy")
    assert objects(folder) == left
    first.send_signal(signal.SIGCONT)
    status, out, _ = ended(first)
    assert (status, json.loads(out)["deleted_objects"]) == (0, OBJECTS)
    assert time.monotonic() - began_s >= (OBJECTS - PER_S) / PER_S
    assert objects(folder) == 0


def test_many_started_at_the_same_moment(folder: Path) -> None:
    """Invariant 8: whoever comes first, every object is deleted once, and nobody fails for another reason."""
    several = [ended(process) for process in [start(folder, "sweep") for _ in range(4)]]
    documents = [json.loads(out) for _, out, _ in several]
    assert sum(document.get("deleted_objects", 0) for document in documents) == OBJECTS
    assert {document["error"] for document in documents if "error" in document} <= {"busy"}
