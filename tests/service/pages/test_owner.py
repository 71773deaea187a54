"""What owners do with pages: from registration to the end of the account."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import pytest

from retention.money import Money
from service.agreement import closing
from service.agreement.desk import OPERATOR
from service.pages.filters import instant, money, size
from storage.days import MS_PER_DAY
from tests.service.api.office import PASSWORD, code_of
from tests.service.api.server import Server
from tests.service.pages import people
from tests.service.pages.visitor import Visitor
from tests.service.world import NOON_MS, World, clips

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
PAGES = ("", "/plan", "/set-up", "/settings", f"/range?from={NOON_MS - 10}&to={NOON_MS}")


def test_somebody_registers_activates_and_logs_in(server: Server, visitor: Visitor) -> None:
    page = visitor.get("/register")
    fields = {"name": "Bea", "email": "bea@example.org", "password": PASSWORD}
    refused = visitor.fill(page, "/register", **fields)
    assert refused.status == 422
    assert "accept it" in refused.html.text
    assert refused.form("/register").fields["email"] == "bea@example.org"
    done = visitor.fill(page, "/register", accepts="1", **fields)
    account = int(done.goes_to.rpartition("=")[2])
    page = visitor.follow(done)
    early = visitor.fill(visitor.get("/log-in"), "/log-in", login=str(account), password=PASSWORD)
    assert early.status == 403
    assert f"/activate?account={account}" in early.html.links
    assert visitor.fill(page, "/activate", code="AAAA-AAAA-AAAA").status == 422
    assert visitor.fill(page, "/activate/again").goes_to.startswith("/activate?")
    done = visitor.fill(page, "/activate", code=code_of(server, account))
    assert "account is active" in visitor.follow(done).html.text
    done = visitor.fill(visitor.get("/log-in"), "/log-in", login="bea@example.org", password=PASSWORD)
    page = visitor.follow(done)
    assert "Three steps to the first picture" in page.html.text


def test_a_forgotten_password(server: Server) -> None:
    _, person = people.owner(server)
    visitor = Visitor(server)
    page = visitor.get("/password")
    for login in ("ada@example.org", "nobody@example.org"):  # one can't tell which is there
        assert visitor.fill(page, "/password", login=login).goes_to == "/password/new?said=code_sent"
    page = visitor.get("/password/new")
    code = code_of(server, person.account, "password")
    refused = visitor.fill(
        page, "/password/new", login="ada@example.org", code="X", password="a new long one"
    )
    assert refused.status == 422
    done = visitor.fill(page, "/password/new", login="ada@example.org", code=code, password="a new long one")
    assert done.goes_to == "/log-in?said=password_set"
    done = visitor.fill(visitor.get("/log-in"), "/log-in", login="ada@example.org", password="a new long one")
    assert done.goes_to == "/cameras"


def test_a_new_camera_shows_its_token_once(server: Server) -> None:
    visitor, person = people.owner(server)
    done = visitor.fill(visitor.get("/cameras/new"), "/cameras/new")
    shown = visitor.get(done.goes_to)
    device = int(re.findall(r"/cameras/(\d+)/set-up", done.goes_to)[0])
    token = person.get(f"/v1/devices/{device}/token")["token"]
    line = html.unescape(shown.source)
    assert shown.html.text.count(token) >= 2
    assert f"http://{device}:{token}@127.0.0.1:8080/v1/devices/{device}/live/cam.m3u8" in line
    assert "-f fifo -fifo_format hls" in line
    assert "<svg" in shown.source
    assert token not in visitor.get(f"/cameras/{device}/set-up").source
    # The address shows it to nobody else, and not for long.
    other, _ = people.owner(server, "bob")
    assert other.get(done.goes_to).status == 404
    again = Visitor(server)
    again.fill(again.get("/log-in"), "/log-in", login=str(person.account), password=PASSWORD)
    assert token not in again.get(done.goes_to).source
    server.world.clock.ms += 600_000
    assert token not in visitor.get(done.goes_to).source


def test_where_cameras_send_is_said_as_configured(world: World) -> None:
    with Server(world, ingest_url="https://in.example") as server:
        visitor, _ = people.owner(server)
        done = visitor.fill(visitor.get("/cameras/new"), "/cameras/new")
        assert "https://2:" in visitor.get(done.goes_to).source
        assert "@in.example/v1/devices/2/live" in visitor.get(done.goes_to).source
        # A made-up Host is not echoed.
    with Server(world) as server:
        visitor.server = server
        assert "evil" not in visitor.get("/cameras/2/set-up", Host="evil<script>").source


def test_what_people_write_is_never_markup(server: Server) -> None:
    visitor, person = people.owner(server)
    device = person.add_device()
    settings = visitor.get(f"/cameras/{device}/settings")
    done = visitor.fill(settings, f"/cameras/{device}/name", name=HOSTILE, label=HOSTILE)
    assert done.goes_to == f"/cameras/{device}/settings?said=saved"
    done = visitor.fill(visitor.get("/account"), "/account/name", name=HOSTILE)
    assert done.goes_to == "/account?said=saved"
    for path in ("/cameras", "/account", "/account/history", *(f"/cameras/{device}{page}" for page in PAGES)):
        shown = visitor.get(path)
        assert shown.status == 200, path
        assert "<img src=x" not in shown.source
        assert not shown.html.inline
        assert (
            "49" not in re.sub(r"[0-9a-f]{16}", "", shown.html.text.replace("{{7*7}}", ""))
            or path != "/cameras"
        )
    assert HOSTILE in visitor.get("/cameras").html.text
    assert (
        visitor.get(f"/cameras/{device}/settings").form(f"/cameras/{device}/name").fields["name"] == HOSTILE
    )


def test_what_is_somebody_elses_is_not_there(server: Server) -> None:
    _, ada = people.owner(server)
    device = ada.add_device()
    plan = ada.buy(device)["subscription"]["subscription"]
    visitor, _ = people.owner(server, "bob")
    for page in (*PAGES, "/spans?from=0&to=1000", "/days?starts=0,1000", "/buy?package=annual"):
        assert visitor.get(f"/cameras/{device}{page}").status == 404, page
    assert visitor.get(f"/plans/{plan}/cancel").status == 404
    own = visitor.get("/account").form("/account/name").fields["form"]
    for path in ("token", "end", "name", "trial", "buy", "abandon", "delete"):
        fields = {"form": own, "from": "0", "to": "9", "sure": "1", "key": "0" * 32, "minor": "1"}
        fields |= {"currency": "USD", "package": "annual", "method": "m"}
        assert visitor.post(f"/cameras/{device}/{path}", fields).status == 404, path
    assert visitor.post(f"/plans/{plan}/cancel", {"form": own, "sure": "1"}).status == 404


def test_every_form_wants_its_token(server: Server) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.buy(device)
    paths = [
        f"/cameras/{device}/{name}" for name in ("token", "end", "name", "trial", "abandon", "delete", "buy")
    ]
    paths += ["/account/name", "/account/address", "/account/address/confirm", "/account/password"]
    paths += ["/account/consent", "/account/exports", "/account/methods", "/account/methods/remove"]
    paths += ["/account/close", "/account/close/withdraw", "/cameras/new", "/log-out", "/plans/2/cancel"]
    before = ada.get(f"{ada.home}/events")["items"]
    for path in paths:
        assert visitor.post(path, {"form": "A" * 86, "sure": "1"}).status == 403, path
    assert ada.get(f"{ada.home}/events")["items"] == before


def test_trial_purchase_and_cancellation_in_two_steps(server: Server) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    plan = f"/cameras/{device}/plan"
    page = visitor.get(plan)
    assert "5.99 USD" in page.html.text.replace("\u00a0", " ")
    assert "59.99 USD" in page.html.text.replace("\u00a0", " ")
    page = visitor.follow(visitor.fill(page, f"/cameras/{device}/trial"))
    assert "The trial has begun" in page.html.text
    assert "2026-07-20 00:00:00 UTC" in page.html.text
    assert f"/cameras/{device}/trial" not in [form.action for form in page.html.forms]
    page = visitor.get(f"/cameras/{device}/buy?package=annual")
    pay = page.form(f"/cameras/{device}/buy")
    other_sum = visitor.post(pay.action, pay.fields | {"minor": "1"})
    assert other_sum.status == 422
    done = visitor.post(pay.action, pay.fields)
    assert done.goes_to == f"{plan}?said=bought"
    assert visitor.post(pay.action, pay.fields).goes_to == f"{plan}?said=bought", "the same purchase"
    [sub] = [one for one in ada.get(f"/v1/devices/{device}/subscriptions") if one["plan"] == "annual"]
    assert len(ada.get(f"{ada.home}/payments")["items"]) == 1
    cancel = f"/plans/{sub['subscription']}/cancel"
    page = visitor.get(cancel)
    text = page.html.text.replace("\u00a0", " ")
    quote = ada.get(f"/v1/subscriptions/{sub['subscription']}/cancellation")
    for outcome in (quote["keep"], quote["cancel"]):
        assert f"{outcome['refund']['minor'] / 100:.2f} USD" in text
    assert "If you keep it" in text
    assert "If you cancel it now" in text
    assert visitor.fill(page, cancel).status == 422, "the box was not ticked"
    changed = visitor.fill(page, cancel, sure="1", outcome="2026-01-01 1 USD")
    assert changed.status == 422
    assert ada.get(f"/v1/subscriptions/{sub['subscription']}/cancellation")
    done = visitor.fill(page, cancel, sure="1")
    assert done.goes_to == f"{plan}?said=cancelled"
    payments = visitor.get("/payments").html.text
    assert "Given back" in payments
    assert visitor.fill(page, cancel, sure="1").status == 409


def test_a_timeline_is_spans_and_a_calendar_days(server: Server, world: World) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.buy(device)
    expires_on = NOON_MS // MS_PER_DAY + 8
    stored = [replace(clip, expires_on=expires_on) for clip in clips(3) + clips(2, start_ms=NOON_MS - 60_000)]
    world.keep(*stored, device=device)
    day = NOON_MS // MS_PER_DAY * MS_PER_DAY
    shown = visitor.get(f"/cameras/{device}/spans?from={day}&to={day + MS_PER_DAY}")
    told = json.loads(shown.source)
    assert told["spans"] == [[NOON_MS - 3_600_000, NOON_MS - 3_588_000], [NOON_MS - 60_000, NOON_MS - 52_000]]
    assert told["next"] is None
    starts = ",".join(str(day + n * MS_PER_DAY) for n in range(-1, 3))
    assert json.loads(visitor.get(f"/cameras/{device}/days?starts={starts}").source) == {
        "kept": [False] * 3,
        "days": [False, True, False],
    }
    # The token of the page plays, and ends soon.
    played = server.get(
        f"/v1/devices/{device}/playlist.m3u8?from={day}&to={NOON_MS}&token={told['token']}", token=None
    )
    assert played.status == 200
    world.clock.ms += 7 * 3_600_000
    played = server.get(
        f"/v1/devices/{device}/playlist.m3u8?from={day}&to={NOON_MS}&token={told['token']}", token=None
    )
    assert played.status == 401
    for query in ("from=0&to=0", f"from=0&to={MS_PER_DAY * 2}", "from=x&to=9", "from=5"):
        assert visitor.get(f"/cameras/{device}/spans?{query}").status == 400
    for query in ("", "starts=1", "starts=2,1", "starts=" + ",".join(map(str, range(60)))):
        assert visitor.get(f"/cameras/{device}/days?{query}").status == 400


def test_a_range_is_deleted_after_a_tick(server: Server, world: World) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.buy(device)
    stored = [replace(clip, expires_on=NOON_MS // MS_PER_DAY + 8) for clip in clips(3)]
    world.keep(*stored, device=device)
    begin = stored[0].capture_ms
    page = visitor.get(f"/cameras/{device}/range?from={begin}&to={begin + 4001}")
    assert visitor.fill(page, f"/cameras/{device}/delete").status == 422
    assert len(ada.get(f"/v1/devices/{device}/recordings")["spans"][0]["chunks"]) == 3
    done = visitor.fill(page, f"/cameras/{device}/delete", sure="1", reason="a visitor")
    assert done.goes_to.startswith(f"/cameras/{device}?")
    assert len(ada.get(f"/v1/devices/{device}/recordings")["spans"][0]["chunks"]) == 1


def test_when_the_plan_has_lapsed_the_page_says_why_nothing_plays(server: Server, world: World) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.once(f"/v1/devices/{device}/trial")
    world.clock.ms += 15 * MS_PER_DAY
    visitor.fill(visitor.get("/log-in"), "/log-in", login="ada@example.org", password=PASSWORD)
    page = visitor.get(f"/cameras/{device}")
    assert "Nothing plays" in page.html.text
    assert "plan of this camera has ended" in page.html.text
    assert "data-player" not in page.source
    assert visitor.get(f"/cameras/{device}/spans?from=0&to=1000").status == 403
    assert "Plan has ended" in visitor.get("/cameras").html.text


def test_addresses_password_consents_and_data(server: Server) -> None:
    visitor, ada = people.owner(server)
    page = visitor.get("/account")
    forms = [form for form in page.html.forms if form.action == "/account/address"]
    done = visitor.post("/account/address", forms[0].fields | {"address": "new@example.org"})
    assert done.goes_to == "/account?said=address_asked"
    confirm = next(form for form in page.html.forms if form.action == "/account/address/confirm")
    assert visitor.post(confirm.action, confirm.fields | {"code": "AAAA"}).status == 422
    code = code_of(server, ada.account, "email")
    assert visitor.post(confirm.action, confirm.fields | {"code": code}).goes_to.endswith("address_changed")
    assert "new@example.org" in visitor.get("/account").html.text
    done = visitor.fill(page, "/account/consent", given="yes")
    assert "Noted" in visitor.follow(done).html.text
    assert ada.get(f"{ada.home}/consents")[0]["given"] is True
    assert visitor.fill(page, "/account/exports").goes_to == "/account?said=export_asked"
    assert visitor.fill(page, "/account/exports").status == 409
    refused = visitor.fill(page, "/account/password", old="wrong", new="another long one")
    assert refused.status == 401
    done = visitor.fill(page, "/account/password", old=PASSWORD, new="another long one")
    assert done.goes_to == "/log-in?said=password_set"
    assert visitor.get("/account").goes_to.startswith("/log-in")


def test_closing_the_account_names_all_that_is_in_the_way_and_ends_the_log_in(
    server: Server, world: World
) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.buy(device)
    page = visitor.get("/account/close")
    assert "less than 7 days old" in page.html.text
    assert "Cancel the plan" in page.html.text
    assert "/account/close" not in [form.action for form in page.html.forms]
    bob, person = people.owner(server, "bob")
    world.clock.ms += 8 * MS_PER_DAY
    bob.fill(bob.get("/log-in"), "/log-in", login="bob@example.org", password=PASSWORD)
    page = bob.get("/account/close")
    assert "Nothing stands in the way" in page.html.text
    assert bob.fill(page, "/account/close").status == 422
    page = bob.follow(bob.fill(page, "/account/close", sure="1", reason="moving"))
    assert "The operator looks at it" in page.html.text
    page = bob.follow(bob.fill(page, "/account/close/withdraw"))
    page = bob.follow(bob.fill(page, "/account/close", sure="1"))
    closing.approve(server.desk, OPERATOR, person.account)
    assert "is approved" in bob.get("/account/close").html.text


def test_what_is_left_is_found_by_number(server: Server, world: World) -> None:
    visitor = Visitor(server)
    assert "no erasure of this camera" in visitor.get("/erased?camera=1").html.text
    world.terminate(1)
    shown = visitor.get("/erased?camera=1").html.text
    assert "Keys destroyed" in shown
    assert visitor.get("/erased?camera=x").status == 200


def test_times_and_money_are_written_exactly() -> None:
    assert "2026-07-20 00:00:00 UTC" in instant(1_784_505_600_000)
    assert 'datetime="2026-07-20T00:00:00.000Z"' in instant(1_784_505_600_000)
    assert money(Money(-123_456_789, "USD")) == '<span class="money">−1\u202f234\u202f567.89\u00a0USD</span>'
    assert "5\u00a0JPY" in money(Money(5, "JPY"))
    assert [size(count) for count in (999, 1000, 12_345_678)] == ["999 bytes", "1 kB", "12.3 MB"]


@pytest.mark.parametrize(
    "path", ["/account", "/account/history", "/account/methods", "/payments", "/account/close"]
)
def test_pages_of_an_account_want_a_log_in(visitor: Visitor, path: str) -> None:
    assert visitor.get(path).goes_to == f"/log-in?said=log_in_first&next={path}"


def test_a_shared_range_is_seen_without_a_log_in_until_the_link_ends(server: Server, world: World) -> None:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.buy(device)
    assert ada.ask("PATCH", f"/v1/devices/{device}", {"name": "Nursery"}).status == 200
    stored = [replace(clip, expires_on=NOON_MS // MS_PER_DAY + 8) for clip in clips(5)]
    world.keep(*stored, device=device)
    begin, end = stored[1].capture_ms, stored[3].capture_ms
    page = visitor.get(f"/cameras/{device}/range?from={begin}&to={end}")
    assert visitor.fill(page, f"/cameras/{device}/shares", hours="99999").status == 422
    done = visitor.fill(page, f"/cameras/{device}/shares")
    page = visitor.get(done.goes_to)
    token = re.findall(r"/s/(cks_[A-Za-z0-9_-]+)", page.source)[0]
    assert token not in visitor.get(f"/cameras/{device}/shares").source, "it is told once"
    stranger = Visitor(server)
    shown = stranger.get(f"/s/{token}")
    assert shown.status == 200
    assert "Nursery" not in shown.source
    told = json.loads(stranger.get(f"/s/{token}/spans?from={begin - 60_000}&to={end + 60_000}").source)
    assert told["spans"] == [[begin, end]]
    assert stranger.get(f"/cameras/{device}").goes_to.startswith("/log-in")
    assert visitor.fill(page, f"/cameras/{device}/shares/end").goes_to.endswith("said=share_ended")
    assert Visitor(server).get("/s/cks_" + "A" * 64).status == 401
