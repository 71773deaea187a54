"""Packages: what is sold (agreement 7.2), in versions. Pure.

A version never changes but for its last day of sale: another price is another version, and a plan names the one that
it was started from. The versions of one package are sold one after the other, never two on one day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from enum import StrEnum
from types import MappingProxyType

from retention.plans import EPOCH, MAX_RETENTION_DAYS, MIN_RETENTION_DAYS, Offer, PlanKind
from retention.terms import Terms
from retention.upload_limits import NO_LIMITS, UploadLimits, class_of
from storage.errors import Conflict, NotFound, Unprocessable

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""As it is in addresses, options and files."""
MAX_MONTHS = 120
MAX_TRIAL_DAYS = 366
MAX_VERSIONS = 1000
"""Of all packages together: whoever asks what is sold has them read."""
MAX_CURRENCIES = 20
ANNUAL_MONTHS = 12
_DAY = timedelta(days=1)


class PackageKind(StrEnum):
    TRIAL = "trial"
    MONTHLY = "monthly"
    FULL = "full"  # paid in full for some months


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package.

    Args:
        name: small letters, digits and `-`, at most 40.
        version: 1, 2, …
        retention_days: 1..255: for how long a plan of it keeps recordings.
        months: 1..120, that one paid in full lasts; else 0.
        days: 1..366, that a trial lasts; else 0.
        max_devices: of one account that may have a plan of it at a time; 0: any number.
        prices: by currency; none of a trial.
        limits: on uploads of each device while a plan of it runs.
        is_applied: its price is to be that of running monthly plans of earlier versions too (`retention.fee_changes`).
        limit_class: of these limits among those of all packages (`retention.upload_limits`); 0: none, or not known yet.
        sold_from, sold_until: first and last day of sale, UTC; None: without an end. `sold_until` may be the day before
            `sold_from`: then it is never sold.

    Raises:
        CallerError: `bad_package`, `bad_retention_days`.
    """

    name: str
    version: int
    kind: PackageKind
    retention_days: int
    sold_from: date
    sold_until: date | None = None
    months: int = 0
    days: int = 0
    max_devices: int = 0
    prices: Mapping[str, Terms] = field(default_factory=lambda: MappingProxyType({}))
    limits: UploadLimits = NO_LIMITS
    limit_class: int = 0
    is_applied: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise _bad(f"a package's name has 1 to 40 of a-z, 0-9 and -, not {self.name!r}")
        if not MIN_RETENTION_DAYS <= self.retention_days <= MAX_RETENTION_DAYS:
            raise Unprocessable(
                f"retention is {MIN_RETENTION_DAYS} to {MAX_RETENTION_DAYS} days, not {self.retention_days}",
                code="bad_retention_days",
            )
        most = {PackageKind.FULL: (MAX_MONTHS, 0), PackageKind.TRIAL: (0, MAX_TRIAL_DAYS)}.get(
            self.kind, (0, 0)
        )
        for said, upto, unit in ((self.months, most[0], "months"), (self.days, most[1], "days")):
            if not min(upto, 1) <= said <= upto:
                lasts = f"lasts 1 to {upto} {unit}" if upto else f"has no number of {unit}"
                raise _bad(f"a package of kind {self.kind} {lasts}, not {said}")
        if self.max_devices < 0:
            raise _bad("the most devices of an account are 1 or more; 0 is any number")
        if (self.kind is PackageKind.TRIAL) != (not self.prices):
            raise _bad(
                "a trial has no price, and every other package has one in each currency it is sold for"
            )
        if len(self.prices) > MAX_CURRENCIES:
            raise _bad(f"a package has prices in at most {MAX_CURRENCIES} currencies")
        for currency, terms in self.prices.items():
            if terms.currency != currency or (
                self.kind is PackageKind.MONTHLY and terms.fee != terms.monthly_fee
            ):
                raise _bad("the fee of a monthly package is its monthly fee, in the currency it is named by")
        if self.sold_from < EPOCH or (
            self.sold_until is not None and self.sold_until < self.sold_from - _DAY
        ):
            raise _bad(f"it would be sold from {self.sold_from} to {self.sold_until}")

    def is_sold(self, on: date) -> bool:
        return self.sold_from <= on and (self.sold_until is None or on <= self.sold_until)

    @property
    def plan_kind(self) -> PlanKind:
        if self.kind is PackageKind.FULL:
            return PlanKind.ANNUAL if self.months == ANNUAL_MONTHS else PlanKind.FULL
        return PlanKind(self.kind)

    def offer(self, retention_days: int | None = None) -> Offer:
        """What a plan of it is to be.

        Args:
            retention_days: another number than the package has; None takes that.

        Raises:
            CallerError: `trial_retention_fixed`, another for a trial.
        """
        kept = self.retention_days if retention_days is None else retention_days
        if self.kind is PackageKind.TRIAL and kept != self.retention_days:
            raise Unprocessable(
                f"a trial keeps recordings for {self.retention_days} days; leave the retention out",
                code="trial_retention_fixed",
            )
        return Offer(self.plan_kind, kept, self.months, self.days, self.name, self.version, self.limit_class)

    def terms(self, currency: str) -> Terms:
        """What a plan of it is agreed at.

        Raises:
            CallerError: `not_for_sale`, a trial; `wrong_currency`, it has no price in this one.
        """
        if self.kind is PackageKind.TRIAL:
            raise Unprocessable(
                "a trial costs nothing and can't be bought; choose a package that is sold",
                code="not_for_sale",
            )
        if currency not in self.prices:
            raise Unprocessable(
                f"{self.name} has no price in {currency}; pay in {' or '.join(sorted(self.prices))}",
                code="wrong_currency",
            )
        return self.prices[currency]


def sold(packages: Iterable[Package], on: date) -> list[Package]:
    """Those that are sold on that day, in order of their names."""
    return sorted((package for package in packages if package.is_sold(on)), key=lambda package: package.name)


def on_sale(packages: Sequence[Package], name: str, on: date) -> Package:
    """The version of a package that is sold on that day.

    Raises:
        CallerError: `not_for_sale`, with what is sold instead.
    """
    found = [package for package in sold(packages, on) if package.name == name]
    if not found:
        names = ", ".join(package.name for package in sold(packages, on)) or "nothing"
        raise Unprocessable(
            f"no package of this name is sold today; sold are: {names}",
            subject=f"package {name}",
            code="not_for_sale",
        )
    return found[0]


def newest(packages: Iterable[Package], name: str) -> Package:
    """The last version of a package, sold or not. Raises NotFound."""
    found = [package for package in packages if package.name == name]
    if not found:
        raise NotFound(
            "there is no such package; `clipkeep package list` shows them", subject=f"package {name}"
        )
    return max(found, key=lambda package: package.version)


def of_version(packages: Iterable[Package], name: str, version: int) -> Package:
    """Raises NotFound."""
    for package in packages:
        if (package.name, package.version) == (name, version):
            return package
    raise NotFound("there is no such version of the package", subject=f"package {name}, version {version}")


def trial_on_sale(packages: Iterable[Package], on: date) -> Package:
    """The trial that an owner may have on that day: there is one at most.

    Raises:
        CallerError: `not_for_sale`.
    """
    for package in sold(packages, on):
        if package.kind is PackageKind.TRIAL:
            return package
    raise Unprocessable("no trial is offered at present; buy a plan", code="not_for_sale")


def added(packages: Sequence[Package], new: Package) -> Package:
    """A package that was not there before, with its limit class.

    Raises:
        CallerError: `package_exists`; `trial_on_sale`, another trial has a day of sale in common; `too_many_packages`,
            `too_many_limits`.
    """
    if any(package.name == new.name for package in packages):
        raise Conflict(
            "there is a package of this name; give it another price, or choose another name",
            subject=f"package {new.name}",
            code="package_exists",
        )
    _require_room(packages)
    if new.kind is PackageKind.TRIAL:
        for other in packages:
            if other.kind is PackageKind.TRIAL and _meet(other, new):
                raise Conflict(
                    f"the trial {other.name} is offered then; end it first: an account has one, and does not choose",
                    subject=f"package {new.name}",
                    code="trial_on_sale",
                )
    known = [(package.limit_class, package.limits) for package in packages]
    return replace(new, limit_class=class_of(known, new.limits))


def repriced(
    packages: Sequence[Package], name: str, prices: Mapping[str, Terms], *, sold_from: date, today: date
) -> tuple[Package, Package]:
    """Another price from a day on: the newest version, which ends the day before, and the one that follows it.

    Raises:
        NotFound; CallerError: `bad_package`, `too_many_packages`; `package_ended`, it is not sold that day; `bad_date`,
            that day is over, or before the newest version is sold.
    """
    old = newest(packages, name)
    _require_room(packages)
    if sold_from < max(today, old.sold_from):
        raise Unprocessable(
            f"a new price begins on {max(today, old.sold_from)} at the earliest, not on {sold_from}",
            subject=f"package {name}",
            code="bad_date",
        )
    if old.sold_until is not None and old.sold_until < sold_from:
        raise _ended(old)
    new = replace(old, version=old.version + 1, prices=prices, sold_from=sold_from, is_applied=False)
    return replace(old, sold_until=sold_from - _DAY), new


def ended(packages: Sequence[Package], name: str, *, last_day: date, today: date) -> list[Package]:
    """A package that is sold for the last time on a day: its versions that change. Plans of it go on, and renew.

    Raises:
        NotFound; CallerError: `package_ended`; `bad_date`, before yesterday.
    """
    old = newest(packages, name)
    if last_day < today - _DAY:
        raise Unprocessable(
            f"the last day of sale is {today - _DAY} (yesterday: at once) or later, not {last_day}",
            subject=f"package {name}",
            code="bad_date",
        )
    if old.sold_until is not None and old.sold_until <= last_day:
        raise _ended(old)
    changed = []
    for package in packages:
        if package.name == name and (package.sold_until is None or package.sold_until > last_day):
            changed.append(replace(package, sold_until=max(last_day, package.sold_from - _DAY)))
    return changed


def _meet(a: Package, b: Package) -> bool:
    return (a.sold_until is None or b.sold_from <= a.sold_until) and (
        b.sold_until is None or a.sold_from <= b.sold_until
    )


def _require_room(packages: Sequence[Package]) -> None:
    if len(packages) >= MAX_VERSIONS:
        raise Unprocessable(
            f"there are {len(packages)} versions of packages, and room for {MAX_VERSIONS}",
            code="too_many_packages",
        )


def _ended(package: Package) -> Conflict:
    return Conflict(
        f"its last day of sale is {package.sold_until}; add a package of another name",
        subject=f"package {package.name}",
        code="package_ended",
    )


def _bad(detail: str) -> Unprocessable:
    return Unprocessable(detail, code="bad_package")
