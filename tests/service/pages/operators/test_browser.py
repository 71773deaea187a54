"""The pages of operators in a real Chromium: approve, dry run, sweep; and what axe says of each page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.agreement import devices, operators, records
from service.agreement.desk import OPERATOR
from storage.days import MS_PER_DAY
from storage.rows.accounts import ClosingState
from tests.e2e.browser import CHROMIUM, MODULES, chromium
from tests.service.api.office import add_owner
from tests.service.api.server import Server
from tests.service.pages import people
from tests.service.pages.operators.conftest import Counts
from tests.service.world import World, clips

AXE = MODULES / "axe-core" / "axe.min.js"
SCREENSHOTS = os.environ.get("CLIPKEEP_TEST_SCREENSHOTS", "")
"""Where pictures of the pages are put; nowhere unless it is said."""
WIDTHS = {390: "phone", 1280: "desk"}

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium"),
    pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm ci --prefix tests/players"),
]


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def logged_in(server: Server, browser: Any, **options: Any) -> Any:
    """A page of an operator called ann."""
    if not any(one.name == "ann" for one in operators.listed(server.desk)):
        operators.add(server.desk, OPERATOR, "ann", operators.OperatorRole.ADMIN)
    token, _ = operators.token(server.desk, OPERATOR, "ann", 700.0)
    page = browser.new_context(bypass_csp=True, **options).new_page()
    page.goto(f"{server.base}/log-in/operator")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/operator")
    return page


def lived_in(server: Server, world: World) -> int:
    """Something on each page. Returns the account of an owner who asks for the end."""
    world.keep(*clips(3, size=188_000))
    world.keep(*clips(1, start_ms=clips(1)[0].capture_ms + 900_000, size=376_000, expires_on=20_690))
    owner = add_owner(server)
    device = owner.add_device()
    owner.buy(device)
    assert owner.ask("PATCH", f"/v1/devices/{device}", {"name": "Back door", "label": "garden"}).status == 200
    other = add_owner(server, "bob")
    world.catalog.note_sightings({}, {(device, "clock_ahead"): (4, world.clock.ms - 3_600_000)})
    devices.terminate(server.desk, OPERATOR, 1, why="broken", erase=True)
    world.clock.ms += 40 * MS_PER_DAY
    token = people.owner_token(server, "bob")
    asked = server.ask(
        "POST", f"/v1/accounts/{other.account}/cancellation", {"reason": "moving away"}, token=token
    )
    assert asked.status == 202
    return other.account


def test_an_operator_approves_looks_at_a_dry_run_and_sweeps(
    server: Server, world: World, browser: Any
) -> None:
    account = lived_in(server, world)
    page = logged_in(server, browser)
    page.get_by_role("link", name="1 ask to be closed").click()
    page.get_by_role("link", name=f"{account}: bob").click()
    page.get_by_text("Approve the end").click()
    approve = page.locator("details[open]")
    approve.get_by_label("Reason").fill("he showed his passport")
    approve.get_by_role("button", name="Approve it").click()
    page.get_by_text("Done.").wait_for()
    assert records.account(server.desk, OPERATOR, account).closing is ClosingState.APPROVED

    page.get_by_role("link", name="Sweep", exact=True).click()
    page.get_by_role("button", name="Dry run: show what it would do").click()
    page.get_by_role("heading", name="What a sweep would do").wait_for()
    assert page.get_by_role("row", name="Days that end 1", exact=True).count() == 1
    assert world.catalog.last_sweep() is None
    page.get_by_label("Reason").fill("the disk fills")
    page.get_by_role("button", name="Run the sweep that is shown").click()
    page.get_by_role("heading", name="The sweep that ann ran").wait_for()
    report = world.catalog.last_sweep()
    assert report is not None
    assert report["who"] == "operator ann"
    assert len(report["days"]) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    server: Server, world: World, counts: Counts, browser: Any, scheme: str
) -> None:
    account = lived_in(server, world)
    answers = [[200, "stored", 90_000], [403, "plan_lapsed", 12], [409, "conflict", 3]]
    worker = {"at_ms": world.clock.ms, "connections": 41, "failed_segments": 0, "problem": ""}
    counts["w0"] = worker | {"chunks": 90_000, "chunk_bytes": 45 * 10**9, "answers": answers}
    counts["w1"] = worker | {
        "chunks": 0,
        "chunk_bytes": 0,
        "answers": [],
        "problem": "store_unavailable: down",
    }
    server.api.watch.note(dict(counts))
    paths = {
        "operation": "/operator",
        "accounts": "/operator/accounts",
        "search": "/operator/search?q=ada@example.org",
        "account": f"/operator/accounts/{account - 1}",
        "account-asking": f"/operator/accounts/{account}",
        "money": "/operator/money",
        "notices": "/operator/notices?list=queued",
        "sweep": "/operator/sweep",
        "erasures": "/operator/erasures",
        "storage": "/operator/storage",
    }
    page = logged_in(server, browser, color_scheme=scheme)
    page.goto(f"{server.base}/operator/sweep")
    page.get_by_role("button", name="Dry run: show what it would do").click()
    page.get_by_role("heading", name="What a sweep would do").wait_for()
    for width, where in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        for name, path in paths.items():
            page.goto(f"{server.base}{path}")
            for summary in page.locator("summary").all()[:2]:
                summary.click()
            wide = page.evaluate("document.documentElement.scrollWidth")
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS, f"{name}-{where}-{scheme}.png"), full_page=True)
            page.add_script_tag(path=str(AXE))
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            grave = [
                (each["id"], node["html"][:200])
                for each in found["violations"]
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"]
            ]
            assert grave == [], (path, width)
            assert wide <= width, f"{path} is {wide} px wide at {width}"
