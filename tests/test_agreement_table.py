"""docs/agreement.md has one row for every numbered clause, and each row names modules and tests that exist."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "agreement.md"
TEXT = ROOT / "service" / "agreement" / "agreement.txt"
HEADER = "| clause | what it asks | behaviour | module | test |"
NOTHING = "Nothing is asked of software: "
NONE = "–"


def numbered(prefix: str, last: int) -> list[str]:
    return [f"{prefix}.{n}" for n in range(1, last + 1)]


CLAUSES = [
    *numbered("1", 4),
    *numbered("2", 8),
    *numbered("2.8", 8),
    "2.9",
    *(f"2.9 {n})" for n in range(1, 10)),
    "2.10",
    *numbered("3", 3),
    *numbered("3.3", 2),
    *numbered("4", 3),
    "5",
    "6.1",  # printed as 1)
    *numbered("6.1", 4),
    "6.2",
    *numbered("6.2", 3),
    "6.3",
    *numbered("6.3", 4),
    "6.4",
    "6.5",
    *numbered("6.5", 6),
    "6.6",
    "7.1",
    "7.2",
    *numbered("7.2", 2),
    "7.3",
    "8.1",
    "8.2",
    *numbered("8.2", 2),
    *numbered("9", 3),
    *numbered("10", 2),
    *numbered("11", 4),
]
"""Every clause of the agreement that has a number of its own, in its order; chapter 5 is one clause."""


def rows() -> list[list[str]]:
    """Cells of the table's rows."""
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index(HEADER) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


ROWS = rows()


def names(cell: str) -> list[str]:
    """What a cell names, in backticks; the cell has nothing else."""
    found = re.findall(r"`([^`]+)`", cell)
    assert cell in (", ".join(f"`{name}`" for name in found), NONE), f"names in backticks, or {NONE}: {cell}"
    return found


def functions(path: Path) -> set[str]:
    """Tests of a module, also those that are methods."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_clause_has_one_row_in_the_agreements_order() -> None:
    assert [row[0] for row in ROWS] == CLAUSES
    assert set(Counter(row[0] for row in ROWS).values()) == {1}


def test_the_clauses_are_those_of_the_agreement_as_it_is_shipped() -> None:
    printed, chapter, clause = [], "", ""
    for line in TEXT.read_text("utf-8").splitlines():
        if found := re.match(r"(\d+)\. [A-Z]", line):
            chapter = clause = found[1]
            if chapter == "5":
                printed.append(chapter)
        elif found := re.match(r"(\d+(?:\.\d+)+) [A-Z]", line):
            clause = found[1]
            printed.append(clause)
        elif found := re.match(r"(\d)\) ", line):
            printed.append(f"{chapter}.{found[1]}" if clause == chapter else f"{clause} {found[1]})")
    assert printed == CLAUSES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_what_exists(row: list[str]) -> None:
    _, asks, behaviour, modules, tests = row
    assert asks
    assert behaviour
    for module in names(modules):
        assert (ROOT / module).is_file(), f"no such module: {module}"
    for test in names(tests):
        path, _, function = test.partition("::")
        assert (ROOT / path).is_file(), f"no such file: {path}"
        assert function.startswith("test_")
        assert function in functions(ROOT / path), f"no such test: {test}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_only_what_asks_nothing_of_software_is_without_a_test(row: list[str]) -> None:
    _, _, behaviour, modules, tests = row
    nothing = behaviour.startswith(NOTHING)
    assert nothing == (not names(tests)) == (not names(modules))
    assert not nothing or len(behaviour) > len(NOTHING), "say why"
