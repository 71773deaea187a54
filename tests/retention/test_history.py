"""Events as data: what they come to, what they never tell, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from retention.entries import plan_rows, subscriptions_of, updated
from retention.history import account_facts, plan_facts, replay, standing_of
from retention.subscriptions import Subscription
from storage.errors import CallerError
from storage.rows.accounts import AccountRow, EventRow, SubscriptionRow
from tests.retention.life import ANNUAL, MONTHLY, TRIAL, Life

OWNER = AccountRow(5, "owner", "Ada", 1000, email="ada@example.org", password_hash="$argon2id$")


def event(number: int, facts: dict[str, Any], device: int | None = None, account: int = 5) -> EventRow:
    return EventRow(number, account, device, "what", "owner", "why", facts, 0)


def lived() -> Life:
    """A device with one of each: trial, monthly that stopped, annual cancelled, monthly that renews, granted."""
    life = Life(date(2025, 1, 1))
    life.trial()
    life.go(date(2025, 1, 5))
    life.buy(MONTHLY)
    life.cancel(life.buy(ANNUAL))
    life.buy(MONTHLY)
    return life


def test_the_newest_image_of_each_thing_is_its_state() -> None:
    life, other = lived(), Life(date(2025, 1, 1))
    other.grant(MONTHLY)
    events = [
        event(1, account_facts(OWNER)),
        event(2, plan_facts(other.subs), device=8),
        event(5, plan_facts(life.subs[:1]), device=7),
        event(6, {"note": "nothing that is replayed"}),
        event(7, {**account_facts(replace(OWNER, suspended_ms=9)), **plan_facts(life.subs)}, device=7),
    ]
    found = replay(events)
    assert found.standing == standing_of(replace(OWNER, suspended_ms=9))
    assert found.devices == {7: life.subs, 8: other.subs}
    assert replay([]).standing is None
    assert replay([]).devices == {}


def test_facts_are_json_and_read_back_the_same() -> None:
    facts = {**account_facts(OWNER), **plan_facts(lived().subs)}
    again = json.loads(json.dumps(facts))
    assert replay([event(1, again, device=7)]) == replay([event(1, facts, device=7)])
    assert replay([event(1, again, device=7)]).devices[7] == lived().subs


def test_facts_tell_nothing_personal() -> None:
    text = json.dumps(account_facts(replace(OWNER, suspend_reason="lied", closing_reason="moving")))
    for word in ("Ada", "ada@", "argon2", "lied", "moving"):
        assert word not in text


@pytest.mark.parametrize(
    "events",
    [
        [event(2, {}), event(1, {})],
        [event(1, {}), event(1, {})],
        [event(1, {}), event(2, {}, account=6)],
        [event(1, {"plans": []})],  # of which device?
        [event(1, {"plans": [{}]}, device=7)],
        [event(1, {"plans": [7]}, device=7)],
        [event(1, {"plans": 7}, device=7)],
        [event(1, {"account": {}})],
        [event(1, {"account": None})],
        [event(1, {"account": {**account_facts(OWNER)["account"], "state": "lost"}})],
    ],
)
def test_events_that_make_no_history_are_refused(events: list[EventRow]) -> None:
    with pytest.raises(CallerError) as caught:
        replay(events)
    assert caught.value.code == "bad_event"
    assert caught.value.subject.startswith("event ")


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "weekly"},
        {"starts_on": "soon"},
        {"ends_on": "2024-01-01"},
        {"retention_days": 0},
        {"currency": "usd"},
        {"fee_minor": 1.5},
        {"renews": True},
    ],
)
def test_an_image_that_is_no_subscription_is_refused(changed: dict[str, Any]) -> None:
    image = plan_facts(lived().subs)["plans"][2]
    with pytest.raises(CallerError) as caught:
        replay([event(1, {"plans": [{**image, **changed}]}, device=7)])
    assert caught.value.code == "bad_event"


def test_a_plan_without_a_number_is_not_told_about() -> None:
    life = lived()
    with pytest.raises(CallerError) as caught:
        plan_facts([*life.subs, Subscription(0, life.subs[0].plan)])
    assert caught.value.code == "bad_event"


# ---- rows -------------------------------------------------------------------------------------------


def test_subscriptions_come_from_rows_and_go_back() -> None:
    life = lived()
    rows = [
        SubscriptionRow(
            sub.plan_id,
            5,
            7,
            sub.terms.currency,
            sub.terms.fee.minor,
            sub.terms.monthly_fee.minor,
            sub.renews,
            "card-1",
            1,
            0,
        )
        for sub in life.subs
        if sub.terms is not None
    ]
    stored = plan_rows(life.subs)
    assert [row.plan_id for row in stored] == [1, 2, 3, 4]
    assert subscriptions_of(stored, rows) == life.subs
    assert subscriptions_of(stored[:1], ()) == life.subs[:1]
    assert life.subs[0].plan.kind is TRIAL
    stopped = replace(life.subs[3], renews=False)
    assert rows[2].renews
    assert updated(rows[2], stopped) == replace(rows[2], renews=False)
