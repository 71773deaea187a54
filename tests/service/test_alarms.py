"""deploy/prometheus: rules look at what is there, fire when they should, and docs/operations.md tells of each."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.stats import Stats
from service.config import Config, HostsSettings
from service.metrics import SETTINGS, FeedFigures, publish, render
from tests.retention.world import NOON, World

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"


def promtool(*words: str) -> str:
    """What it says of these files, when it is content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    said = subprocess.run([program, *words], cwd=PROMETHEUS, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def cases() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "rules.test.yaml").read_text())["tests"]
    return tests


def metrics_there(folder: Path, config: Config | None = None) -> str:
    """All that `/metrics` can have."""
    publish(folder / "run/w0.json", Stats(), store_calls={}, now_ms=NOON, problem="")
    with World(folder) as world:
        world.catalog.record_sweep({"finished_ms": NOON}, now_ms=NOON)
        feed = FeedFigures(lag_s=0.25, applied=7)
        return render(folder / "run", world.catalog, world.clock, {}, feed=feed, config=config).decode()


def names_of(text: str) -> set[str]:
    """Series that Prometheus stores of this."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", text, flags=re.M):
        found |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return found


def test_promtool_takes_the_files() -> None:
    said = promtool("check", "config", "prometheus.yaml")
    assert f"{len(rules())} rules found" in said


def test_each_rule_fires_when_it_should_and_no_other_does() -> None:
    promtool("test", "rules", "rules.test.yaml")


def test_each_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    named = [rule["alert"] for rule in rules()]
    assert len(set(named)) == len(named)
    ordinary, *others = cases()
    assert [case["name"] for case in others] == named
    assert all(not question["exp_samples"] for question in ordinary["promql_expr_test"])
    for case in others:
        quiet, fires = case["promql_expr_test"]
        assert quiet["expr"] == fires["expr"] == 'ALERTS{alertstate="firing"}', "all that fire, not this one"
        assert quiet["exp_samples"] == []
        [sample] = fires["exp_samples"]
        assert f'alertname="{case["name"]}"' in sample["labels"]


def test_an_ordinary_home_has_all_that_rules_look_at() -> None:
    """Else nothing fires there because nothing is there."""
    series = {entry["series"].partition("{")[0] for entry in cases()[0]["input_series"]}
    looked_at = {name for rule in rules() for name in re.findall(r"\b(?:clipkeep_\w+|up)\b", rule["expr"])}
    assert looked_at == series
    first = [e for e in cases()[0]["input_series"] if 'code="no_token"' in e["series"]]
    assert len(first) == 1, "ffmpeg's first request of each connection"


def test_each_rule_looks_at_what_is_there_and_says_what_to_do(tmp_path: Path) -> None:
    text = metrics_there(tmp_path)
    there = names_of(text)
    keys = set(re.findall(r'^clipkeep_setting\{key="([^"]+)"', text, flags=re.M))
    assert keys == set(SETTINGS)
    for rule in rules():
        named = set(re.findall(r"\bclipkeep_\w+", rule["expr"]))
        assert named <= there, rule["alert"]
        assert set(re.findall(r'key="([^"]+)"', rule["expr"])) <= keys
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
        assert "no_token" not in rule["expr"]


def test_the_table_of_what_to_watch_names_each_rule_and_rules_are_for_each_row() -> None:
    page = (ROOT / "docs/operations.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = [line for line in page.splitlines() if line.startswith("| `clipkeep_")]
    told = [name for row in rows for name in re.findall(r"`(Clipkeep[A-Za-z]+)`", row)]
    assert sorted([*told, "ClipkeepDown"]) == sorted(rule["alert"] for rule in rules())
    exprs = {rule["alert"]: rule["expr"] for rule in rules()}
    for row in rows:
        metric = row.split("`")[1].partition("{")[0]
        assert any(metric in exprs[name] for name in re.findall(r"`(Clipkeep[A-Za-z]+)`", row)), row


def test_settings_are_those_of_this_host(tmp_path: Path) -> None:
    text = metrics_there(tmp_path, replace(Config(), hosts=HostsSettings(max_stale_s=17)))
    assert 'clipkeep_setting{key="hosts.max_stale_s"} 17.0' in text.splitlines()
