"""`bench sweep` on a tiny catalog: the figures are there, and the sweep did what it was measured for."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import BenchError
from bench.sweep import SweepSettings, measure_sweep

TINY = ["--days", "3", "--segments", "1001", "--chunks", "4004", "--devices", "5000", "--key-devices", "20"]


def test_all_figures_of_a_tiny_run() -> None:
    """ceil(1001 / 1000) delete calls and no listing, beside a listing of all that there is."""
    done = CliRunner().invoke(app, ["sweep", *TINY, "--latency-ms", "0", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    expiry, other, scan, keys = document["measurements"]
    assert (expiry["delete_calls"], expiry["list_calls"]) == (2, 0)
    assert 0 < expiry["catalog_seconds"] <= expiry["seconds"]
    assert 0 < expiry["peak_memory_bytes"] < 300_000_000
    assert (other["delete_calls"], other["list_calls"]) == (2, 4)
    assert scan["lapsed"] == 5
    assert keys["keys_of_each"] == 12
    assert document["ratio"].keys() == {"by_1000", "one_by_one"}
    assert document["ended"] == "complete"


def test_a_table_for_people() -> None:
    done = CliRunner().invoke(app, ["sweep", *TINY, "--latency-ms", "0"])
    assert done.exit_code == 0, done.output
    for words in ("expiry", "list, compare, delete", "lapse scan", "times as long"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [{"days": 0}, {"segments": 0}, {"segments": 11, "chunks": 10}, {"devices": 0}, {"latency_ms": -1.0}],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BenchError):
        SweepSettings(**wrong).checked()  # type: ignore[arg-type]


def test_an_interrupted_run_leaves_nothing() -> None:
    running = measure_sweep(SweepSettings(3, 10, 100, 1000, 20, 0))
    assert next(running) == {}
    running.close()
