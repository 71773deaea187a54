"""What was compiled from another source is named, so that nobody wonders why a change does nothing."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from pathlib import Path

from service.compiled import ROOT, stale_modules


def test_a_source_that_is_not_what_was_compiled_is_named(tmp_path: Path) -> None:
    """By its content, whatever its time says: rsync and tar bring a newer release with the times of its making."""
    for room in ("ingest", "storage"):
        (tmp_path / room).mkdir()
    digests = {}
    for name, compiled_from, text, source_s in (
        ("heads", "a", "a", 10),
        ("body", "a", "b", 10),  # older than what was compiled, and another
        ("budget", "a", "a", 30),  # touched
        ("media", None, "a", 10),
    ):
        source = tmp_path / "ingest" / f"{name}.py"
        source.write_text(text)
        os.utime(source, (source_s, source_s))
        compiled = tmp_path / "ingest" / f"{name}.cpython-311-x86_64-linux-gnu.so"
        compiled.touch()
        os.utime(compiled, (20, 20))
        if compiled_from is not None:
            digests[f"ingest/{name}.py"] = hashlib.sha256(compiled_from.encode()).hexdigest()
    (tmp_path / "storage" / "gone.cpython-311-x86_64-linux-gnu.so").touch()
    assert stale_modules(tmp_path) == [], "installed, not a checkout"
    (tmp_path / "setup.py").touch()
    (tmp_path / "clipkeep_hot.json").write_text(json.dumps(digests))
    assert stale_modules(tmp_path) == ["ingest/body.py", "ingest/media.py"]
    (tmp_path / "clipkeep_hot.json").unlink()  # nobody knows
    assert stale_modules(tmp_path) == [f"ingest/{name}.py" for name in ("body", "budget", "heads", "media")]


def hot_modules() -> tuple[str, ...]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    (hot,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    names: tuple[str, ...] = ast.literal_eval(hot)
    return names


def test_the_hot_path_is_synchronous_and_there() -> None:
    """mypyc's coroutines are no Python functions, and nothing that waits belongs on the hot path."""
    for name in hot_modules():
        source = ast.parse((ROOT / name).read_text())
        assert not [node for node in ast.walk(source) if isinstance(node, ast.AsyncFunctionDef)], name


def test_no_class_of_the_hot_path_stands_on_one_that_is_not_compiled_with_it() -> None:
    """mypyc lays its fields over those of the base: an attribute of a `threading.local` was one for all threads."""
    sources = [ast.parse((ROOT / name).read_text()) for name in hot_modules()]
    classes = [node for source in sources for node in ast.walk(source) if isinstance(node, ast.ClassDef)]
    allowed = {node.name for node in classes} | {
        "ABC",
        "Enum",
        "Exception",
        "IntEnum",
        "NamedTuple",
        "Protocol",
    }
    assert {ast.unparse(base) for node in classes for base in node.bases} <= allowed
