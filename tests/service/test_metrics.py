"""/metrics: what workers published, and what this process counts itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ingest.stats import Stats
from service.metrics import FeedFigures, publish, published, render
from storage.catalog.books import Books
from storage.days import day_of_ms
from storage.rows.accounts import (
    AccountRow,
    ClosingState,
    NoticeRow,
    NoticeState,
    PaymentKind,
    PaymentRow,
    PaymentState,
    SubscriptionRow,
)
from storage.rows.devices import PlanRow
from tests.retention.world import NOON, World


def test_store_calls_of_all_processes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    calls = {("put", "ok"): 7, ("put", "store_unavailable"): 2}
    publish(run / "w0.json", Stats(), store_calls=calls, now_ms=NOON, problem="")
    publish(run / "w1.json", Stats(), store_calls={}, now_ms=NOON, problem="")
    assert published(run).keys() == {"w0", "w1"}
    with World(tmp_path) as world:
        text = render(run, world.catalog, world.clock, {("get_range", "ok"): 3}).decode()
    found = sorted(line for line in text.splitlines() if line.startswith("clipkeep_store_calls_total"))
    assert found == [
        'clipkeep_store_calls_total{call="get_range",outcome="ok",process="api"} 3.0',
        'clipkeep_store_calls_total{call="put",outcome="ok",process="w0"} 7.0',
        'clipkeep_store_calls_total{call="put",outcome="store_unavailable",process="w0"} 2.0',
    ]


def test_what_waits_in_the_account_books(tmp_path: Path) -> None:
    today = day_of_ms(NOON)
    with World(tmp_path) as world:
        device = world.add()
        assert "clipkeep_notices_overdue_seconds 0.0" in text_of(world, tmp_path), "nothing waits at first"

        def fill(books: Books) -> None:
            for closing in (ClosingState.REQUESTED, ClosingState.REQUESTED, ClosingState.APPROVED):
                account = books.add_account(AccountRow(0, "owner", "", NOON, closing=closing)).account
            for state in (NoticeState.QUEUED, NoticeState.FAILED, NoticeState.DELIVERED):
                notice = NoticeRow(0, account, "email", "a@example.org", "receipt", "", "", NOON)
                books.add_notice(replace(notice, state=state, next_ms=NOON - 5000))
            charge = PaymentRow(
                *(0, "r1", 1, None, device, PaymentKind.CHARGE, "USD", 599, PaymentState.PENDING, ""),
                at_ms=NOON - 7000,
            )
            books.add_payment(charge)
            row = PlanRow(0, "monthly", today - 31, today - 1, 30)
            facts = books.change_device(device, lambda f: replace(f, plans=(*f.plans, row)), what="")
            plan_id = facts.plans[-1].plan_id
            books.add_subscription(SubscriptionRow(plan_id, 1, device, "USD", 599, 599, True, "m", 1, NOON))

        world.entitlements.transact(fill, new_accounts=3)
        text = text_of(world, tmp_path)
    for line in (
        *('clipkeep_notices{state="queued"} 1.0', 'clipkeep_notices{state="failed"} 1.0'),
        *('clipkeep_closings{state="requested"} 2.0', 'clipkeep_closings{state="approved"} 1.0'),
        *("clipkeep_notices_overdue_seconds 5.0", "clipkeep_overdue_renewals 1.0"),
        *("clipkeep_pending_payments 1.0", "clipkeep_oldest_pending_payment_seconds 7.0"),
    ):
        assert line in text


def text_of(world: World, folder: Path) -> str:
    feed = FeedFigures(lag_s=0.25, applied=7)
    return render(folder / "run", world.catalog, world.clock, {}, feed=feed).decode()


def test_every_metric_that_is_to_alert_is_there(tmp_path: Path) -> None:
    """docs/operations.md names them; a name that was misspelt would never alert."""
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    named = set(re.findall(r"`(clipkeep_[a-z_]+)(?:\{[a-z,]+\})?`", page))
    publish(tmp_path / "run/w0.json", Stats(), store_calls={}, now_ms=NOON, problem="")
    with World(tmp_path) as world:
        world.catalog.record_sweep({"finished_ms": NOON}, now_ms=NOON)
        text = text_of(world, tmp_path)
    known = set(re.findall(r"^# TYPE ([a-z_]+) ", text, flags=re.M))
    assert len(named) > 15
    assert named <= known, named - known
