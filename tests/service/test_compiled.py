"""What was compiled and is older than its source is named, so that nobody wonders why a change does nothing."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from service.compiled import ROOT, stale_modules


def test_a_source_that_is_newer_is_named(tmp_path: Path) -> None:
    for room in ("ingest", "storage"):
        (tmp_path / room).mkdir()
    for name, compiled_s, source_s in (("heads", 20, 10), ("body", 10, 20), ("budget", 10, 10)):
        source = tmp_path / "ingest" / f"{name}.py"
        compiled = tmp_path / "ingest" / f"{name}.cpython-311-x86_64-linux-gnu.so"
        for path, at_s in ((source, source_s), (compiled, compiled_s)):
            path.touch()
            os.utime(path, (at_s, at_s))
    (tmp_path / "storage" / "gone.cpython-311-x86_64-linux-gnu.so").touch()
    assert stale_modules(tmp_path) == [], "installed, not a checkout"
    (tmp_path / "setup.py").touch()
    assert stale_modules(tmp_path) == ["ingest/body.py"]


def test_the_hot_path_is_synchronous_and_there() -> None:
    """mypyc's coroutines are no Python functions, and nothing that waits belongs on the hot path."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (hot,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    for name in ast.literal_eval(hot):
        source = ast.parse((ROOT / name).read_text())
        assert not [node for node in ast.walk(source) if isinstance(node, ast.AsyncFunctionDef)], name
