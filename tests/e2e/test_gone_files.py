"""Files of the data folder that go away under a running service: it says so, and acknowledges nothing that is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import Service, until
from tests.servers.catalogs import on_postgres, sqlite_only

pytestmark = pytest.mark.e2e


def logged(service: Service, event: str) -> list[str]:
    """The codes that went with an event, in the log so far."""
    lines = [json.loads(line) for line in service.lines if line.startswith("{")]
    return [line["code"] for line in lines if line.get("event") == event and "code" in line]


def moved_away(path: Path) -> Callable[[], object]:
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    return lambda: aside.rename(path)


def replaced(path: Path) -> Callable[[], object]:
    """By a copy, as a restore from a backup does it."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    if aside.is_dir():
        shutil.copytree(aside, path, dirs_exist_ok=True)  # workers make their folder of counters at once
    else:
        shutil.copyfile(aside, path)

    def taken_away() -> bool:
        """Counters are written meanwhile."""
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        return not path.exists()

    def put_back() -> None:
        until(taken_away, "nobody writes into it while it is taken away")
        aside.rename(path)

    return put_back


@pytest.mark.parametrize(
    ("name", "way", "code"),
    [
        pytest.param("catalog.db", moved_away, "catalog_replaced", marks=sqlite_only),
        ("keys", replaced, "key_store_replaced"),
        ("entitlements.bitmap", moved_away, "bitmap_replaced"),
        (".", replaced, "key_store_replaced" if on_postgres() else "catalog_replaced"),
    ],
)
def test_what_is_acknowledged_is_in_files_that_have_their_names(
    service: Service, way: Callable[[Path], Callable[[], object]], name: str, code: str
) -> None:
    """Invariant 1. Uploads of known devices need no new key, and went on for ever."""
    service.init("--store", (service.data.parent / "objects").as_uri())
    service.configure(segments_linger_ms=20)
    devices = service.add_devices(2)
    kept = Acknowledged()
    service.start()
    started = service.children()
    with Load([Uploader(service, device, kept) for device in devices]):
        until(lambda: len(kept.chunks) > 20, "chunks are acknowledged")
        put_back = way((service.data / name).resolve())
        until(lambda: code in service.problems(), "readyz says so")
        until(lambda: code in logged(service, "not_ready"), "the log says so")
        refusals = kept.answers[503]
        until(lambda: kept.answers[503] > refusals + 10, "uploads are refused")
        stored = len(kept.chunks)
        until(lambda: kept.answers[503] > refusals + 20, "uploads are refused still")
        assert len(kept.chunks) == stored
        put_back()
        until(lambda: len(kept.chunks) > stored + 20, "it has healed by itself")
        until(lambda: not service.problems(), "readyz says so")
    assert service.children() == started
    assert service.stop() == 0
    service.start()
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0
