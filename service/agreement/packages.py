"""What is sold (agreement 7.2): the packages of the books, and what operators do with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from retention import packages as rules
from retention.money import Money
from retention.packages import Package, PackageKind
from retention.terms import Terms
from retention.upload_limits import UploadLimits
from service.agreement.desk import Actor, Desk
from service.config import AgreementSettings, RetentionSettings
from storage.catalog.books import Books, BooksCatalog
from storage.days import day_of_ms, to_date, to_day
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.packages import PackageRow

TRIAL, MONTHLY, ANNUAL = "trial", "monthly", "annual"
"""Names of the packages that a catalog begins with. Requests of before there were packages named their kinds so."""
TRIAL_DAYS, TRIAL_RETENTION_DAYS = 14, 7
"""Agreement 7.1: of the trial that a catalog begins with."""


def first_packages(settings: AgreementSettings, retention_days: int, sold_from: date) -> list[Package]:
    """What a catalog begins with: what the agreement says of a trial (7.1), and config.toml of the others."""
    currency = settings.currency
    monthly = Money(settings.monthly_fee_minor, currency)
    annual = Money(settings.annual_fee_minor, currency)
    return [
        Package(TRIAL, 1, PackageKind.TRIAL, TRIAL_RETENTION_DAYS, sold_from, days=TRIAL_DAYS),
        Package(
            MONTHLY,
            1,
            PackageKind.MONTHLY,
            retention_days,
            sold_from,
            prices={currency: Terms(monthly, monthly)},
        ),
        Package(
            ANNUAL,
            1,
            PackageKind.FULL,
            retention_days,
            sold_from,
            months=rules.ANNUAL_MONTHS,
            prices={currency: Terms(annual, monthly)},
        ),
    ]


def ensure(
    catalog: BooksCatalog, settings: AgreementSettings, retention: RetentionSettings, *, now_ms: int
) -> None:
    """Make the first packages where there are none: in a new data folder, or a catalog from before there were any."""
    with catalog.books() as books:
        if books.packages(limit=1):
            return
    first = first_packages(settings, retention.default_days, to_date(day_of_ms(now_ms)))

    def make(books: Books) -> None:
        if not books.packages(limit=1):  # another process may have been faster
            for package in first:
                books.add_package(_row(package, now_ms))

    catalog.transact(make)


def unlike_config(desk: Desk, retention: RetentionSettings) -> list[str]:
    """What an operator set in config.toml after the first packages were made: it changes nothing that is sold. A
    sentence each."""
    sold = {package.name: package for package in listed(desk)}
    settings, usual = desk.settings, AgreementSettings()
    wanted = [
        ("[agreement] monthly_fee_minor", MONTHLY, settings.monthly_fee_minor, usual.monthly_fee_minor),
        ("[agreement] annual_fee_minor", ANNUAL, settings.annual_fee_minor, usual.annual_fee_minor),
    ]
    said = []
    for setting, name, minor, default in wanted:
        terms = sold[name].prices.get(settings.currency) if name in sold else None
        if minor != default and (terms is None or terms.fee.minor != minor):
            said.append(
                f"{setting} is {minor}, which is not what {name} is sold for: use `clipkeep package price`"
            )
    days = {sold[name].retention_days for name in (MONTHLY, ANNUAL) if name in sold}
    if retention.default_days != RetentionSettings().default_days and days != {retention.default_days}:
        said.append(
            f"[retention] default_days is {retention.default_days}, which is not what is sold: use `clipkeep package"
            " add` for other days"
        )
    return said


def all_of(books: Books) -> list[Package]:
    """All versions, in order of name and version."""
    return [_package(row) for row in books.packages(limit=rules.MAX_VERSIONS)]


def listed(desk: Desk, *, every: bool = False) -> list[Package]:
    """What is sold today; or every version that ever was."""
    with desk.reading() as books:
        found = all_of(books)
    return found if every else rules.sold(found, desk.date())


def named(desk: Desk, name: str) -> list[Package]:
    """All versions of a package. Raises NotFound."""
    found = [package for package in listed(desk, every=True) if package.name == name]
    return found or [rules.newest([], name)]


def on_sale(desk: Desk, books: Books, name: str) -> Package:
    """Raises Unprocessable `not_for_sale`."""
    return rules.on_sale(all_of(books), name, desk.date())


def add(desk: Desk, actor: Actor, package: Package) -> Package:
    """Begin to sell a package.

    Raises:
        Forbidden: `operators_only`; those of `retention.packages.added`.
    """
    actor.require_operator()

    def work(books: Books) -> Package:
        new = rules.added(all_of(books), package)
        books.add_package(_row(new, desk.now_ms()))
        _record(desk, books, actor, "package_added", new)
        return new

    return desk.write(work)


def reprice(
    desk: Desk, actor: Actor, name: str, prices: Mapping[str, Terms], *, sold_from: date | None = None
) -> Package:
    """Another price, for purchases from a day on: a new version. Plans that were bought keep theirs.

    Args:
        prices: all of them: a currency that is left out is no longer taken.
        sold_from: None: today.

    Raises:
        Forbidden: `operators_only`; those of `retention.packages.repriced`.
    """
    actor.require_operator()

    def work(books: Books) -> Package:
        today = desk.date()
        found = all_of(books)
        old, new = rules.repriced(found, name, prices, sold_from=sold_from or today, today=today)
        _keep(books, [old])
        books.add_package(_row(new, desk.now_ms()))
        _record(desk, books, actor, "package_repriced", new)
        return new

    return desk.write(work)


def end(desk: Desk, actor: Actor, name: str, *, last_day: date) -> list[Package]:
    """Sell a package for the last time on that day; yesterday: no more. Plans of it go on, and renew. Returns its
    versions that changed.

    Raises:
        Forbidden: `operators_only`; those of `retention.packages.ended`.
    """
    actor.require_operator()

    def work(books: Books) -> list[Package]:
        found = all_of(books)
        changed = rules.ended(found, name, last_day=last_day, today=desk.date())
        _keep(books, changed)
        for package in changed:
            _record(desk, books, actor, "package_ended", package)
        return changed

    return desk.write(work)


def _record(desk: Desk, books: Books, actor: Actor, what: str, package: Package) -> None:
    until = None if package.sold_until is None else package.sold_until.isoformat()
    facts = {"package": package.name, "version": package.version, "sold_until": until}
    desk.record(books, actor, OPERATOR_ACCOUNT, what, facts=facts)


def note_applied(books: Books, package: Package, applied_ms: int | None) -> None:
    """Note since when a version's price is to be that of running plans; None: it is not."""
    books.put_package(replace(_rows(books)[package.name, package.version], applied_ms=applied_ms))


