"""The notice before a trial ends (agreement 7.1): it closes by itself, and what was recorded goes with it."""

from __future__ import annotations

from retention.plans import PlanKind
from service.agreement.desk import Desk
from service.agreement.holdings import held
from service.agreement.outbox import addresses_of, queue
from storage.catalog.books import Books
from storage.rows.accounts import TRIAL_ENDING
from storage.rows.devices import DeviceFacts

MAX_TOLD = 100
"""In one turn: in one transaction."""


def tell_ending(desk: Desk) -> int:
    """Queue the notice for trials whose last day is within `trial_notice_days`; one for each account, ever. Idempotent,
    and safe in several processes at once. Returns how many accounts are told."""
    first = desk.today()
    last = first + desk.settings.trial_notice_days
    with desk.reading() as books:
        if not books.trials_ending(first=first, last=last, limit=1):
            return 0

    def work(books: Books) -> int:
        return sum(
            _tell(desk, books, facts) for facts in books.trials_ending(first=first, last=last, limit=MAX_TOLD)
        )

    return desk.write(work)


def _tell(desk: Desk, books: Books, facts: DeviceFacts) -> bool:
    account = books.account(facts.account)
    plans = [sub.plan for sub in held(books, facts)]
    trial = next(plan for plan in plans if plan.kind is PlanKind.TRIAL and plan.has_days)
    assert trial.ends_on is not None, "a trial has a last day"
    if not addresses_of(account):
        return False
    goes_on = any(plan.has_days and plan.starts_on > trial.ends_on for plan in plans)
    after = (
        "Your next plan follows at once."
        if goes_on
        else "From 00:00 UTC after it the device no longer records, and its"
        " recordings can't be watched. Buy a plan before that, and it goes on without a gap."
    )
    queue(
        desk,
        books,
        account,
        TRIAL_ENDING,
        f"Device {facts.device}: the trial ends on {trial.ends_on}",
        f"The last day of the trial of device {facts.device} is {trial.ends_on} (UTC). {after}",
    )
    return True
