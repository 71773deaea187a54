"""Some seconds in which connections to PostgreSQL are reset, half-closed and swallowed at random, under load.

`make soak ARGS="-s tests/soak/test_cuts.py"` does the same for ten minutes.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.cuts import Cuts, Weather, cut_off
from tests.servers.postgres import any_binaries, postgres_server

pytestmark = pytest.mark.e2e

ANSWER_S = 5.0
SHOWER = Weather(lasts_s=4.0, bout_s=4.0, calm_s=0.5, down_s=0.0, day_s=3600.0)


@pytest.mark.long
def test_connections_cut_at_random_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    with (
        postgres_server(any_binaries()) as postgres,
        cut_off(tmp_path, postgres, "cuts", home_answer_s=ANSWER_S) as (service, relay),
    ):
        cuts = Cuts(service, relay, SHOWER, seed)
        cuts.run()
        cuts.require_sound(postgres, "cuts")
        assert service.stop() == 0
