"""The commands about plans and money, on what an owner bought: `plan list`, `plan cancel`, `renew`, `refund`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from retention.plans import PlanKind, add_months
from service.agreement import devices, purchases
from service.agreement.desk import Actor, Desk
from service.agreement.payments import PaymentUnavailable
from service.agreement.renewing import RenewReport
from service.commands.store import classes_in_use
from service.folder import open_folder
from service.metrics import render
from storage.rows.accounts import AccountRow, AccountState
from tests.servers.catalogs import on_postgres
from tests.service.test_cli import Done, Run, data, made, run

__all__ = ["data", "made", "run"]

DEVICE = 2
"""Ada's; device 1 is the operators'."""


@contextmanager
def desk_of(folder: Path) -> Iterator[Desk]:
    with open_folder(folder) as opened:
        yield opened.desk


@pytest.fixture
def ada(made: Path) -> Actor:
    """An owner with a device."""
    with desk_of(made) as desk:
        row = AccountRow(0, "owner", "Ada", 1, AccountState.ACTIVE, email="ada@example.org", activated_ms=1)
        owner = Actor("owner", desk.write(lambda books: books.add_account(row), new_accounts=1).account)
        assert devices.add_device(desk, owner, owner.account).device == DEVICE
    return owner


def buy(made: Path, ada: Actor, kind: PlanKind, reference: str = "r1") -> int:
    """The plan's number."""
    with desk_of(made) as desk:
        bought = purchases.buy(desk, ada, DEVICE, kind, method="card", reference=reference)
    return bought.subscription.plan_id


def metrics(made: Path) -> list[str]:
    """What /metrics says of payments."""
    with open_folder(made) as opened:
        text = render(opened.folder.run, opened.catalog, opened.clock, {}).decode()
    names = ("clipkeep_oldest_pending", "clipkeep_pending_payments", "clipkeep_failed_refunds")
    found = {name: line for name in names for line in text.splitlines() if line.startswith(name)}
    return [found[name] for name in names]


def today() -> date:
    return datetime.now(UTC).date()


def in_a_month(months: int = 1) -> date:
    return add_months(today(), months)


Go = Any


@pytest.fixture
def go(run: Run, made: Path) -> Go:
    """Run a command that must be done; its document."""

    def one(*words: object, code: int = 0) -> Any:
        done = run(*words, "--data", made, "--json")
        assert done.code == code, done
        return done.document

    return one


def table(run: Run, made: Path, *words: object) -> Done:
    done = run(*words, "--data", made)
    assert done.code == 0, done
    return done


def test_what_an_owner_has(run: Run, go: Go, made: Path, ada: Actor) -> None:
    monthly, annual = (buy(made, ada, kind, kind) for kind in (PlanKind.MONTHLY, PlanKind.ANNUAL))
    first, second = go("plan", "list", "--device", DEVICE)["plans"]
    assert [plan["plan_id"] for plan in (first, second)] == [monthly, annual]
    assert (first["plan"], first["renews"], first["fee"]) == (
        "monthly",
        False,  # the plan behind it stopped that
        {"minor": 599, "currency": "USD"},
    )
    assert second["starts_on"] == in_a_month().isoformat()
    assert first["denied_from"] == f"{in_a_month()}T00:00:00Z"
    out = table(run, made, "plan", "list", "--device", DEVICE).out
    assert "59.99 USD" in out
    assert in_a_month().isoformat() in out


def test_store_setup_follows_what_is_sold(go: Go, made: Path) -> None:
    def classes() -> set[int]:
        with open_folder(made) as opened:
            return classes_in_use(opened)

    before = classes()
    assert {7, 30} <= before
    add = ("package", "add", "archive", "--kind", "monthly", "--retention-days", 200, "--price", "USD=999")
    go(*add, "--from", (today() + timedelta(days=9)).isoformat())
    assert classes() == before | {200}, "rules are there before the first day of sale"
    go("package", "end", "archive")
    assert classes() == before


