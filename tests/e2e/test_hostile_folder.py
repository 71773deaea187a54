"""What lies in the folder that somebody is in is no part of this program: no process imports from there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from service import spawning
from tests.e2e.service import CLIPKEEP, COMMAND_S, Service

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
NAMES = (
    "storage",
    "ingest",
    "retention",
    "service",
    "bench",
    "clipkeep_hot__mypyc",
    "trio",
    "json",
    "pickle",
)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: modules by names that ours import. Each leaves a mark and ends its process."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in NAMES:
        code = f"import os\nopen({str(folder / 'mark')!r}, 'a').write({name!r} + chr(10))\nos._exit(99)\n"
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    monkeypatch.chdir(folder)
    return folder


def assert_nothing_ran(hostile: Path) -> None:
    mark = hostile / "mark"
    assert not mark.exists(), mark.read_text()


def test_the_service_imports_nothing_from_where_it_is_started(service: Service, hostile: Path) -> None:
    service.init()
    service.start(workers=2)
    assert sorted(service.children()) == ["api", "feed", "w0", "w1"]
    assert_nothing_ran(hostile)
    assert service.stop() == 0


@pytest.mark.parametrize("path", ["", ":", ".", ":/no/such", "/no/such:"])
def test_a_python_path_with_an_empty_part_is_no_way_in(hostile: Path, path: str) -> None:
    """`PYTHONPATH=$PYTHONPATH:/more` stands in many profiles. `service` itself is found before we have a say."""
    (hostile / "service" / "__init__.py").unlink()
    (hostile / "service").rmdir()
    environ = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [CLIPKEEP, "--help"], env=environ, capture_output=True, text=True, timeout=COMMAND_S
    )
    assert (done.returncode, "clipkeep init" in done.stdout) == (0, True), done
    assert_nothing_ran(hostile)


def test_the_bench_and_its_children_import_nothing_from_there(hostile: Path) -> None:
    """`limits` starts modules of ours, `sweep` processes of multiprocessing."""
    small = {"days": 2, "segments": 20, "chunks": 2000, "devices": 1000, "key-devices": 20}
    for words in (
        ["limits", "--sizes", "64KiB", "--seconds", "0.05"],
        ["sweep", *(word for name, value in small.items() for word in (f"--{name}", str(value)))],
    ):
        command = [CLIPKEEP, "bench", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * COMMAND_S)
        assert done.returncode == 0, done.stderr
    assert_nothing_ran(hostile)


def test_every_child_is_started_by_way_of_one_function() -> None:
    """Who writes `sys.executable, "-m"` again starts a child that imports from the current directory."""
    elsewhere = [
        path
        for room in ("ingest", "retention", "storage", "service", "bench")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"""sys\.executable\b(?!\)\.parent)""", path.read_text())
        and path.name != Path(spawning.__file__).name
    ]
    assert elsewhere == []
    assert "-P" in spawning.python_module("service.worker")
