"""What kind a refusal is, its class says: a rule with a new code is not sorted by a list of codes elsewhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from retention.filelock import holding
from service.agreement.errors import ERRORS
from service.api.errors import STATUS_OF_KIND
from storage.errors import CallerError, Conflict, Unprocessable, WorldError

ROOT = Path(__file__).parents[3]
RULES = [
    *(f"retention/{name}.py" for name in ("accounts", "addresses", "cancelling", "money", "plans")),
    *(f"retention/{name}.py" for name in ("refunds", "renewals", "subscriptions", "terms", "entitlements")),
    *("storage/sql/deletions.py",),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "storage/sql/books").glob("*.py")),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "service/agreement").glob("*.py")),
]


@pytest.mark.parametrize("name", RULES)
def test_no_rule_raises_what_has_no_kind(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text("utf-8"))
    made = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "CallerError"
    ]
    # Who sends notices, and with which texts, is set up by the operator, in config.toml.
    assert made == [] or name in ("service/agreement/senders.py", "service/agreement/templates.py"), made


def test_each_kind_has_one_status() -> None:
    assert {Conflict, Unprocessable} <= set(ERRORS)
    assert (STATUS_OF_KIND[Conflict], STATUS_OF_KIND[Unprocessable]) == (409, 422)
    assert CallerError not in STATUS_OF_KIND


def test_a_locks_errors_name_what_it_guards(tmp_path: Path) -> None:
    path = tmp_path / "serve.lock"
    with holding(path, 0, name="service"):
        with pytest.raises(WorldError) as caught, holding(path, 0, name="service"):
            pass
        assert caught.value.code == "service_busy"
    with pytest.raises(WorldError) as caught, holding(tmp_path / "no" / "lock", 0, name="service"):
        pass
    assert caught.value.code == "service_unavailable"