def test_another_price_is_applied_to_plans_that_run_and_taken_back(
    run: Run, go: Go, made: Path, ada: Actor
) -> None:
    """11.2: the owner is told, and sees what is to come."""
    buy(made, ada, PlanKind.MONTHLY)
    go("package", "price", "monthly", "--price", "USD=699")
    done = go("package", "apply", "monthly")
    assert (done["package"]["version"], done["package"]["is_applied"], done["told"]) == (2, True, 1)
    assert go("package", "apply", "monthly")["told"] == 0
    plan = go("plan", "list", "--device", DEVICE)["plans"][-1]
    assert (plan["fee"]["minor"], plan["next_fee"]["minor"]) == (599, 699)
    assert plan["next_fee_from"] > (today() + timedelta(days=30)).isoformat()
    assert "6.99 USD from" in table(run, made, "plan", "list", "--device", DEVICE).out
    assert go("package", "apply", "monthly", "--withdraw")["withdrawn"] == 1
    assert go("plan", "list", "--device", DEVICE)["plans"][-1]["next_fee"] is None


def test_a_package_has_limits_on_uploads(run: Run, go: Go, made: Path) -> None:
    add = ("package", "add", "small", "--kind", "monthly", "--retention-days", 7, "--price", "USD=299")
    [small] = go(*add, "--max-bytes-per-day", 1 << 30, "--max-chunks-per-s", 2)["packages"]
    assert (small["max_bytes_per_day"], small["max_chunks_per_s"]) == (1 << 30, 2)
    assert str(1 << 30) in table(run, made, "package", "list").out


