"""The tests themselves: a failing assert says something, and there is none that can't fail."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED

SOURCES = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "storage/contracts").rglob("*.py")])


CONTRACTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "storage/contracts").rglob("*.py"))
    if path.name != "__init__.py"
]


@pytest.mark.parametrize("name", [*SHARED, *CONTRACTS])
def test_the_asserts_of_what_tests_share_are_rewritten(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__spec__ is not None
    assert type(module.__spec__.loader).__name__ == "AssertionRewritingHook"


def toothless(tree: ast.AST) -> Iterator[ast.AST]:
    """Asserts and comparisons that hold whatever the code under test does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            always = (ast.Tuple, ast.Constant, ast.JoinedStr, ast.Lambda, ast.GeneratorExp)
            parts = node.test.values if isinstance(node.test, ast.BoolOp) else [node.test]
            if any(isinstance(part, always) for part in parts):
                yield node
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, right in pairwise(sides):
                calls = any(isinstance(part, ast.Call) for part in ast.walk(left))
                if (
                    ast.dump(left) == ast.dump(right) and not calls
                ):  # a call may give something else the second time
                    yield node
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare):
            yield node  # without the word assert
    for block in ast.walk(tree):
        yield from just_set(block)


def just_set(block: ast.AST) -> Iterator[ast.Assert]:
    """`calls = gateway.calls`, and in the next line `assert gateway.calls == calls`, with nothing in between."""
    body = getattr(block, "body", [])
    for line, after in pairwise(body) if isinstance(body, list) else ():
        if isinstance(line, ast.Assign) and isinstance(after, ast.Assert) and len(line.targets) == 1:
            if any(isinstance(part, ast.Call) for part in ast.walk(line.value)):
                continue
            if isinstance(after.test, ast.Compare) and isinstance(after.test.ops[0], ast.Eq | ast.Is):
                sides = {ast.unparse(after.test.left), ast.unparse(after.test.comparators[0])}
                if sides == {ast.unparse(line.targets[0]), ast.unparse(line.value)}:
                    yield after


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_assert_holds_whatever_happens(path: Path) -> None:
    found = [f"{node.lineno}: {ast.unparse(node)}" for node in toothless(ast.parse(path.read_text()))]  # type: ignore[attr-defined]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "assert calls == calls",
        "assert (x == 1, 'said')",
        "assert x or True",
        "x == 1",
        "calls = gateway.calls\nassert gateway.calls == calls",
    ],
)
def test_what_has_no_teeth_is_found(source: str) -> None:
    assert list(toothless(ast.parse(source)))


def test_children_of_a_suite_that_ignores_sigint_can_be_interrupted() -> None:
    """As `nohup make test &` runs it. The test that is chosen interrupts a command and waits for its end."""
    one = "tests/service/test_cli.py::test_ctrl_c_while_a_command_still_loads"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
