"""Query parameters: a page takes those that it names, each once, and `address` finds an account."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from service.agreement import versions
from service.agreement.desk import OPERATOR
from service.api import docs
from service.api.app import PARTS, create_app
from service.api.routing import known_parameters
from service.pages import routers as routers_of_pages
from tests.service.api.office import add_operator, add_owner
from tests.service.api.server import ALL, AT, PATHS, Server, refused
from tests.service.world import World, clips

PAGES = [
    *("/v1/prices", "/v1/agreement", "/healthz", *PATHS),
    *("/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.mjs"),
]


def test_no_page_is_without_the_check(world: World) -> None:
    with Server(world) as server:
        app = create_app(server._services)
    routers = [*(part(app.state.api).routes() for part in PARTS), docs.routes()]
    pages = routers_of_pages(app.state.site)  # they read their own few
    assert len(app.routes) == len(routers) + len(pages), "no page is put on beside them"
    routes = [route for router in routers for route in router.routes]
    assert len(routes) > 65
    for route in routes:
        assert isinstance(route, APIRoute)
        assert known_parameters in [dependency.call for dependency in route.dependant.dependencies], (
            route.path
        )


@pytest.mark.parametrize("path", PAGES)
def test_a_parameter_that_is_not_known_is_refused(world: World, path: str) -> None:
    world.keep(*clips(1))
    sign = "&" if "?" in path else "?"
    with Server(world) as server:
        assert server.get(path).status == 200
        for name in ("form", "Limit", "%74oo", "fromx"):
            reply = server.get(f"{path}{sign}{name}=1")
            refused(reply, 400, "malformed")
        assert b"there are: " in reply.body
        assert server.get(f"{path}{sign}x=1", method="HEAD").status == 400


@pytest.mark.parametrize("path", PAGES[-4:])
def test_a_page_of_the_documentation_says_what_it_takes(world: World, path: str) -> None:
    with Server(world) as server:
        reply = server.send("POST", path, None, {})
        refused(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == "GET, HEAD"


def test_one_that_is_there_twice_is_refused(world: World) -> None:
    with Server(world) as server:
        token = world.token()
        refused(server.get(f"/v1/devices/1/recordings?{ALL}&from=5"), 400, "malformed")
        path = f"/v1/devices/1/chunks/{AT}?token={token}"
        refused(server.get(f"{path}&token={token}", token=None), 400, "malformed")
        assert server.get(path, token=None).status == 404


def test_an_account_is_found_by_its_address(world: World) -> None:
    with Server(world) as server:
        ada, operator = add_owner(server), add_operator(server)
        add_owner(server, "bob")

        def found(query: str) -> list[int]:
            return [row["account"] for row in operator.get(f"/v1/accounts?{query}")["items"]]

        assert len(found("")) == 3
        assert found("address=ada@example.org") == found("address=ADA%40example.org") == [ada.account]
        assert found("address=eve@example.org") == found("address=nonsense") == []
        assert found("address=ada@example.org&state=active") == [ada.account]
        assert found("address=ada@example.org&state=new") == []
        assert found(f"address=ada@example.org&after={ada.account}") == []
        refused(ada.ask("GET", "/v1/accounts?address=bob@example.org"), 403, "operators_only")
        refused(operator.ask("GET", "/v1/accounts?address="), 400, "malformed")
        refused(operator.ask("GET", "/v1/accounts?adress=ada@example.org"), 400, "malformed")


def test_an_account_shows_what_it_accepted_and_when(world: World) -> None:
    with Server(world) as server:
        ada = add_owner(server)
        assert ada.get(ada.home)["accepted"] == [{"version": 1, "how": "registered", "at_ms": world.clock.ms}]
        versions.publish(server.desk, OPERATOR, "The second agreement.")
        services = server._services
        services.used_accounts.take()
        services.used_accounts.forget()
        ada.get(ada.home)
        assert list(services.used_accounts.take().values()) == [[ada.account]], "any request is use"
        add_operator(server).get("/v1/accounts")
        assert services.used_accounts.take() == {}, "operators' are not"
