"""Pages of other origins: only those that the operator named, and preflights without a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.api.server import ALL, Reply, Server
from tests.service.world import World, clips

PAGE = "https://watch.example"
PATH = f"/v1/devices/1/playlist.m3u8?{ALL}"


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    world.keep(*clips(3))
    with Server(world, cors_origins=f"{PAGE}, http://localhost:3000") as server:
        yield server


def test_no_origin_is_allowed_unless_it_is_named(world: World) -> None:
    with Server(world) as server:
        for reply in (server.get(PATH, Origin=PAGE), preflight(server, PAGE)):
            assert not [name for name in reply.headers if name.startswith("access-control-")]


def preflight(server: Server, origin: str, method: str = "GET", headers: str = "authorization") -> Reply:
    asked = {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": headers}
    return server.get(PATH, token=None, method="OPTIONS", Origin=origin, **asked)


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_named_origin_may_ask_and_read(server: Server, origin: str) -> None:
    reply = preflight(server, origin, "DELETE", "authorization,range,if-range,idempotency-key,content-type")
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert "DELETE" in reply.headers["access-control-allow-methods"]
    allowed = reply.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "range", "idempotency-key"))
    assert int(reply.headers["access-control-max-age"]) > 0
    reply = server.get(PATH, Origin=origin)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, origin)
    assert "Origin" in reply.headers["vary"], "a cache must not give it to another origin"
    assert "Content-Range" in reply.headers["access-control-expose-headers"]
    # A refusal too: else the page would not learn why.
    reply = server.get(PATH, token="wrong", Origin=origin)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (401, origin)


@pytest.mark.parametrize(
    "origin", ["https://other.example", "https://watch.example.evil.example", "http://watch.example", "null"]
)
def test_another_origin_may_not(server: Server, origin: str) -> None:
    for reply in (preflight(server, origin), server.get(PATH, Origin=origin)):
        assert "access-control-allow-origin" not in reply.headers
    assert preflight(server, origin).status == 400
    assert "access-control-allow-credentials" not in server.get(PATH, Origin=PAGE).headers


def test_any_origin(world: World) -> None:
    with Server(world, cors_origins="*") as server:
        assert server.get(PATH, Origin="https://a.example").headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in preflight(server, "https://a.example").headers
