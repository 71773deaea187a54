"""The notice before a trial or a plan ends (agreement 7.1, 8.1): it closes by itself, with what was recorded."""

from __future__ import annotations

from retention.plans import Plan, PlanKind
from service.agreement.desk import Desk
from service.agreement.holdings import held
from service.agreement.outbox import addresses_of, queue, tell
from storage.catalog.books import Books
from storage.rows.devices import DeviceFacts

MAX_TOLD = 100
"""Of trials and of plans, in one transaction: others' changes wait for it."""
MAX_TRANSACTIONS = 100
"""In one turn. A million plans that end within a year are 3000 a day."""


def tell_ending(desk: Desk) -> int:
    """Queue the notice for trials and plans whose last day is within `trial_notice_days`, and that don't renew
    themselves; one for each trial, and one for each last day of a plan. Idempotent, and safe in several processes at
    once. Returns how many are told."""
    told = 0
    for _ in range(MAX_TRANSACTIONS):
        more = _tell_some(desk)
        told += more
        if not more:
            break
    return told


def _tell_some(desk: Desk) -> int:
    first = desk.today()
    last = first + desk.settings.trial_notice_days
    with desk.reading() as books:
        trials = books.trials_ending(first=first, last=last, limit=1)
        plans = books.plans_ending(first=first, last=last, limit=1)
    if not trials and not plans:
        return 0

    def work(books: Books) -> int:
        told = sum(
            _tell_trial(desk, books, facts)
            for facts in books.trials_ending(first=first, last=last, limit=MAX_TOLD)
        )
        return told + sum(
            _tell_plan(desk, books, plan_id, purpose)
            for plan_id, purpose in books.plans_ending(first=first, last=last, limit=MAX_TOLD)
        )

    return desk.write(work)


def _tell_trial(desk: Desk, books: Books, facts: DeviceFacts) -> bool:
    account = books.account(facts.account)
    plans = [sub.plan for sub in held(books, facts)]
    trial = next(plan for plan in plans if plan.kind is PlanKind.TRIAL and plan.has_days)
    if not addresses_of(account):
        return False
    if _goes_on(plans, trial):
        tell(desk, books, account, "trial_ending-followed", device=facts.device, last_day=trial.ends_on)
    else:
        tell(desk, books, account, "trial_ending", device=facts.device, last_day=trial.ends_on)
    return True


def _tell_plan(desk: Desk, books: Books, plan_id: int, purpose: str) -> bool:
    facts = books.device_of_plan(plan_id)
    account = books.account(facts.account)
    if not addresses_of(account):
        return False
    subs = held(books, facts)
    [plan] = [sub.plan for sub in subs if sub.plan_id == plan_id]
    followed = _goes_on([sub.plan for sub in subs], plan)
    template = "plan_ending-followed" if followed else "plan_ending"
    written = desk.templates.write(
        template, {"device": facts.device, "plan": plan.name, "last_day": plan.ends_on}
    )
    queue(desk, books, account, purpose, written.subject, written.body)
    return True


def _goes_on(plans: list[Plan], ending: Plan) -> bool:
    assert ending.ends_on is not None, "what ends has a last day"
    return any(plan.has_days and plan.starts_on > ending.ends_on for plan in plans)
