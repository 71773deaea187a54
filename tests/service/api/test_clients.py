"""What is counted by client, behind a named proxy and without one."""

from __future__ import annotations

import pytest

from tests.service.api.office import registration
from tests.service.api.server import Server, refused
from tests.service.world import World


@pytest.mark.parametrize("trusted", [True, False])
def test_registrations_are_counted_by_client(world: World, trusted: bool) -> None:
    settings = {"registrations_per_h": 2}
    with Server(
        world, settings=settings, trusted_proxies="127.0.0.0/8" if trusted else "10.0.0.0/8"
    ) as server:

        def register(number: int, address: str) -> int:
            body = registration(f"a{number}@example.org")
            reply = server.ask("POST", "/v1/accounts", body, X_Forwarded_For=address)
            if reply.status == 429:
                refused(reply, 429, "slow_down")
                assert 1 <= int(reply.headers["retry-after"]) <= 3600
            return reply.status

        assert [register(n, "203.0.113.1") for n in range(3)] == [201, 201, 429]
        assert register(3, "198.51.100.7, 203.0.113.1") == 429
        assert register(4, "203.0.113.2") == (201 if trusted else 429)
        world.clock.ms += 3_600_001
        assert register(5, "203.0.113.1") == 201