def _rows(books: Books) -> dict[tuple[str, int], PackageRow]:
    return {(row.package, row.version): row for row in books.packages(limit=rules.MAX_VERSIONS)}


def _keep(books: Books, after: list[Package]) -> None:
    """Write the last days of sale."""
    rows = _rows(books)
    for package in after:
        until = None if package.sold_until is None else to_day(package.sold_until)
        books.put_package(replace(rows[package.name, package.version], sold_until=until))


def _package(row: PackageRow) -> Package:
    prices = {
        currency: Terms(Money(fee, currency), Money(monthly, currency))
        for currency, (fee, monthly) in row.prices.items()
    }
    return Package(
        row.package,
        row.version,
        PackageKind(row.kind),
        row.retention_days,
        to_date(row.sold_from),
        None if row.sold_until is None else to_date(row.sold_until),
        row.months,
        row.days,
        row.max_devices,
        prices,
        UploadLimits(row.max_bytes_per_day, row.max_chunks_per_s),
        row.limit_class,
        row.applied_ms is not None,
    )


def _row(package: Package, now_ms: int) -> PackageRow:
    return PackageRow(
        package=package.name,
        version=package.version,
        kind=str(package.kind),
        months=package.months,
        days=package.days,
        retention_days=package.retention_days,
        max_devices=package.max_devices,
        sold_from=to_day(package.sold_from),
        sold_until=None if package.sold_until is None else to_day(package.sold_until),
        made_ms=now_ms,
        prices={
            currency: [terms.fee.minor, terms.monthly_fee.minor] for currency, terms in package.prices.items()
        },
        max_bytes_per_day=package.limits.bytes_per_day,
        max_chunks_per_s=package.limits.chunks_per_s,
        limit_class=package.limit_class,
    )
