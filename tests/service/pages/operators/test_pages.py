"""All pages of operators: who may open them, what they show, and that nothing in them is markup."""

from __future__ import annotations

import re

import pytest

from retention.operators import OperatorRole
from service.agreement import devices, operators, registration
from service.agreement.desk import OPERATOR
from tests.service.api.office import add_owner
from tests.service.api.server import Server
from tests.service.pages import people
from tests.service.pages.operators.conftest import Counts
from tests.service.pages.visitor import Visitor
from tests.service.world import CHUNK_MS, World, clips

PAGES = (
    "/operator",
    "/operator/silent",
    "/operator/accounts",
    "/operator/search",
    "/operator/search?q=1",
    "/operator/money",
    "/operator/money?list=pending",
    "/operator/money?list=open",
    "/operator/notices",
    "/operator/notices?list=queued",
    "/operator/sweep",
    "/operator/erasures",
    "/operator/storage",
    "/operator/accounts/1",
    "/operator/accounts/1/history",
)
HOSTILE = "<script>alert(1)</script>\"'&<img src=x>"


def as_role(server: Server, role: OperatorRole, name: str = "") -> Visitor:
    """Somebody with this role, logged in."""
    name = name or f"{role}-one"
    operators.add(server.desk, OPERATOR, name, role)
    token, _ = operators.token(server.desk, OPERATOR, name, 700.0)
    visitor = Visitor(server)
    done = visitor.fill(visitor.get("/log-in/operator"), "/log-in/operator", token=token)
    assert done.goes_to == "/operator", done.html.text
    return visitor


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_for_operators_alone(server: Server, path: str) -> None:
    shown = people.operator(server)[0].get(path)
    assert shown.status == 200, shown.html.text
    assert not shown.html.inline
    assert shown.source.count('aria-current="page"') == 1
    assert as_role(server, OperatorRole.AUDITOR).get(path).status == 200
    assert people.owner(server)[0].get(path).status == 404
    assert Visitor(server).get(path).goes_to.startswith("/log-in?")


def test_what_an_owner_wrote_is_never_markup(server: Server) -> None:
    owner = add_owner(server)
    registration.update(server.desk, OPERATOR, owner.account, name=HOSTILE)
    device = owner.add_device()
    owner.buy(device)
    assert owner.ask("PATCH", f"/v1/devices/{device}", {"name": HOSTILE[:60], "label": "<b>"}).status == 200
    assert owner.ask("POST", f"{owner.home}/cancellation", {"reason": HOSTILE}).status == 422
    visitor, operator = people.operator(server)
    suspend = operator.ask("POST", f"{owner.home}/suspension", {"reason": HOSTILE})
    assert suspend.status == 200
    shown = visitor.get(f"/operator/accounts/{owner.account}")
    assert HOSTILE in shown.html.text
    for path in (
        f"/operator/accounts/{owner.account}",
        f"/operator/accounts/{owner.account}/history",
        "/operator/accounts",
        f"/operator/search?q={device}",
        f"/operator/search?account={owner.account}&q=%3Cscript",
        "/operator/silent",
        "/operator/notices?list=queued",
        "/operator/search?q=%3Cscript%3Ealert(1)%3C/script%3E",
    ):
        source = visitor.get(path).source
        assert "<script>alert" not in source, path
        assert "<img src=x" not in source, path


def test_the_fleet_shows_rates_refusals_and_silent_cameras(
    server: Server, world: World, counts: Counts
) -> None:
    visitor, _ = people.operator(server)  # the first look, at no workers, is long taken when this is done
    base = {"at_ms": world.clock.ms, "connections": 3, "failed_segments": 0, "problem": ""}
    answers = [[200, "stored", 150], [403, "plan_lapsed", 7]]
    counts["w0"] = base | {"chunks": 150, "chunk_bytes": 5_000_000, "answers": answers}
    problem = {"problem": "store_unavailable: it is down"}
    counts["w1"] = base | problem | {"chunks": 0, "chunk_bytes": 0, "answers": []}
    server.api.watch.note(dict(counts))
    text = visitor.get("/operator").html.text
    assert "chunks a second" in text
    assert "1 of 2 workers take chunks" in text
    assert "Worker w1 takes no chunks: store_unavailable" in text
    assert re.search(r"403 plan_lapsed 7 no plan of this device", text)
    assert "200 stored" not in text, "it is no refusal"
    assert "Account 1 never" in text, "the world's camera may record, and sent nothing"
    assert "Account 1 never" in visitor.get("/operator/silent").html.text
    world.catalog.note_sightings({1: world.clock.ms - 1000}, {})
    assert "There is none here" in visitor.get("/operator/silent").html.text


def test_a_search_finds_by_number_address_and_name(server: Server) -> None:
    owner = add_owner(server)
    device = owner.add_device()
    assert owner.ask("PATCH", f"/v1/devices/{device}", {"name": "Back door"}).status == 200
    visitor, _ = people.operator(server)
    for query in (str(owner.account), "ada@example.org", "ADA@Example.org"):
        found = visitor.get(f"/operator/search?q={query}")
        assert f"/operator/accounts/{owner.account}" in found.html.links, query
    by_device = visitor.get(f"/operator/search?q={device}")
    assert "Back door" in by_device.html.text
    named = visitor.get(f"/operator/search?q=back+d&account={owner.account}")
    assert "Back door" in named.html.text
    assert "Nothing is found" in visitor.get(f"/operator/search?q=front&account={owner.account}").html.text
    assert "Nothing is found" in visitor.get("/operator/search?q=nobody@example.org").html.text
    assert "Nothing is found" in visitor.get("/operator/search?q=999999999999").html.text
    assert "Nothing is found" in visitor.get("/operator/search?q=back&account=99999").html.text
    assert visitor.get("/operator/accounts/99999").status == 404


def test_an_accounts_story_has_what_is_on_file(server: Server, world: World) -> None:
    owner = add_owner(server)
    device = owner.add_device()
    owner.buy(device)
    world.catalog.note_sightings({device: world.clock.ms}, {(device, "clock_ahead"): (4, world.clock.ms)})
    visitor, _ = people.operator(server)
    text = visitor.get(f"/operator/accounts/{owner.account}").html.text
    for word in (
        "ada@example.org",
        "May record",
        "clock_ahead",
        "4 in all",
        "renews itself",
        "charge",
        "subscribed",
    ):
        assert word in text, word
    assert str(devices.show(server.desk, OPERATOR, device).subscriptions[0].plan_id) in text


def test_the_map_of_the_store_has_a_bar_for_each_day(server: Server, world: World) -> None:
    world.keep(*clips(3))
    world.keep(*clips(1, start_ms=clips(1)[0].capture_ms + 100 * CHUNK_MS, expires_on=20_700))
    visitor, _ = people.operator(server)
    shown = visitor.get("/operator/storage")
    widths = [int(width) for width in re.findall(r'<rect width="(\d+)"', shown.source)]
    assert len(widths) == 2
    assert max(widths) == 1000
    assert min(widths) < 1000
    assert "4 September 2026" in shown.html.text
