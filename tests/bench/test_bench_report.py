"""Plots and the page: well-formed, with every figure in it, and clear about files that are none of ours."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.latency import LatencyMeasurement, summarise_latency
from bench.limits import Limit
from bench.load import CURVE
from bench.results import uploads_document
from bench.slowclients import SlowMeasurement, summarise_slow
from bench.svg import Bar, bar_plot, colours, line_plot, number
from tests.bench.test_bench_results import MIB, ONE, PEER

FACTS: dict[str, Any] = {
    "started_at": "2026-01-01T00:00:00+00:00",
    "machine": {"cpu": "<a & b>", "cores": 2, "usable_cores": 2, "memory_bytes": 2**34, "kernel": "6"},
    "versions": {"python": "3.11", "tusd": None},
    "commit": "abc",
    "pinned_cores": {"server": [0], "load": [1]},
}
SETTINGS = {"connections": [256], "workers": [1]}
COMPARE = uploads_document(
    "compare", FACTS, SETTINGS, [ONE, PEER], {"tusd": "not here"}, {"clipkeep": ("all & more",)}, "complete"
)


def latency_document() -> dict[str, Any]:
    quantiles = {"p50": 200.0, "p90": 250.0, "p99": 300.0, "max": 400.0}
    curve = [float(ms) for ms in range(150, 150 + len(CURVE))]
    one = LatencyMeasurement(
        "clipkeep",
        "share",
        1,
        512,
        MIB,
        500.0,
        1000.0,
        500.0,
        5000,
        {},
        quantiles,
        quantiles,
        curve,
        0.3,
        0.0,
    )
    return {
        "bench": "latency",
        "ended": "complete",
        **FACTS,
        "settings": {},
        "measurements": [one.as_json()],
        "curve_at": list(CURVE.values()),
        "summary": [asdict(one) for one in summarise_latency([one])],
    }


def slow_document() -> dict[str, Any]:
    ack = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "max": 4.0}
    measurements = [
        SlowMeasurement("tusd", 1, slow, speed, ack, {}, 1.0, 2.0, 1, 0, {}, 0.0)
        for slow, speed in ((0, 100.0), (500, 0.0))
    ]
    return {
        "bench": "slow-clients",
        "ended": "interrupted",
        **FACTS,
        "settings": {"slow": 500},
        "measurements": [one.as_json() for one in measurements],
        "summary": [asdict(one) for one in summarise_slow(measurements)],
    }


LIMITS = {
    "bench": "limits",
    "ended": "complete",
    **FACTS,
    "settings": {},
    "measurements": [Limit(MIB, 0.1, 0.02, 0.1, 0.2, 0.05).as_json()],
}


def written(tmp_path: Path, *documents: dict[str, Any]) -> list[str]:
    paths = []
    for index, document in enumerate(documents):
        paths.append(tmp_path / f"{index}.json")
        paths[-1].write_text(json.dumps(document))
    return [str(path) for path in paths]


def test_a_page_with_plots_and_a_folder_with_each(tmp_path: Path) -> None:
    files = written(tmp_path, COMPARE, latency_document(), slow_document(), LIMITS, COMPARE)
    folder = tmp_path / "report"
    result = CliRunner().invoke(app, ["report", *files, "--output", str(folder)])
    assert result.exit_code == 0, result.output
    names = {path.name for path in folder.iterdir()}
    wanted = {
        "compare-cpu.svg",
        "compare-2-cpu.svg",
        "latency-share.svg",
        "slow-clients-p99.svg",
        "limits-parts.svg",
    }
    assert wanted | {"index.html"} <= names
    for svg in folder.glob("*.svg"):
        ET.fromstring(svg.read_text())
    page = (folder / "index.html").read_text()
    for words in (
        "&lt;a &amp; b&gt;",
        "all &amp; more",
        "skipped tusd: not here",
        "not complete: interrupted",
        "python 3.11",
        "commit abc",
    ):
        assert words in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="', page)
    assert "limit" in (folder / "compare-cpu.svg").read_text()


def test_a_single_page(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    files = written(tmp_path, COMPARE)
    result = CliRunner().invoke(app, ["report", *files, "--output", str(page), "--json"])
    assert json.loads(result.stdout)["written"] == [str(page)]
    assert page.read_text().count("<svg") == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not what a bench"),
        ('{"bench": "x"}', "is not what a bench"),
        (json.dumps({**COMPARE, "summary": [{}]}), "lack what a report needs"),
    ],
)
def test_a_file_that_is_no_result_is_told_by_name(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    result = CliRunner().invoke(app, ["report", str(path), "--output", str(tmp_path / "x.html")])
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.02314, "0.0231"), (1.456, "1.46"), (31.24, "31.2"), (1460.2, "1,460")]
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("log", [False, True])
def test_bars_survive_any_values(log: bool) -> None:
    groups = {"a <b>": [Bar("x", 0.0), Bar("y", 5.0, 4.0, 6.0)], "none": []}
    drawn = ET.fromstring(bar_plot("t & t", groups, log=log))
    lengths = [float(one.get("width", "0")) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert lengths[0] == 1.0 < lengths[1]
    ET.fromstring(bar_plot("empty", {}))
    ET.fromstring(line_plot("empty", "x", [], {}))


def test_colours_come_round() -> None:
    assert len(colours([str(n) for n in range(20)])) == 20
