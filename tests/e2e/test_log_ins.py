"""Log-in from elsewhere (1.3), over HTTP: newcomers, accounts that link it, and the last way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.customers import Customer, Said, Town
from tests.e2e.service import Service
from tests.servers.openid import (
    BACK,
    has_npm_provider,
    log_in_as_a_person,
    lying_provider,
    npm_provider,
)

pytestmark = pytest.mark.e2e

Browser = Callable[[str, str], dict[str, str]]
"""Logs a person of that name in at an address. Returns what the provider sends back."""


class Today(Town):
    """A service by the real clock, which tokens of providers are checked by."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._offset_ms = 0
        service.configure(agreement_housekeeping_s=0.2)
        service.start()


@contextmanager
def some_provider() -> Iterator[tuple[str, Browser]]:
    """`oidc-provider` where it is installed, else one of our own."""
    if has_npm_provider():
        with npm_provider() as issuer:
            yield issuer, log_in_as_a_person
        return
    with lying_provider() as provider:

        def browse(url: str, name: str) -> dict[str, str]:
            provider.claims = {"sub": name, "email": f"{name}@example.org", "email_verified": True}
            code, state = provider.logged_in(url)
            return {"code": code, "state": state, "iss": provider.issuer}

        yield provider.issuer, browse


def test_log_in_from_elsewhere(service: Service) -> None:
    with some_provider() as (issuer, browse):
        service.configure(
            openid_providers=f"acme {issuer} clipkeep",
            openid_secrets="acme secret-of-clipkeep",
            openid_redirect_uris=BACK,
            openid_trusted_emails="acme",
        )
        service.init()
        town = Today(service)
        assert town.ask("GET", "/v1/providers").json == [{"provider": "acme", "issuer": issuer}]

        def come(name: str) -> Said:
            begun = town.ask("POST", "/v1/log-ins", {"provider": "acme"}).json
            back = browse(begun["url"], name)
            return town.ask("POST", "/v1/log-ins/completion", {"log_in": begun["log_in"], **answer(back)})

        newcomer = come("ada").json["newcomer"]
        assert (newcomer["email"], newcomer["proved"]) == ("ada@example.org", True)
        asked = {"newcomer": newcomer["newcomer"], "accepts_version": 1}
        joined = town.ask("POST", "/v1/log-ins/registration", asked).json
        ada = customer(town, joined["session"])
        accepted = [one["version"] for one in ada.get(ada.home)["accepted"]]
        assert (ada.get(ada.home)["email"], accepted) == ("ada@example.org", [1])
        assert customer(town, come("ada").json["session"]).account == ada.account
        assert ada.ask("DELETE", f"{ada.home}/identities/acme").is_refusal(409, "last_log_in")

        bob = town.move_in("bob@example.org")
        assert come("bob").json["session"] is None, "the same address links nothing"
        begun = bob.ask("POST", f"{bob.home}/log-ins", {"provider": "acme"}).json
        back = {"log_in": begun["log_in"], **answer(browse(begun["url"], "bob"))}
        assert ada.ask("POST", f"{ada.home}/identities", back).status == 401, "begun for another account"
        begun = bob.ask("POST", f"{bob.home}/log-ins", {"provider": "acme"}).json
        back = {"log_in": begun["log_in"], **answer(browse(begun["url"], "bob"))}
        assert bob.ask("POST", f"{bob.home}/identities", back).status == 201
        town.read_mail("bob@example.org", "log-in was linked")
        elsewhere = customer(town, come("bob").json["session"])
        assert elsewhere.account == bob.account
        assert bob.ask("DELETE", f"{bob.home}/identities/acme").status == 204
        assert elsewhere.ask("GET", bob.home).status == 401, "all log-ins end with it"
        bob = town.log_in("bob@example.org")
        assert bob.get(f"{bob.home}/identities") == []


def answer(back: dict[str, str]) -> dict[str, str]:
    """Of what came back, what the service is told."""
    return {name: back[name] for name in ("state", "code", "iss")}


def customer(town: Town, session: dict[str, str]) -> Customer:
    return Customer(town, int(session["account"]), session["token"])
