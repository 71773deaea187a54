"""Log-in from elsewhere on the pages, in a real Chromium, at a real provider: nothing on the way is stopped."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.e2e.browser import chromium, looked_at, needs_axe
from tests.e2e.service import Service
from tests.servers.openid import needs_npm_provider, npm_provider

pytestmark = [pytest.mark.e2e, needs_npm_provider, *needs_axe]


def at_provider(page: Any, name: str) -> None:
    """Log in at the provider and allow what it asks."""
    page.locator("[name=login]").fill(name)
    page.locator("[name=password]").fill("x")
    page.locator("[type=submit]").click()
    page.get_by_role("button", name="Continue").click()


def strangers(browser: Any, service: Service, home: str) -> None:
    """What is shown before anybody is here, to owners and to who runs the service."""
    for scheme in ("light", "dark"):
        page = browser.new_context(bypass_csp=True, color_scheme=scheme).new_page()
        for name, path in {
            "front": "/",
            "log-in": "/log-in",
            "register": "/register",
            "token": "/log-in/operator",
        }.items():
            looked_at(page, f"{name}-{scheme}", f"{home}{path}")
        token = service.command("operator-token")["token"]
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{home}/operator")
        looked_at(page, f"first-run-{scheme}", f"{home}/operator")


def test_a_newcomer_registers_logs_in_and_links(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = f"http://127.0.0.1:{port}"
    back = f"{home}/log-in/elsewhere/back"
    with npm_provider(back) as issuer, chromium() as browser:
        service.configure(
            openid_providers=f"acme {issuer} clipkeep",
            openid_secrets="acme secret-of-clipkeep",
            openid_redirect_uris=back,
            openid_trusted_emails="acme",
        )
        service.init()
        service.start(ports=(0, port))
        strangers(browser, service, home)
        page = browser.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda one: said.append(one.text) if "Content Security" in one.text else None)
        page.goto(f"{home}/register")
        page.get_by_role("button", name="Register with acme").press("Enter")
        at_provider(page, "ada")
        page.wait_for_url(f"{home}/register/elsewhere")
        assert page.get_by_label("E-mail address").input_value() == "ada@example.org"
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="Register").click()
        page.wait_for_url(f"{home}/cameras")
        page.get_by_role("button", name="Log out").click()
        page.goto(f"{home}/account")
        page.get_by_role("button", name="Log in with acme").click()
        page.wait_for_url(f"{home}/account")
        assert page.get_by_text("acme: linked").is_visible()
        page.locator("summary", has_text="Remove acme").click()
        page.get_by_role("button", name="Remove acme").click()
        assert page.get_by_text("It is the only way in").is_visible()
        assert said == []
