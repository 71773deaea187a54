"""Half an hour of SIGKILLs: docs/benchmarks.md has the figures of a run.

    make soak ARGS="tests/soak/test_kills.py -s"

`CLIPKEEP_SOAK_SEED`, `CLIPKEEP_SOAK_KILLS` (30) and `CLIPKEEP_SOAK_AWAY_S` (60) say what is done; the seed is printed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.e2e.violence import Violence, assert_sound, film_chunks, served_from
from tests.servers.postgres import any_binaries, postgres_server
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.soak

SEED = int(os.environ.get("CLIPKEEP_SOAK_SEED", random.randrange(1 << 32)))
KILLS = int(os.environ.get("CLIPKEEP_SOAK_KILLS", "30"))
AWAY_S = float(os.environ.get("CLIPKEEP_SOAK_AWAY_S", "60"))


def test_thirty_kills_lose_nothing_and_heal(tmp_path: Path, seaweed: SeaweedServer) -> None:
    scenes = film_chunks(tmp_path)
    # Durable, as an operator has it.
    with (
        postgres_server(any_binaries(), {"shared_buffers": "64MB"}) as postgres,
        served_from(tmp_path, postgres, seaweed) as service,
    ):
        violence = Violence(service, postgres, seaweed, scenes, seed=SEED, away_s=AWAY_S, pause_s=1.0)
        violence.run(KILLS)
        assert_sound(service, violence)
        assert service.stop() == 0
