"""Operators, roles and what each may do: `retention.operators`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from retention.operators import BUILT_IN, MAY, Act, OperatorRole, added, ended, named, roles_for
from storage.errors import CallerError
from storage.rows.operators import OperatorRow


def refusal(step: Callable[[], object]) -> str:
    with pytest.raises(CallerError) as caught:
        step()
    return caught.value.code


PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
EVE = OperatorRow(1, "Eve", "support", 0)


def test_the_docs_have_the_table_of_roles() -> None:
    table = PAGE.read_text().partition("| role | may |")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^\| (support|money|admin|auditor) \| (.*) \|$", table, re.M))
    assert {role: set(acts.split(", ")) for role, acts in told.items()} == {
        str(role): {str(act) for act in acts} for role, acts in MAY.items()
    }


def test_the_auditor_only_looks_and_the_admin_may_everything() -> None:
    assert MAY[OperatorRole.AUDITOR] == {Act.LOOK}
    assert MAY[OperatorRole.ADMIN] == set(Act)
    assert all(Act.LOOK in acts for acts in MAY.values())
    assert roles_for(Act.WATCH) == [OperatorRole.SUPPORT, OperatorRole.ADMIN]


@pytest.mark.parametrize("name", ["Eve", "EVE", BUILT_IN])
def test_a_name_is_given_once(name: str) -> None:
    gone = replace(EVE, ended_ms=1)
    assert refusal(lambda: added([gone], name, OperatorRole.MONEY, now_ms=2)) == "operator_exists"
    assert added([gone], "Max", OperatorRole.MONEY, now_ms=2) == OperatorRow(0, "Max", "money", 2)


def test_an_operator_ends_once() -> None:
    assert ended(EVE, now_ms=5) == replace(EVE, ended_ms=5)
    assert refusal(lambda: ended(replace(EVE, ended_ms=5), now_ms=6)) == "operator_ended"
    assert named([EVE], "Eve") == EVE
    with pytest.raises(CallerError, match="operator list"):
        named([EVE], "Max")
