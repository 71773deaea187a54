"""deploy/grafana: the board asks for metrics that are there, in expressions that Prometheus takes."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from tests.service.test_alarms import ROOT, metrics_there, names_of, promtool, rules

BOARD = ROOT / "deploy/grafana/clipkeep.json"
SECTIONS = {
    "Ingest",
    "Acknowledgements",
    "Refusals",
    "Store",
    "Sweep",
    "Erasures",
    "Money and owners",
    "Hosts",
}


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*asked, *(each["expr"] for each in board()["annotations"]["list"])]


def test_each_metric_is_there(tmp_path: Path) -> None:
    text = metrics_there(tmp_path)
    there = names_of(text)
    for expression in expressions():
        named = set(re.findall(r"\bclipkeep_\w+", expression))
        assert named <= there, expression
        for key in re.findall(r'key="([^"]+)"', expression):
            assert f'clipkeep_setting{{key="{key}"}}' in text
    for variable in board()["templating"]["list"][1:]:
        assert set(re.findall(r"\bclipkeep_\w+", variable["query"]["query"])) <= there


def test_all_that_rules_look_at_is_on_the_board() -> None:
    """Whoever is woken sees there what it was."""
    shown = {
        name for expression in expressions() for name in re.findall(r"\b(?:clipkeep_\w+|up)\b", expression)
    }
    looked_at = {name for rule in rules() for name in re.findall(r"\b(?:clipkeep_\w+|up)\b", rule["expr"])}
    beside = {
        *("clipkeep_catalog_up", "clipkeep_notices_overdue_seconds"),
        "clipkeep_sweep_last_success_timestamp_seconds",
    }
    assert looked_at - shown == beside


def test_prometheus_takes_each_expression(tmp_path: Path) -> None:
    """With Grafana's variables replaced, as rules that record it."""
    taken = [
        {"record": f"board:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions())
    ]
    written = tmp_path / "board.yaml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": taken}]}))
    assert f"{len(taken)} rules found" in promtool("check", "rules", str(written))


def test_it_has_a_row_for_each_thing_and_can_be_imported() -> None:
    found = board()
    assert {panel["title"] for panel in found["panels"] if panel["type"] == "row"} >= SECTIONS
    numbers = [panel["id"] for panel in found["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "job", "instance"]
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", "whichever Prometheus it is imported beside"
        assert all(target["legendFormat"] and target["datasource"] for target in panel["targets"])
    places = [panel["gridPos"] for panel in found["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
