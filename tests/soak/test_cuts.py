"""Ten minutes in which connections to PostgreSQL are cut at random: docs/benchmarks.md has the figures of a run.

    make soak ARGS="tests/soak/test_cuts.py -s"

`CLIPKEEP_SOAK_SEED` and `CLIPKEEP_SOAK_CUTS_S` (600) say what is done; the seed is printed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.e2e.cuts import Cuts, Weather, cut_off
from tests.servers.postgres import any_binaries, postgres_server

pytestmark = pytest.mark.soak

SEED = int(os.environ.get("CLIPKEEP_SOAK_SEED", random.randrange(1 << 32)))
ANSWER_S = 8.0
"""Less than the default, so that more happens in the time."""
CUTS_S = float(os.environ.get("CLIPKEEP_SOAK_CUTS_S", "600"))


def test_connections_cut_at_random_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    weather = Weather(lasts_s=CUTS_S, bout_s=20.0, calm_s=4.0, down_s=25.0, day_s=30.0)
    with (
        postgres_server(any_binaries(), {"shared_buffers": "64MB", "max_connections": "200"}) as postgres,
        cut_off(tmp_path, postgres, "cuts", home_answer_s=ANSWER_S) as (service, relay),
    ):
        cuts = Cuts(service, relay, weather, SEED)
        cuts.run()
        cuts.require_sound(postgres, "cuts")
        assert service.stop() == 0
