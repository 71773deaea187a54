"""`package`: what is sold, at what price, from when until when (agreement 7.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from retention.money import Money
from retention.packages import MAX_MONTHS, MAX_TRIAL_DAYS, Package, PackageKind
from retention.terms import Terms
from retention.upload_limits import MAX_CHUNKS_PER_S, UploadLimits
from service import terminal
from service.agreement import fees, packages
from service.commands.acting import BUILT_IN, As, Why, acting
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.days import parse_date
from storage.errors import CallerError

PACKAGE_HEADS = [
    "package",
    "version",
    "kind",
    "lasts",
    "storage days",
    "devices",
    "bytes a day",
    "chunks/s",
    "price",
    "sold from",
    "until",
]
PROGRESS_EVERY = 1000
_PRICE = re.compile(r"([A-Z]{3})=([0-9]{1,16})(?::([0-9]{1,16}))?")

Name = Annotated[str, typer.Argument(help="The package's name: a-z, 0-9 and -.", show_default=False)]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="CURRENCY=FEE, or CURRENCY=FEE:MONTHLY where it is paid in full: whole minor units (cents). MONTHLY is"
        " what a refund counts for each month begun. May be repeated, one currency each.",
    ),
]
From = Annotated[
    str | None, typer.Option("--from", help="First day on which it is sold, YYYY-MM-DD, UTC. Default today.")
]

package_app = typer.Typer(help="Packages: what is sold, and at what price.", no_args_is_help=True)


@package_app.command("list")
def package_list(
    every: Annotated[bool, typer.Option("--all", help="Also what is not sold today: every version.")] = False,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List what is sold today: kind, days of storage, prices, and the days of sale.

    A new data folder sells `trial`, `monthly` and `annual`, with the fees and days that config.toml had when it was
    opened first. From then on this list is what counts; change it with `package add`, `price` and `end`.
    """
    with open_folder(data) as opened:
        found = packages.listed(opened.desk, every=every)
    _report(found, json)


