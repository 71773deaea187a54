"""What a real ffmpeg makes of the counters, before the rules of deploy/prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.e2e import ffmpeg
from tests.e2e.service import Labels, Service, until
from tests.service.test_alarms import PROMETHEUS, promtool

pytestmark = pytest.mark.e2e

MINUTES = 60
CAMERAS = 100


def series(name: str, labels: Labels, values: str) -> dict[str, str]:
    told = ", ".join(f'{key}="{value}"' for key, value in (("job", "clipkeep"), ("instance", "a"), *labels))
    return {"series": f"{name}{{{told}}}", "values": values}


def test_none_fires_on_the_first_request_of_ffmpeg(service: Service, tmp_path: Path) -> None:
    """As if in each minute of an hour a hundred cameras did what one does here."""
    promtool("check", "rules", "rules.yaml")
    service.init()
    [device] = service.add_devices(1)
    service.start()
    before = service.metrics()
    source = ffmpeg.film(tmp_path / "film.ts", seconds=6, keyframe_s=2)
    host, port = service.ingest
    url = f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"
    ffmpeg.run(
        *("-i", str(source), "-c", "copy", "-f", "hls", "-hls_time", "2", "-method", "PUT"),
        *("-http_persistent", "1", "-hls_segment_filename", f"{url}/a_%03d.ts", f"{url}/a.m3u8"),
    )

    def counted() -> dict[str, float]:
        return {
            dict(labels)["code"]: value
            for (name, labels), value in service.metrics().items()
            if name == "clipkeep_ingest_answers_total" and dict(labels)["status"] in ("201", "401")
        }

    until(lambda: counted().get("", 0) >= 3, "what came is counted")
    assert counted()["no_token"] >= 1
    assert "bad_token" not in counted()
    after = service.metrics()
    inputs = [
        series(name, labels, f"0+{CAMERAS * (value - before.get((name, labels), 0))}x{MINUTES}")
        if name.endswith(("_total", "_bucket"))
        else series(name, labels, f"{value}x{MINUTES}")
        for (name, labels), value in after.items()
        if name.startswith("clipkeep_")
    ]
    asked = [{"expr": 'max_over_time(ALERTS{alertstate="firing"}[1h])', "eval_time": "1h", "exp_samples": []}]
    case = {"interval": "1m", "input_series": inputs, "promql_expr_test": asked}
    written = tmp_path / "ffmpeg.test.yaml"
    rules = str(PROMETHEUS / "rules.yaml")
    written.write_text(yaml.safe_dump({"rule_files": [rules], "tests": [case]}))
    promtool("test", "rules", str(written))
