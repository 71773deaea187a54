"""Which devices were played back: noted by every reading that was allowed, written down by the API process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from retention.bitmap import PRESENT, SUSPENDED
from service.api_process import ApiProcess
from service.folder import create_folder, open_folder
from service.playback import used as used_module
from service.playback.used import Used
from storage.errors import CatalogUnavailable
from storage.rows.devices import PlanRow
from tests.servers.catalogs import empty_address
from tests.service.world import TODAY, Viewer, World, clips, exported, fetched, listed, playing, refused


def test_each_device_is_told_once_a_day() -> None:
    used = Used()
    for _ in range(3):
        used.note(1, TODAY)
        used.note(2, TODAY)
    assert used.take() == {TODAY: [1, 2]}
    used.note(1, TODAY)
    assert used.take() == {}
    used.note(1, TODAY + 1)
    used.note(3, TODAY)
    assert used.take() == {TODAY + 1: [1], TODAY: [3]}


def test_what_was_given_back_is_taken_again() -> None:
    used = Used()
    used.note(1, TODAY)
    used.note(2, TODAY)
    [(day, devices)] = used.take().items()
    used.note(2, TODAY + 1)
    used.give_back(day, devices)
    assert used.take() == {TODAY + 1: [2], TODAY: [1]}  # the later day of a device counts


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_module, "MAX_NUMBERS", 10)
    used = Used()
    for device in range(25):
        used.note(device, TODAY)
    assert used.take() == {TODAY: list(range(10))}
    for device in range(25):
        used.note(device, TODAY)
    assert used.take() == {TODAY: list(range(10, 20))}
    assert len(used._told) == 10


@pytest.mark.parametrize("read", [listed, exported, lambda p, v: fetched(p, v, clips(1)[0].capture_ms)])
async def test_every_way_to_read_is_use_and_a_refusal_is_not(world: World, read: Any) -> None:
    world.keep(*clips(1))
    services = world.services()
    async with playing(world, used=services.used) as playback:
        world.change(flags=PRESENT | SUSPENDED)
        with refused("suspended"):
            await read(playback, world.viewer())
        with refused("bad_token"):
            await read(playback, Viewer(2, world.token()))
        assert services.used.take() == {}
        world.change(flags=PRESENT)
        await read(playback, world.viewer())
        assert services.used.take() == {TODAY: [1]}
        with world.catalog.books() as books:
            assert books.last_used_on(1) == TODAY  # the upload was; reading writes nothing


def test_the_api_process_writes_it_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_folder(
        tmp_path / "data",
        store_url=None,
        test_clock=False,
        environ={},
        catalog_address=empty_address(tmp_path / "data"),
    )
    with open_folder(tmp_path / "data", environ={}) as opened:
        plan = PlanRow(0, "annual", TODAY, TODAY + 364, 30)
        [facts] = opened.catalog.add_devices(1, account=1, plans=[plan], now_ms=0)
        process = ApiProcess(opened)
        used, uses = process.services().used, process.uses

        def last_used_on() -> int:
            with opened.catalog.books() as books:
                return books.last_used_on(1)

        def broken(*_: Any, **__: Any) -> None:
            raise CatalogUnavailable("injected: busy")

        used.note(facts.device, TODAY)
        with monkeypatch.context() as patched:
            patched.setattr(type(opened.catalog), "note_used", broken)
            uses.note()
        assert last_used_on() == 0
        uses.note()
        assert last_used_on() == TODAY


async def test_a_stop_writes_down_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = trio.Event()
    monkeypatch.setattr("service.api_process.say_ready", ready.set)
    create_folder(
        tmp_path / "data",
        store_url=None,
        test_clock=False,
        environ={},
        catalog_address=empty_address(tmp_path / "data"),
    )
    with open_folder(tmp_path / "data", environ={}) as opened:
        [facts] = opened.catalog.add_devices(1, account=1, plans=(), now_ms=0)
        process = ApiProcess(opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run, "127.0.0.1", 0)
            with trio.fail_after(30):
                await ready.wait()
            process.services().used.note(facts.device, TODAY)
            os.kill(os.getpid(), signal.SIGTERM)
        with opened.catalog.books() as books:
            assert books.last_used_on(1) == TODAY
