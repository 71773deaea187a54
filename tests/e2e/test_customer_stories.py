"""What becomes of customers, from registration to the end: over HTTP, with real processes and a clock that is moved."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import pytest

from service.folder import open_folder
from tests.e2e.customers import Customer, Town
from tests.e2e.service import Service, until
from tests.servers.raw_catalogs import files_of_catalog

pytestmark = pytest.mark.e2e

MONTHLY, ANNUAL = 599, 5999
ADA = "ada@example.org"


def test_trial_then_monthly_renewed_twice_cancelled_and_lapsed(service: Service) -> None:
    """Bought on 31 January: months keep the day of the start, clamped to the month's end and back again."""
    town = Town(service.init("--test-clock"), date(2030, 1, 17))
    ada = town.move_in(ADA)
    camera = ada.add_camera()
    assert camera.refused() == "plan_lapsed"

    trial = ada.once(f"/v1/devices/{camera.number}/trial")["subscription"]
    assert (trial["last_day"], trial["retention_days"], trial["fee"]) == ("2030-01-30", 7, None)
    first = camera.record()
    assert ada.watch(camera, first).body == camera.body(first)
    town.move_to(date(2030, 1, 30), 23.9)
    last_of_trial = camera.record()
    town.move_to(date(2030, 1, 31))
    assert camera.refused() == "plan_lapsed"
    assert ada.watch(camera, last_of_trial).is_refusal(403, "plan_lapsed")

    plan = ada.buy(camera, "monthly")
    assert (plan["starts_on"], plan["last_day"], plan["renews"]) == ("2030-01-31", "2030-02-27", True)
    paid = camera.record()
    assert ada.watch(camera, paid).body == camera.body(paid)
    assert ada.watch(camera, last_of_trial).status == 200, "what the trial recorded keeps its 7 days"
    assert ada.watch(camera, first).is_refusal(410, "expired")

    for due, last_day in ((date(2030, 2, 26), "2030-03-30"), (date(2030, 3, 29), "2030-04-29")):
        town.move_to(due - timedelta(days=5))
        assert town.renew() == 0, "not due yet"
        town.move_to(due)
        assert town.renew() == 1
        assert town.renew() == 0, "once"
        ada = town.log_in(ADA)
        assert ada.get(f"/v1/devices/{camera.number}")["entitled_through"] == last_day
    assert ada.payments() == [("charge", MONTHLY, "done")] * 3
    town.move_to(date(2030, 4, 10))
    camera.record()

    page = f"/v1/subscriptions/{plan['subscription']}/cancellation"
    cancelled = ada.once(page, {"reason": "moving"})
    assert (cancelled["last_day"], cancelled["refund"]["minor"]) == ("2030-04-29", 0)
    assert "2030-04-30 00:00 UTC" in town.read_mail(ADA, "cancelled")
    town.move_to(date(2030, 4, 29), 23.9)
    ada = town.log_in(ADA)
    last = camera.record()
    assert ada.watch(camera, last).body == camera.body(last)
    town.move_to(date(2030, 4, 30), 0.01)
    assert camera.refused() == "plan_lapsed"
    assert ada.watch(camera, last).is_refusal(403, "plan_lapsed")
    assert town.renew() == 0
    assert ada.payments() == [("charge", MONTHLY, "done")] * 3
    assert ada.get(f"/v1/devices/{camera.number}")["state"] == "lapsed"
    _check(service)


def test_annual_cancelled_in_the_fifth_month(service: Service) -> None:
    town = Town(service.init("--test-clock"), date(2030, 3, 15))
    ada = town.move_in(ADA)
    camera = ada.add_camera()
    plan = ada.buy(camera, "annual")
    assert (plan["starts_on"], plan["last_day"]) == ("2030-03-15", "2031-03-14")
    camera.record()
    town.move_to(date(2030, 7, 20))
    ada = town.log_in(ADA)
    page = f"/v1/subscriptions/{plan['subscription']}/cancellation"
    choice = ada.get(page)
    refund = ANNUAL - 5 * MONTHLY
    assert (choice["keep"]["last_day"], choice["keep"]["refund"]["minor"]) == ("2031-03-14", 0)
    assert (choice["cancel"]["last_day"], choice["cancel"]["refund"]["minor"]) == ("2030-08-14", refund)
    done = ada.once(page, {})
    assert (done["last_day"], done["refund"]["minor"]) == ("2030-08-14", refund)
    assert ada.payments() == [("charge", ANNUAL, "done"), ("refund", refund, "done")]
    with open_folder(service.data, environ=service.environ) as opened:
        records = list(opened.payment_records().all())
    assert sorted((record.kind, record.minor) for record in records) == [
        ("charge", ANNUAL),
        ("refund", refund),
    ]

    town.move_to(date(2030, 8, 14), 23.9)
    ada = town.log_in(ADA)
    last = camera.record()
    assert ada.watch(camera, last).body == camera.body(last)
    town.move_to(date(2030, 8, 15), 0.01)
    assert camera.refused() == "plan_lapsed"
    assert ada.watch(camera, last).is_refusal(403, "plan_lapsed")
    _check(service)


