"""Which client asks: its own address, or the one that a trusted proxy saw."""

from __future__ import annotations

import pytest

from service.api.clients import client_address
from tests.service.api.office import registration
from tests.service.api.server import Server, refused
from tests.service.world import World

PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("forwarded_for", "seen"),
    [
        (None, PROXY),
        ("", PROXY),
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),  # what comes before is the client's own word
        ("evil,  203.0.113.9 ", "203.0.113.9"),
        ("203.0.113.9:1234", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("203.0.113.9, ", PROXY),
        ("203.0.113.9, unknown", PROXY),
        ("x" * 10_000, PROXY),
        ("[", PROXY),
        ("203.0.113.999", PROXY),
    ],
)
def test_the_address_that_a_trusted_proxy_saw(forwarded_for: str | None, seen: str) -> None:
    assert client_address(PROXY, forwarded_for, trust_forwarded_for=True) == seen
    assert client_address(PROXY, forwarded_for, trust_forwarded_for=False) == PROXY


def test_what_is_no_address_is_one_client() -> None:
    assert client_address("", None, trust_forwarded_for=False) == "unknown"
    assert client_address("testclient", "x", trust_forwarded_for=True) == "unknown"


@pytest.mark.parametrize("trusted", [True, False])
def test_registrations_are_counted_by_client(world: World, trusted: bool) -> None:
    settings = {"registrations_per_h": 2, "trust_forwarded_for": trusted}
    with Server(world, settings=settings) as server:

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
