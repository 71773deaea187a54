"""Log-in from elsewhere on the pages: newcomers, owners who link it, and answers that nobody here asked for."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest

from service.agreement.openid.opening import open_providers
from service.config import OpenIdSettings
from service.pages.cookies import ELSEWHERE, LOG_IN
from tests.servers.openid import LyingProvider, lying_provider
from tests.service.api.office import PASSWORD, add_owner, code_of
from tests.service.api.server import Server
from tests.service.pages.visitor import Shown, Visitor
from tests.service.world import NOON_MS, World

HOST = "clipkeep.example"
BACK = f"https://{HOST}/log-in/elsewhere/back"
GOING = re.compile(r'http-equiv="refresh" content="0; url=([^"]+)"')


@dataclass
class Place:
    server: Server
    provider: LyingProvider

    def visitor(self) -> Visitor:
        return Visitor(self.server, Host=HOST)

    def begun(self, visitor: Visitor, page: str = "/log-in", action: str = "/log-in/elsewhere") -> str:
        """The address that a browser is sent to."""
        shown = visitor.fill(visitor.get(page), action)
        assert shown.status == 200, shown.html.text
        found = GOING.search(shown.source)
        assert found is not None
        assert html.unescape(found[1]) in shown.html.links
        return html.unescape(found[1])

    def answer(self, url: str, name: str) -> str:
        """Where the provider sends a browser back to, with somebody of this name logged in there."""
        self.provider.claims = {"sub": name, "email": f"{name}@example.org", "email_verified": True}
        self.provider.claims["now_s"] = self.server.world.clock.ms // 1000
        code, state = self.provider.logged_in(url)
        query = urlencode({"code": code, "state": state, "iss": self.provider.issuer})
        return f"/log-in/elsewhere/back?{query}"

    def come(self, visitor: Visitor, name: str, page: str = "/log-in") -> Shown:
        return visitor.get(self.answer(self.begun(visitor, page), name))


def served(world: World, provider: LyingProvider, trusted: str = "acme") -> Server:
    settings = OpenIdSettings(
        providers=f"acme {provider.issuer} clipkeep",
        redirect_uris=f"https://app.example.org/back {BACK}",
        trusted_emails=trusted,
    )
    return Server(world, providers=open_providers(settings))


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    with lying_provider() as provider, served(world, provider) as server:
        provider.back = BACK
        yield Place(server, provider)
        assert server.bugs == []


def test_a_newcomer_registers_and_comes_back(place: Place) -> None:
    visitor = place.visitor()
    done = place.come(visitor, "bea", "/register")
    assert done.goes_to == "/register/elsewhere"
    page = visitor.follow(done)
    assert "Register with acme" in page.html.text
    refused = visitor.fill(page, "/register/elsewhere", name="Bea")
    assert refused.status == 422
    assert "accept it" in refused.html.text
    done = visitor.fill(refused, "/register/elsewhere", accepts="1")
    assert done.goes_to == "/cameras"
    assert "Three steps to the first picture" in visitor.follow(done).html.text
    assert ELSEWHERE not in visitor.cookies
    account = visitor.get("/account")
    assert "bea@example.org" in account.html.text
    last = visitor.fill(account, "/account/elsewhere/remove")
    assert last.status == 409
    assert "Set a password first" in last.html.text
    again = place.visitor()
    asked = again.get("/cameras/7/plan")
    done = place.come(again, "bea", asked.goes_to)
    assert done.goes_to == "/cameras/7/plan", "the page that was asked for"


def test_who_is_not_believed_gets_a_code(world: World) -> None:
    with lying_provider() as provider, served(world, provider, trusted="") as server:
        provider.back = BACK
        place = Place(server, provider)
        visitor = place.visitor()
        page = visitor.follow(place.come(visitor, "cat"))
        done = visitor.fill(page, "/register/elsewhere", accepts="1")
        account = int(done.goes_to.rpartition("=")[2])
        done = visitor.fill(visitor.follow(done), "/activate", code=code_of(server, account))
        assert done.goes_to == "/log-in?said=activated"
        assert place.come(place.visitor(), "cat").goes_to == "/cameras"


def test_an_owner_links_and_unlinks(place: Place) -> None:
    ada = add_owner(place.server)
    visitor = place.visitor()
    page = visitor.get("/log-in")
    visitor.fill(page, "/log-in", login="ada@example.org", password=PASSWORD)
    url = place.begun(visitor, "/account", "/account/elsewhere")
    answer = place.answer(url, "ada-of-acme")
    logged_out = place.visitor()
    logged_out.cookies[ELSEWHERE] = visitor.cookies[ELSEWHERE]
    assert logged_out.get(answer).goes_to.startswith("/log-in?"), "to link it one has to be logged in"
    assert visitor.get(answer).goes_to == "/account?said=log_in_linked"
    assert visitor.get(answer).status == 401, "once"
    assert [one["provider"] for one in ada.get(f"{ada.home}/identities")] == ["acme"]
    page = visitor.get("/account")
    assert "/account/elsewhere" not in [form.action for form in page.html.forms]
    other = place.visitor()
    assert place.come(other, "ada-of-acme").goes_to == "/cameras"
    assert visitor.fill(page, "/account/elsewhere/remove").goes_to == "/log-in?said=log_in_unlinked"
    assert other.get("/account").goes_to.startswith("/log-in"), "all log-ins have ended"
    assert LOG_IN not in visitor.cookies


def test_an_answer_counts_in_the_browser_that_began_alone(place: Place) -> None:
    visitor, other = place.visitor(), place.visitor()
    mine, foreign = place.begun(visitor), place.begun(other)
    kept = visitor.cookies[ELSEWHERE]
    for path, words in (
        ("/log-in/elsewhere/back?error=access_denied&state=x", "let nobody in"),
        (place.answer(foreign, "mallory"), "not one to what you began here"),
        ("/log-in/elsewhere/back?code=x&state=y", "not one to what you began here"),
    ):
        refused = visitor.get(path)
        assert refused.status == 401
        assert words in refused.html.text
        assert LOG_IN not in visitor.cookies
        assert visitor.cookies[ELSEWHERE] == kept, "what is under way goes on"
    assert "in another browser" in place.visitor().get(place.answer(mine, "ada")).html.text
    place.server.world.clock.ms += 600_001
    assert "took too long" in visitor.get(place.answer(mine, "ada")).html.text
    assert visitor.get("/register/elsewhere").status == 401
    assert visitor.post("/log-in/elsewhere", {"provider": "acme", "form": "A" * 86}).status == 403
    form = visitor.get("/log-in").form("/log-in/elsewhere")
    assert visitor.post(form.action, form.fields | {"provider": "nobody"}).status == 404
    assert place.server.world.clock.ms > NOON_MS


def test_a_provider_that_is_away_is_said_so(place: Place) -> None:
    place.provider.status = 500
    visitor = place.visitor()
    shown = visitor.fill(visitor.get("/log-in"), "/log-in/elsewhere")
    assert shown.status == 503
    assert "Nobody can log in there right now" in shown.html.text
    assert "/log-in/elsewhere" in [form.action for form in shown.html.forms]


def test_nothing_is_offered_where_no_address_leads_back(place: Place) -> None:
    for host in ("127.0.0.1", "app.example.org", f"{HOST}:8443"):
        page = Visitor(place.server, Host=host).get("/log-in")
        assert "/log-in/elsewhere" not in [form.action for form in page.html.forms], host
