"""Errands in real processes, on a real data folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from service.agreement import devices
from service.agreement.desk import OPERATOR
from service.errands.child import ErrandRefused, InChild
from service.errands.running import Errand, Errands, Kind
from service.folder import create_folder, open_folder
from storage.rows.accounts import OPERATOR_ACCOUNT
from tests.retention.world import fast_folder
from tests.servers.catalogs import empty_address

WAIT_S = 120.0


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder with one device, which was terminated and is to be erased."""
    with fast_folder() as folder:
        root = folder / "data"
        create_folder(root, store_url=None, test_clock=False, environ={}, catalog_address=empty_address(root))
        with open_folder(root, environ={}) as opened:
            device = devices.add_device(opened.desk, OPERATOR, OPERATOR_ACCOUNT).device
            devices.terminate(opened.desk, OPERATOR, device, why="broken", erase=True)
            assert device == 1
        yield root


def own_children() -> list[str]:
    """The command lines of errands that this process has begun and that live."""
    found = []
    for listed in Path(f"/proc/{os.getpid()}/task").glob("*/children"):  # a process is its thread's child
        for pid in listed.read_text().split():
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    return [command for command in found if "service.errands.process" in command]


async def until(holds: Callable[[], object]) -> None:
    with trio.fail_after(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what other processes do sets no event
            await trio.sleep(0.01)


async def test_a_sweep_does_what_its_dry_run_showed_and_an_erasure_is_verified(data: Path) -> None:
    carry_out, told = InChild(data, None), []
    plan = await carry_out(Errand(Kind.PLAN, "ann"), lambda *what: told.append(what))
    assert [one["device"] for one in plan["erase"]] == [1]
    assert plan["counts"]["erase"] == 1
    with pytest.raises(ErrandRefused) as refused:
        await carry_out(Errand(Kind.SWEEP, "ann", confirmed="0" * 32), lambda *what: None)
    assert refused.value.code == "plan_changed"
    report = await carry_out(
        Errand(Kind.SWEEP, "ann", confirmed=plan["decision"]), lambda *what: told.append(what)
    )
    assert report["who"] == "operator ann"
    assert report["left"] == []
    assert ("erase", 1, 1) in told
    with open_folder(data, environ={}) as opened:
        kept = opened.catalog.last_sweep()
        assert kept is not None
        assert kept["who"] == "operator ann"
    proof = await carry_out(Errand(Kind.VERIFY, "ann", device=1), lambda *what: None)
    assert proof["holds"]
    with open_folder(data, environ={}) as opened:
        assert opened.catalog.erasures(device=1)[-1].verified_ms is not None
    with pytest.raises(ErrandRefused) as refused:
        await carry_out(Errand(Kind.VERIFY, "ann", device=7), lambda *what: None)
    assert refused.value.code == "not_found"


async def test_a_process_that_is_stopped_leaves_nothing_behind(data: Path) -> None:
    errands = Errands(InChild(data, None), lambda: 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(errands.run)
        run = errands.begin(Errand(Kind.PLAN, "ann"))
        await until(own_children)
        assert errands.stop()
        await until(lambda: not run.is_under_way)
        assert run.code == "stopped"
        assert own_children() == []
        again = errands.begin(Errand(Kind.PLAN, "ann"))
        await until(lambda: not again.is_under_way)
        assert again.answer is not None, again.detail
        nursery.cancel_scope.cancel()


async def test_a_process_that_breaks_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(ErrandRefused) as refused:
        await InChild(tmp_path / "none", None)(Errand(Kind.PLAN, "ann"), lambda *what: None)
    assert "init" in refused.value.detail
