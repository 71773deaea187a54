"""SIGKILL of service, PostgreSQL and S3 server under load: what was acknowledged is there afterwards (invariant 1).

`make soak` does the same for half an hour, with a minute's absence each time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.violence import Violence, assert_sound, film_chunks, served_from
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.e2e

KILLS = 2
AWAY_S = 3.0


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(any_binaries()) as started:
        yield started


@pytest.mark.long
def test_kills_lose_nothing_and_heal(
    tmp_path: Path, postgres: PostgresServer, seaweed: SeaweedServer
) -> None:
    seed = random.randrange(1 << 32)
    with served_from(tmp_path, postgres, seaweed) as service:
        violence = Violence(
            service, postgres, seaweed, film_chunks(tmp_path), seed=seed, away_s=AWAY_S, pause_s=0.2
        )
        violence.run(KILLS)
        assert_sound(service, violence)
        assert service.stop() == 0
