"""Another price of a package for the monthly plans that run: owners are told, plan by plan (agreement 11.2, 3.1).

An operator *applies* a version of a package, or takes that back: one transaction, and in force with it. Telling the
owners is what follows, some plans a transaction. Each plan says for itself what its owner was told, so whoever is
killed on the way leaves the rest to the next run of `apply` or `clipkeep renew`, and nobody is told twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from retention import fee_changes
from retention.fee_changes import Outcome
from retention.packages import Package, PackageKind, newest, of_version
from retention.renewals import next_period
from retention.subscriptions import Subscription
from service.agreement import packages
from service.agreement.desk import SYSTEM, Actor, Desk, may_be_charged
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holdings import held, keep
from service.agreement.outbox import addresses_of, tell
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import AccountRow, PaymentKind, PaymentState, SubscriptionRow
from storage.rows.devices import DeviceFacts

AT_ONCE = 20
"""Plans in one transaction: some 20 ms, for which other changes wait."""


@dataclass(frozen=True, slots=True)
class FeeReport:
    """What owners were told, and who was left out.

    Args:
        told: of a new fee.
        withdrawn: that the fee they were told of does not come.
        without_price: plans in a currency that the version has no price in: they keep their fee.
        without_address: plans of accounts that have no address to tell: they keep their fee.
        waiting: plans of accounts or devices that are suspended or about to close: told when they go on.
    """

    told: int = 0
    withdrawn: int = 0
    without_price: int = 0
    without_address: int = 0
    waiting: int = 0


Progress = Callable[[int], object]
"""Called after each transaction, with how many plans were looked at."""


def apply(
    desk: Desk,
    actor: Actor,
    name: str,
    *,
    version: int | None = None,
    progress: Progress = lambda seen: None,
) -> tuple[Package, FeeReport]:
    """Have the monthly plans that run pay what a version of their package costs, after a notice.

    Args:
        version: None: the newest.

    Raises:
        Forbidden: `operators_only`; NotFound: no such package or version; Unprocessable: `not_monthly`, other packages
            do not renew; Conflict: `newer_applied`, a newer version is applied already.
    """
    actor.require_operator()

    def work(books: Books) -> Package:
        found = packages.all_of(books)
        wanted = newest(found, name) if version is None else of_version(found, name, version)
        if wanted.kind is not PackageKind.MONTHLY:
            raise Unprocessable(
                "only plans of monthly packages renew themselves; others keep the price of their purchase",
                subject=f"package {name}",
                code="not_monthly",
            )
        target = fee_changes.applied(found, name)
        if target is not None and target.version > wanted.version:
            raise Conflict(
                f"version {target.version} is applied; take that back first, or apply a newer one",
                subject=f"package {name}",
                code="newer_applied",
            )
        if not wanted.is_applied:
            packages.note_applied(books, wanted, desk.now_ms())
        return replace(wanted, is_applied=True)

    applied = desk.write(work)
    return applied, tell_owners(desk, name, progress=progress)


def withdraw(
    desk: Desk, actor: Actor, name: str, *, progress: Progress = lambda seen: None
) -> tuple[Package, FeeReport]:
    """Take back that a version's price is that of plans that run. Who pays it by now goes on paying it.

    Raises:
        Forbidden: `operators_only`; NotFound: no such package; Conflict: `not_applied`.
    """
    actor.require_operator()

    def work(books: Books) -> Package:
        found = packages.all_of(books)
        newest(found, name)
        target = fee_changes.applied(found, name)
        if target is None:
            raise Conflict(
                "no version of it is applied to running plans", subject=f"package {name}", code="not_applied"
            )
        packages.note_applied(books, target, None)
        return replace(target, is_applied=False)

    taken_back = desk.write(work)
    return taken_back, tell_owners(desk, name, progress=progress)


def tell_owners(
    desk: Desk, name: str, *, limit: int | None = None, progress: Progress = lambda seen: None
) -> FeeReport:
    """Tell the owners of a package's plans what is to be told. Idempotent, and safe in several processes at once.

    Args:
        limit: of plans whose owners are told something, about; None: all.
    """
    counts: Counter[str] = Counter()
    after = seen = 0
    while True:
        with desk.reading() as books:
            target = fee_changes.applied(packages.all_of(books), name)
            version = 0 if target is None else target.version
            page = books.fee_changes_due(name, version, after=after, limit=AT_ONCE)
        if not page or (limit is not None and counts["told"] + counts["withdrawn"] >= limit):
            counts.pop("", None)
            return FeeReport(**counts)
        after = page[-1].plan_id

        def work(books: Books, page: list[SubscriptionRow] = page) -> Counter[str]:
            target = fee_changes.applied(packages.all_of(books), name)
            return Counter(_tell(desk, books, row.plan_id, target) for row in page)

        counts += desk.write(work)
        seen += len(page)
        progress(seen)


def tell_all(desk: Desk, *, limit: int) -> FeeReport:
    """`tell_owners` for all packages: what a process that was killed has left, and who could not be told before."""
    with desk.reading() as books:
        names = {package.name for package in packages.all_of(books) if package.kind is PackageKind.MONTHLY}
    total: Counter[str] = Counter()
    for name in sorted(names):
        report = tell_owners(desk, name, limit=limit)
        total.update({field: getattr(report, field) for field in FeeReport.__slots__})
    return FeeReport(**total)


def take_up(
    desk: Desk, books: Books, facts: DeviceFacts, subs: tuple[Subscription, ...], plan_id: int
) -> bool:
    """Before the next period of a plan is charged: make the fee that its owner was told of its fee, when it is time.
    Inside a transaction. Returns whether it was."""
    [sub] = [sub for sub in subs if sub.plan_id == plan_id]
    if sub.next_fee is None:
        return False
    target = fee_changes.applied(packages.all_of(books), sub.plan.package)
    after = fee_changes.taken_up(sub, target)
    if after == sub or after.terms is None or sub.terms is None:
        return False
    more = {
        "plan_id": plan_id,
        "first": next_period(sub)[0].isoformat(),
        "before_minor": sub.terms.fee.minor,
        "minor": after.terms.fee.minor,
    }
    keep(desk, books, SYSTEM, facts, _with(subs, after), what="fee_changed", more=more)
    return True


def _tell(desk: Desk, books: Books, plan_id: int, target: Package | None) -> str:
    """Returns the field of `FeeReport` that counts it, "" for none."""
    try:
        row = books.subscription(plan_id)
        account, facts = books.account(row.account), books.device(row.device)
    except NotFound:  # the account was erased since the page was read
        return ""
    subs = held(books, facts)
    [sub] = [sub for sub in subs if sub.plan_id == plan_id]
    after, outcome = fee_changes.changed(
        sub,
        target,
        today=desk.date(),
        notice_days=desk.settings.fee_notice_days,
        is_charging=any(
            payment.kind is PaymentKind.CHARGE and payment.state is PaymentState.PENDING
            for payment in books.payments_of_plan(plan_id)
        ),
    )
    if outcome is Outcome.TOLD:
        if not may_be_charged(account, facts):
            return "waiting"
        if not addresses_of(account):
            return "without_address"
    if after != sub:
        _write(desk, books, account, facts, subs, after, outcome)
    return "" if outcome is Outcome.NOTHING else str(outcome)


def _write(
    desk: Desk,
    books: Books,
    account: AccountRow,
    facts: DeviceFacts,
    subs: tuple[Subscription, ...],
    after: Subscription,
    outcome: Outcome,
) -> None:
    assert after.terms is not None, "what renews was bought"
    more: dict[str, object] = {"plan_id": after.plan_id}
    if outcome is Outcome.NOTHING:  # the same price under another version
        keep(desk, books, SYSTEM, facts, _with(subs, after), what="fee_version", more=more)
        return
    keep(desk, books, SYSTEM, facts, _with(subs, after), what=f"fee_{outcome}", more=more)
    fee, device = after.terms.fee, facts.device
    if after.next_fee is None:
        tell(desk, books, account, "fee-withdrawn", device=device, money=fee)
        return
    first = fee_changes.first_day(after)
    assert first is not None, "it was told just now"
    tell(
        desk,
        books,
        account,
        "fee",
        device=device,
        before=fee,
        money=after.next_fee.fee,
        first_day=first,
        last_day=first - timedelta(days=1),
    )


def _with(subs: tuple[Subscription, ...], after: Subscription) -> list[Subscription]:
    return [after if sub.plan_id == after.plan_id else sub for sub in subs]
