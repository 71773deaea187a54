"""The conformance suites, as an implementer outside this tree uses them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

THEIRS = """
import functools

import pytest

from storage.contracts.reports import ReportsContract
from storage.sqlite import SqliteCatalog


class Forgetful(SqliteCatalog):
    def failed_sweeps(self, *, limit):
        return []


class TestForgetful(ReportsContract):
    @pytest.fixture
    def opener(self, tmp_path):
        Forgetful.create(tmp_path / "theirs").close()
        return functools.partial(Forgetful.open, tmp_path / "theirs")
"""


def test_an_implementation_outside_the_tree_is_put_to_them_and_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "1 failed" in ran.stdout
    assert "test_reports_and_failures_come_newest_first" in ran.stdout
    assert "Full diff" in ran.stdout or "Right contains" in ran.stdout, "the suite's asserts say what differs"