def test_prices(run: Run, go: Go, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKEEP_AGREEMENT_CURRENCY", "JPY")
    go("package", "price", "annual", "--price", "JPY=7000:800")
    assert go("plan", "prices")["annual"] == {"minor": 7000, "currency": "JPY"}
    assert "7000 JPY" in table(run, made, "plan", "prices").out


def test_a_refund_is_quoted_and_then_paid(run: Run, go: Go, made: Path, ada: Actor) -> None:
    """8.2.1: what is quoted is what is done; credits lower it."""
    plan = buy(made, ada, PlanKind.ANNUAL)
    words = (
        "refund",
        "credit",
        "--plan",
        plan,
        "--minor",
        400,
        "--reason",
        "a bad week",
        "--reference",
        "c1",
    )
    assert go(*words)["credit"] == {"minor": 400, "currency": "USD"}
    assert "4.00 USD" in table(run, made, *words).out, "the same reference is the same credit"
    quoted = go("refund", "quote", "--plan", plan)
    assert (quoted["device"], quoted["keep"]["refund"]["minor"]) == (DEVICE, 0)
    assert quoted["keep"]["last_day"] == (in_a_month(12) - timedelta(days=1)).isoformat()
    assert quoted["cancel"] == {
        "last_day": (in_a_month() - timedelta(days=1)).isoformat(),
        "denied_from": f"{in_a_month()}T00:00:00Z",
        "renews": False,
        "refund": {"minor": 5999 - 599 - 400, "currency": "USD"},
    }
    out = table(run, made, "refund", "quote", "--plan", plan).out
    assert "50.00 USD" in out
    assert "cancel now" in out
    done = go("plan", "cancel", "--device", DEVICE, "--reason", "moved house")
    assert (done["refund"], done["refund_state"]) == (quoted["cancel"]["refund"], "done")
    assert (done["ends_on"], done["denied_from"]) == (
        quoted["cancel"]["last_day"],
        quoted["cancel"]["denied_from"],
    )
    assert run("refund", "quote", "--plan", plan, "--data", made, "--json").error == "plan_already_cancelled"


def test_a_running_plan_is_cancelled_before_the_one_behind_it(go: Go, made: Path, ada: Actor) -> None:
    first, second = (buy(made, ada, PlanKind.ANNUAL, f"r{n}") for n in range(2))
    done = go("plan", "cancel", "--device", DEVICE, "--plan", first)
    assert done["plan_id"] == first
    assert any("begins on" in note for note in done["notes"])
    [_, behind] = go("plan", "list", "--device", DEVICE)["plans"]
    assert (behind["plan_id"], behind["starts_on"]) == (second, in_a_month().isoformat())


def test_renew_charges_what_is_due_once(run: Run, go: Go, made: Path, ada: Actor) -> None:
    buy(made, ada, PlanKind.MONTHLY)
    assert go("renew") == asdict(RenewReport())
    run("clock", "--advance", f"{(in_a_month() - today()).days - 2}d", "--data", made)
    assert go("renew") == asdict(RenewReport(renewed=1))
    assert go("renew") == asdict(RenewReport())
    assert "renewed: 0" in table(run, made, "renew").out
    [plan] = go("plan", "list", "--device", DEVICE)["plans"]
    assert plan["renews"]
    assert plan["denied_from"] == f"{in_a_month(2)}T00:00:00Z"


@pytest.mark.skipif(on_postgres(), reason="records are rows of the catalog there")
def test_renew_says_what_is_left_to_do(run: Run, go: Go, made: Path, ada: Actor) -> None:
    plan = buy(made, ada, PlanKind.ANNUAL)
    records = made / "payments"
    records.rename(made / "away")
    records.write_text("in the way")
    done = go("plan", "cancel", "--device", DEVICE)
    assert done["refund_state"] == "pending"
    assert metrics(made)[1] == "clipkeep_pending_payments 1.0"
    run("clock", "--advance", "2m", "--data", made)
    for _ in range(2):
        run("clock", "--advance", "2m", "--data", made)
        waits = run("renew", "--data", made, "--json")
        assert (waits.code, waits.document["waiting"]) == (1, 1)
        assert "run this again" in waits.err
    assert float(metrics(made)[0].split()[1]) >= 120
    records.unlink()
    records.mkdir()  # a gateway that knows nothing of the charge
    run("clock", "--advance", "10m", "--data", made)
    refused = run("renew", "--data", made, "--json")
    assert (refused.code, refused.document["refund_failed"]) == (1, 1)
    assert "pay them by other means" in refused.err
    assert metrics(made)[1:] == ["clipkeep_pending_payments 0.0", "clipkeep_failed_refunds 1.0"]
    again = run("renew", "--data", made, "--json")
    assert (again.code, again.document) == (1, asdict(RenewReport(refund_failed=1)))
    assert "pay them by other means" in again.err
    with desk_of(made) as desk, desk.reading() as books:
        [refund] = books.failed_refunds()
    paid = go("refund", "paid", "--reference", refund.reference, "--reason", "by cheque")
    assert (paid["state"], paid["account"]) == ("paid_otherwise", ada.account)
    assert metrics(made)[2] == "clipkeep_failed_refunds 0.0"
    assert go("renew") == asdict(RenewReport())
    assert go("plan", "list", "--device", DEVICE)["plans"][0]["plan_id"] == plan


def test_renew_is_bounded(run: Run, made: Path, ada: Actor) -> None:
    with desk_of(made) as desk:
        for n in range(2):
            device = devices.add_device(desk, ada, ada.account).device
            purchases.buy(desk, ada, device, PlanKind.MONTHLY, method="card", reference=f"r{n}")
    run("clock", "--advance", f"{(in_a_month() - today()).days - 1}d", "--data", made)
    done = run("renew", "--limit", 1, "--data", made, "--json")
    assert done.code == 1
    assert done.document == asdict(replace(RenewReport(renewed=1), complete=False))
    assert "--limit" in done.err
    assert run("renew", "--limit", 5, "--data", made).code == 0


def test_an_owners_device_has_the_accounts_one_trial(run: Run, go: Go, made: Path, ada: Actor) -> None:
    go("plan", "start", "--device", DEVICE, "--plan", "trial")
    with desk_of(made) as desk:
        other = devices.add_device(desk, ada, ada.account).device
    words = ("plan", "start", "--device", other, "--plan", "trial", "--data", made, "--json")
    assert run(*words).error == "trial_used"


def test_terminating_an_owners_device_ends_its_plans(go: Go, made: Path, ada: Actor) -> None:
    buy(made, ada, PlanKind.MONTHLY)
    done = go("device", "terminate", "--device", DEVICE, "--reason", "abuse")
    assert (done["state"], done["destroyed_keys"]) == ("terminated", 0)
    assert not done["plans"][0]["renews"]
    assert go("device", "show", "--device", DEVICE)["account"] == ada.account


def test_refunds_by_hand_are_given_noted_and_taken_back(run: Run, go: Go, made: Path, ada: Actor) -> None:
    plan = buy(made, ada, PlanKind.ANNUAL)
    give = ("refund", "give", "--plan", plan, "--reason", "two days away")
    done = go(*give, "--minor", 500, "--reference", "h1")
    assert done["refund"] == {"minor": 500, "currency": "USD"}
    assert [row["state"] for row in done["refunds"]] == ["done"]
    assert go(*give, "--minor", 500, "--reference", "h1") == done, "once"
    assert go(*give, "--minor", 100, "--reference", "h2", "--other-means")["refunds"][0]["state"] == (
        "paid_otherwise"
    )
    quoted = go("refund", "quote", "--plan", plan)
    assert quoted["cancel"]["refund"]["minor"] == 5999 - 599 - 600
    taken = go("refund", "take-back", "--reference", "h2", "--reason", "a slip")
    assert taken["state"] == "taken_back"
    assert go("refund", "quote", "--plan", plan)["cancel"]["refund"]["minor"] == 5999 - 599 - 500
    for words, code in (
        ((*give, "--minor", 6000), "more_than_paid"),
        (("refund", "take-back", "--reference", "h1", "--reason", "w"), "money_left"),
        (("refund", "retry", "--reference", "h1", "--reason", "w"), "not_refused"),
    ):
        assert go(*words, code=1)["error"] == code
    assert "paid back" in table(run, made, *give, "--minor", 1, "--reference", "h3").out


def test_payments_of_all_accounts_are_listed_and_exported(
    run: Run, go: Go, made: Path, ada: Actor, tmp_path: Path
) -> None:
    plan = buy(made, ada, PlanKind.ANNUAL)
    go("refund", "credit", "--plan", plan, "--minor", 5, "--reason", "=late", "--reference", "c1")
    listed = go("payments", "list")
    assert [(row["kind"], row["state"], row["account"]) for row in listed["payments"]] == [
        ("charge", "done", ada.account),
        ("credit", "done", ada.account),
    ]
    assert go("payments", "list", "--limit", 1)["next"] == listed["payments"][0]["payment"]
    assert go("payments", "list", "--kind", "refund", "--state", "failed")["payments"] == []
    assert go("payments", "list", "--older-than-h", 1)["payments"] == []
    assert "59.99 USD" in table(run, made, "payments", "list", "--kind", "charge").out
    period = ("--from", today() - timedelta(days=1), "--through", today() + timedelta(days=1))
    out = table(run, made, "payments", "export", *period).out
    assert "'=late" in out
    assert len(out.splitlines()) == 3
    file = tmp_path / "payments.csv"
    table(run, made, "payments", "export", *period, "--out", file)
    assert file.read_text().splitlines() == out.splitlines()
    assert file.stat().st_mode & 0o777 == 0o600
    refused = run("payments", "export", *period, "--out", file, "--data", made)
    assert (refused.code, "exists" in refused.err) == (1, True)
    wrong = run("payments", "export", "--from", "2026-02-02", "--through", "2026-02-01", "--data", made)
    assert "bad_period" in wrong.err


def test_books_are_checked(run: Run, go: Go, made: Path, ada: Actor) -> None:
    buy(made, ada, PlanKind.ANNUAL)
    sound = go("books", "check")
    assert (sound["finding_count"], sound["payments"], sound["asked"], sound["listed"]) == (0, 1, 1, 1)
    assert "all of it agrees" in table(run, made, "books", "check").out
    (made / "payments" / "r1.json").unlink()
    [finding] = go("books", "check", code=1)["findings"]
    assert (finding["code"], finding["subject"]) == ("not_at_gateway", "r1")
    assert "ask the gateway" in finding["what_to_do"]
    assert go("books", "check", "--days", 0)["finding_count"] == 0


def test_a_purchase_that_is_open_is_abandoned(go: Go, made: Path, ada: Actor) -> None:
    folder = made / "payments"
    folder.write_text("")  # the gateway can't write
    with desk_of(made) as desk, pytest.raises(PaymentUnavailable):
        purchases.buy(desk, ada, DEVICE, "annual", method="card", reference="r1")
    [waits] = go("payments", "list", "--state", "pending")["payments"]
    assert (waits["reference"], waits["attempts"]) == ("r1", 1)
    [one] = go("payments", "abandon", "--device", DEVICE)["purchases"]
    assert one["state"] == "abandoned"
    folder.unlink()
    [one] = go("payments", "abandon", "--device", DEVICE)["purchases"]
    assert one["state"] == "void"
    assert go("payments", "abandon", "--device", DEVICE, code=1)["error"] == "no_open_purchase"
