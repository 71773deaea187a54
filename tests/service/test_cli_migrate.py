"""`clipkeep catalog migrate`."""

from __future__ import annotations

from pathlib import Path

from service.folder import DataFolder
from storage.sqlite.schema import REVISION
from tests.service.test_cli import Run, data, run
from tests.storage.test_migrations import make_old

__all__ = ["data", "run"]


def test_the_catalog_of_an_earlier_release(run: Run, data: Path) -> None:
    run("init", "--data", data)
    path = DataFolder(data).catalog
    path.unlink()
    make_old(path)
    done = run("device", "list", "--data", data, "--json")
    assert done.error == "catalog_outdated"
    assert "clipkeep catalog migrate" in done.document["detail"]
    done = run("catalog", "migrate", "--data", data)
    assert f"from 0001 to {REVISION}" in done.out
    [backup] = data.glob("catalog.db.before-*")
    assert str(backup) in done.out
    assert "up to date" in run("catalog", "migrate", "--data", data).out
    document = run("catalog", "migrate", "--data", data, "--json").document
    assert document == {"catalog": str(path), "before": REVISION, "after": REVISION, "backup": None}
    assert run("device", "add", "--data", data, "--plan", "annual").code == 0
    assert list(data.glob("catalog.db.before-*")) == [backup]