def reasons(who: Customer, account: int) -> list[str]:
    """Why it can't be cancelled now; asking for it says the same, and changes nothing."""
    page = f"/v1/accounts/{account}/cancellation"
    shown = [reason["code"] for reason in who.get(page)["reasons"]]
    if shown:
        refused = who.ask("POST", page, {"reason": "moving"})
        assert refused.is_refusal(422, "cancellation_blocked")
        assert [reason["code"] for reason in refused.json["reasons"]] == shown
    assert who.get(page)["closing"]["state"] == "none"
    return shown


def test_an_account_is_cancelled_and_erased_and_its_address_free_again(service: Service) -> None:
    town = Town(service.init("--test-clock"), date(2030, 5, 1))
    operator = town.operator()
    account = town.register(ADA).json["account"]
    assert reasons(operator, account) == ["not_activated", "too_young"]
    town.activate(account, ADA)
    ada = town.log_in(ADA)
    assert reasons(ada, account) == ["too_young"]
    camera = ada.add_camera()
    plan = ada.buy(camera, "monthly")
    watched = camera.record()
    town.move_to(date(2030, 5, 9))

    assert reasons(ada, account) == ["ongoing_subscription"]
    ada.once(f"/v1/subscriptions/{plan['subscription']}/cancellation", {})
    assert reasons(ada, account) == ["ongoing_subscription"], "it runs until the end of the month"
    town.move_to(date(2030, 6, 1))
    ada = town.log_in(ADA)
    assert reasons(ada, account) == []
    for kind, code in (
        ("dispute", "dispute"),
        ("linked_account", "linked_account"),
        ("balance", "balance"),
        ("transaction", "unfinished_transaction"),
        ("other", "other"),
    ):
        blocked = operator.ask("POST", f"{ada.home}/blocks", {"kind": kind, "detail": "as was said"})
        assert reasons(ada, account) == [code]
        lifted = operator.ask("DELETE", f"{ada.home}/blocks/{blocked.json['block']}")
        assert lifted.status == 200
    ada.ask("PATCH", ada.home, {"email": "ada@elsewhere.example"})
    assert reasons(ada, account) == ["ongoing_change"]
    code = re.search(
        r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b", town.read_mail("ada@elsewhere.example", "Confirm")
    )
    assert code is not None
    assert ada.ask("POST", f"{ada.home}/addresses/email", {"code": code[0]}).status == 200
    assert reasons(ada, account) == []

    assert ada.ask("POST", f"{ada.home}/cancellation", {"reason": "moving"}).status == 202
    assert operator.ask("POST", f"{ada.home}/cancellation/approval").status == 200
    until(lambda: operator.get(ada.home)["state"] == "cancelled", "it takes effect with its notice")
    assert "is cancelled" in [subject for subject, _ in town.mail("ada@elsewhere.example")][-1]
    assert operator.get(ada.home)["cancelled_on"] == "2030-06-01"
    _is_erased(town, ada, operator)
    assert town.service.put(camera.device, town.now_ms(), camera.body(1)).status == 403
    assert ada.watch(camera, watched).is_refusal(401, "session_ended")
    _check(service)

    for days, free in ((9, False), (10, False), (11, True)):
        town.move_to(date(2030, 6, 1) + timedelta(days=days), 0.01 if free else 23.9)
        assert town.register("ada@elsewhere.example").status == 201, "the answer tells nothing"
        subject = "activation code" if free else "can't be used yet"
        until(lambda subject=subject: subject in last_mail(town), f"mail about {subject!r}", every_s=0.05)
    assert town.register(ADA).status == 201, "the address before that one was given up, and is free"


def last_mail(town: Town) -> str:
    return [subject for subject, _ in town.mail("ada@elsewhere.example")][-1]


def _is_erased(town: Town, ada: Customer, operator: Customer) -> None:
    """Nobody can log in, nothing is left of it but its number, and its recordings decrypt for nobody."""
    assert ada.ask("GET", ada.home).is_refusal(401, "session_ended")
    body = {"login": "ada@elsewhere.example", "password": "correct horse battery"}
    assert town.ask("POST", "/v1/sessions", body).is_refusal(401, "bad_credentials")
    left = operator.get(ada.home)
    assert (left["email"], left["name"], left["activated_ms"], left["closing"]["reason"]) == (
        None,
        "",
        None,
        "",
    )
    for kind in ("events", "payments"):
        assert operator.get(f"{ada.home}/{kind}")["items"] == []
    assert operator.get(f"/v1/notices?account={ada.account}")["items"] == []
    erasures = town.service.command("erasure", "list")["erasures"]
    assert len(erasures) == 1
    assert "example" not in json.dumps(erasures)
    files = files_of_catalog(town.service.data)
    assert files
    assert [path.name for path in files if b"elsewhere" in path.read_bytes()] == []


def _check(service: Service) -> None:
    report = service.command("check", "--deep")
    assert report["broken"] == []
