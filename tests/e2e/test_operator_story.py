"""An operator's day on the pages, against real processes: what waits is decided, a sweep is looked at and run, and an
erasure is proved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.browser import asked_elsewhere, chromium, needs_players
from tests.e2e.customers import Town
from tests.e2e.service import Service, until

pytestmark = [pytest.mark.e2e, needs_players[0]]

LATER = timedelta(days=200)
"""By then what was recorded has expired, whatever plan it was recorded under."""
ERRAND_MS = 30_000
"""For a child of the API process that looks through the catalog."""


def decide(page: Any, title: str, button: str, why: str) -> None:
    """Open what is folded away, say why, and do it."""
    page.locator("summary", has_text=title).first.click()
    form = page.locator("details[open]")
    form.get_by_label("Reason").fill(why)
    with page.expect_navigation():
        form.get_by_role("button", name=button).click()


def logged_in(browser: Any, service: Service, home: str) -> Any:
    service.command("operator", "add", "--name", "ann", "--role", "admin")
    token = service.command("operator", "token", "--name", "ann")["token"]
    page = browser.new_context(timezone_id="UTC").new_page()
    page.goto(f"{home}/log-in/operator")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/operator")
    return page


def test_an_operator_approves_sweeps_and_proves_an_erasure(service: Service) -> None:
    service.init("--test-clock")
    begun_on = datetime.now(UTC).date()
    town = Town(service, begun_on)
    ada, bob = (town.move_in(f"{name}@example.org") for name in ("ada", "bob"))
    cameras = {}
    for owner in (ada, bob):
        camera = cameras[owner.account] = owner.add_camera()
        if owner is ada:
            owner.buy(camera, "annual")
        else:
            owner.once(f"/v1/devices/{camera.number}/trial")
        owner.watch(camera, camera.record())
    town.move_to(begun_on + LATER)
    kept = cameras[ada.account].record()
    bob = town.log_in("bob@example.org")
    asked = bob.ask("POST", f"{bob.home}/cancellation", {"reason": "moving away"})
    assert asked.status == 202, asked
    gone = cameras[bob.account].number
    home = f"http://{service.api[0]}:{service.api[1]}"
    with chromium() as browser:
        page = logged_in(browser, service, home)
        elsewhere = asked_elsewhere(page.context, home)
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))

        page.get_by_role("link", name="1 ask to be closed").click()
        page.get_by_role("link", name=str(bob.account)).first.click()
        decide(page, "Approve the end", "Approve it", "he showed his passport")
        page.get_by_text("Done.").wait_for()
        until(
            lambda: page.reload() and page.get_by_text("Closed", exact=True).count(), "the account has ended"
        )

        page.get_by_role("link", name="Sweep", exact=True).click()
        page.get_by_role("button", name="Dry run: show what it would do").click()
        page.get_by_role("heading", name="What a sweep would do").wait_for(timeout=ERRAND_MS)
        days = page.get_by_role("table").filter(has_text="Segments").last
        assert days.get_by_role("row").count() >= 2, days.inner_text()
        erased = page.get_by_role("region", name="Cameras that are erased")
        assert erased.get_by_role("row").all_inner_texts()[1:] == [f"{gone}\taccount cancelled"]
        assert service.command("sweeps")["sweeps"] == [], "a dry run changes nothing"

        page.get_by_label("Reason").fill("the disk fills")
        page.get_by_role("button", name="Run the sweep that is shown").click()
        page.get_by_role("heading", name="The sweep that ann ran").wait_for(timeout=ERRAND_MS)
        assert page.get_by_role("row", name="Cameras erased 1", exact=True).count() == 1
        [report] = service.command("sweeps")["sweeps"]
        assert report["who"] == "operator ann"
        assert page.get_by_role("region", name="Earlier sweeps").get_by_text("operator ann").count() == 1

        page.get_by_role("link", name="Erasures").click()
        decide(page, "Verify", "Try to decrypt it", "bob asks for it in writing")
        page.get_by_text(f"Camera {gone} is erased.").wait_for(timeout=ERRAND_MS)
        assert "none decrypts" in page.locator("main").inner_text()
        assert page.goto(f"{home}/docs").status == 200
        page.get_by_role("heading", name="Clipkeep").first.wait_for()
        assert (said, elsewhere) == ([], [])
    assert town.log_in("ada@example.org").watch(cameras[ada.account], kept).status == 200
    assert service.stop() == 0
