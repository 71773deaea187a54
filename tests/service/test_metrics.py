"""/metrics: what workers published, and what this process counts itself."""

from __future__ import annotations

from pathlib import Path

from ingest.stats import Stats
from service.metrics import publish, published, render
from tests.retention.world import NOON, World


def test_store_calls_of_all_processes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    calls = {("put", "ok"): 7, ("put", "store_unavailable"): 2}
    publish(run / "w0.json", Stats(), store_calls=calls, now_ms=NOON, problem="")
    publish(run / "w1.json", Stats(), store_calls={}, now_ms=NOON, problem="")
    assert published(run).keys() == {"w0", "w1"}
    with World(tmp_path) as world:
        text = render(run, world.catalog, world.clock, {("get_range", "ok"): 3}).decode()
    found = sorted(line for line in text.splitlines() if line.startswith("clipkeep_store_calls_total"))
    assert found == [
        'clipkeep_store_calls_total{call="get_range",outcome="ok",process="api"} 3.0',
        'clipkeep_store_calls_total{call="put",outcome="ok",process="w0"} 7.0',
        'clipkeep_store_calls_total{call="put",outcome="store_unavailable",process="w0"} 2.0',
    ]