@package_app.command("show")
def package_show(name: Name, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show all versions of a package, with the days on which each was sold."""
    with open_folder(data) as opened:
        found = packages.named(opened.desk, name)
    _report(found, json)


@package_app.command("add")
def package_add(
    name: Name,
    kind: Annotated[
        PackageKind,
        typer.Option("--kind", help="monthly: renews itself; full: paid in full for --months; trial: free."),
    ],
    retention_days: Annotated[
        int, typer.Option("--retention-days", help="For how long recordings are kept.", min=1, max=255)
    ],
    price: Prices = None,
    months: Annotated[
        int, typer.Option("--months", help="How long one paid in full lasts.", min=0, max=MAX_MONTHS)
    ] = 0,
    days: Annotated[
        int, typer.Option("--days", help="How long a trial lasts.", min=0, max=MAX_TRIAL_DAYS)
    ] = 0,
    max_devices: Annotated[
        int,
        typer.Option("--max-devices", help="Devices of one account that may have it; 0: any number.", min=0),
    ] = 0,
    max_bytes_per_day: Annotated[
        int,
        typer.Option(
            "--max-bytes-per-day",
            help="Of each device, stored on one UTC day by the day of arrival; 16777216 or more. 0: no limit.",
            min=0,
        ),
    ] = 0,
    max_chunks_per_s: Annotated[
        int,
        typer.Option(
            "--max-chunks-per-s",
            help="Of each device, in the long run; 20 seconds' worth may come at once. 0: no limit.",
            min=0,
            max=MAX_CHUNKS_PER_S,
        ),
    ] = 0,
    sold_from: From = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Begin to sell a package. Owners name it when they buy a plan (`plan` in the API).

    What was sold under a name never changes: another price is another version (`package price`), and anything else is
    another package. Afterwards run `clipkeep store setup`, which follows the days of storage that are sold.

    Example: `clipkeep package add half-year --kind full --months 6 --retention-days 60 --price USD=3299:599`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        begins = opened.desk.date() if sold_from is None else parse_date(sold_from, field="--from")
        package = Package(
            name,
            1,
            kind,
            retention_days,
            begins,
            months=months,
            days=days,
            max_devices=max_devices,
            prices=_prices(price, kind),
            limits=UploadLimits(max_bytes_per_day, max_chunks_per_s),
        )
        added = packages.add(opened.desk, actor, package)
    _report([added], json)


@package_app.command("price")
def package_price(
    name: Name,
    price: Prices = None,
    sold_from: From = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Sell a package at another price from a day on. Name every currency: one that is left out is no longer taken.

    That is a new version. Plans that were bought keep the price of their purchase; `clipkeep package apply` tells the
    owners of monthly ones that theirs changes too.

    Example: `clipkeep package price monthly --price USD=699 --from 2027-01-01`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        kind = packages.named(opened.desk, name)[-1].kind
        begins = None if sold_from is None else parse_date(sold_from, field="--from")
        new = packages.reprice(opened.desk, actor, name, _prices(price, kind), sold_from=begins)
    _report([new], json)


@package_app.command("apply")
def package_apply(
    name: Name,
    version: Annotated[
        int | None, typer.Option("--version", help="Whose price they are to pay. Default: the newest.", min=1)
    ] = None,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back what was applied, where it did not take effect yet.")
    ] = False,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Have monthly plans that run pay what the package is sold for now, after a notice.

    Each owner is told `[agreement] fee_notice_days` ahead. A higher fee is that of the first period that begins after
    that, a lower one that of the next period, neither before the version is sold. Until then owners may cancel at
    the old fee. Suspended accounts are told when they go on, by `clipkeep renew`; so are the rest when this is stopped:
    run it again, and nobody is told twice. Another version that is applied takes the place of one that did not take
    effect yet, with a notice of its own.

    Example: `clipkeep package price monthly --price USD=699 --from 2027-01-01`, then `clipkeep package apply monthly`
    """
    if withdraw and version is not None:
        raise CallerError("--withdraw takes back what is applied; leave --version out", code="bad_option")
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        if withdraw:
            package, told = fees.withdraw(opened.desk, actor, name, progress=_progress)
        else:
            package, told = fees.apply(opened.desk, actor, name, version=version, progress=_progress)
    document = {"package": shown_package(package), **asdict(told)}
    terminal.report(
        document,
        json,
        lambda: terminal.table("plans", list(asdict(told)), [list(asdict(told).values())]),
    )


def _progress(seen: int) -> None:
    if seen % PROGRESS_EVERY == 0:
        terminal.say(f"{seen} plans looked at")


@package_app.command("end")
def package_end(
    name: Name,
    last_day: Annotated[
        str | None,
        typer.Option(
            "--last-day",
            help="Last day on which it is sold, YYYY-MM-DD, UTC. Default: yesterday.",
        ),
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Sell a package no longer. Plans of it go on as they are, and monthly ones renew themselves.

    Without `trial` nobody gets a trial; add another package of that kind to offer a different one.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        desk = opened.desk
        last = (
            desk.date() - timedelta(days=1) if last_day is None else parse_date(last_day, field="--last-day")
        )
        changed = packages.end(desk, actor, name, last_day=last)
    _report(changed, json)


def shown_package(package: Package) -> dict[str, Any]:
    """A version, for programs."""
    return {
        "package": package.name,
        "version": package.version,
        "kind": str(package.kind),
        "months": package.months or None,
        "days": package.days or None,
        "retention_days": package.retention_days,
        "max_devices": package.max_devices or None,
        "max_bytes_per_day": package.limits.bytes_per_day or None,
        "max_chunks_per_s": package.limits.chunks_per_s or None,
        "prices": {
            currency: {"fee_minor": terms.fee.minor, "monthly_fee_minor": terms.monthly_fee.minor}
            for currency, terms in sorted(package.prices.items())
        },
        "is_applied": package.is_applied,
        "sold_from": package.sold_from.isoformat(),
        "sold_until": None if package.sold_until is None else package.sold_until.isoformat(),
    }


def package_row(package: Package) -> list[Any]:
    """A version, for people: the columns of PACKAGE_HEADS."""
    lasts = {
        PackageKind.TRIAL: f"{package.days} days, once per account",
        PackageKind.MONTHLY: "a month, renews itself",
        PackageKind.FULL: f"{package.months} months",
    }[package.kind]
    price = ", ".join(_price(package, terms) for _, terms in sorted(package.prices.items())) or "free"
    return [
        *(package.name, package.version, str(package.kind), lasts, package.retention_days),
        *(package.max_devices or "any", package.limits.bytes_per_day or "any"),
        *(package.limits.chunks_per_s or "any", price, package.sold_from, package.sold_until),
    ]


def _price(package: Package, terms: Terms) -> str:
    """With what a refund counts for each month, where that is another amount."""
    return (
        str(terms.fee)
        if package.kind is PackageKind.MONTHLY
        else f"{terms.fee} ({terms.monthly_fee} a month)"
    )


def _report(found: Sequence[Package], json: bool) -> None:
    document = {"packages": [shown_package(package) for package in found]}
    rows = [package_row(package) for package in found]
    terminal.report(document, json, lambda: terminal.table("packages", PACKAGE_HEADS, rows))


def _prices(given: Sequence[str] | None, kind: PackageKind) -> dict[str, Terms]:
    """Raises CallerError `bad_price`."""
    prices: dict[str, Terms] = {}
    for text in given or ():
        found = _PRICE.fullmatch(text)
        if found is None or found[1] in prices:
            raise CallerError(
                f"--price {text}: write CURRENCY=FEE or CURRENCY=FEE:MONTHLY in whole minor units, each currency once,"
                " such as USD=599",
                code="bad_price",
            )
        currency, fee, monthly = found[1], int(found[2]), found[3]
        if (kind is PackageKind.FULL) != (monthly is not None):
            raise CallerError(
                f"--price {text}: a package paid in full has FEE:MONTHLY, a monthly one the fee alone",
                code="bad_price",
            )
        prices[currency] = Terms(
            Money(fee, currency), Money(fee if monthly is None else int(monthly), currency)
        )
    return prices


def register(app: typer.Typer) -> None:
    app.add_typer(package_app, name="package")
