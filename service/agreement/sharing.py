"""What is given to a partner (agreement 2.7): of accounts that consented to this one, the fields that the configuration
names, and each time noted in the account's history before it is handed over. Without a configured partner: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.agreement.consents import PARTNER
from service.agreement.desk import Actor, Desk
from service.agreement.texts import cell, one_line
from service.partners import parse_partners
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import AccountRow, AccountState

PAGE_ACCOUNTS = 100
MAX_DEVICES = 10_000


def partners(desk: Desk) -> dict[str, tuple[str, ...]]:
    """The fields that each partner is given."""
    return dict(parse_partners(desk.settings.partners))


def share(
    desk: Desk, actor: Actor, partner: str, why: str, give: Callable[[list[dict[str, str]]], None]
) -> int:
    """Hand over what a partner is to have, a page at a time. Returns how many accounts.

    Args:
        why: kept in the history of each account.
        give: called with each page, after it was noted: what was handed over is noted for certain, and a page that was
            noted may be one that got lost.

    Raises:
        Forbidden: `operators_only`; NotFound: `unknown_partner`; Unprocessable: `bad_text`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")
    fields = partners(desk).get(partner)
    if fields is None:
        raise NotFound(
            "no partner of this name is configured: [agreement] partners",
            subject=partner,
            code="unknown_partner",
        )
    count = 0
    for rows in _pages(desk, actor, partner, fields, why):
        give(rows)
        count += len(rows)
    return count


def _pages(
    desk: Desk, actor: Actor, partner: str, fields: tuple[str, ...], why: str
) -> Iterator[list[dict[str, str]]]:
    after = 0
    while True:

        def work(books: Books, after: int = after) -> tuple[int | None, list[dict[str, str]]]:
            accounts = books.consenting(PARTNER + partner, after=after, limit=PAGE_ACCOUNTS)
            found = [books.account(account) for account in accounts]
            given = [row for row in found if row.state is AccountState.ACTIVE and row.suspended_ms is None]
            for row in given:
                facts = {"partner": partner, "fields": list(fields)}
                desk.record(books, actor, row.account, "shared", why=why, facts=facts)
            return (accounts[-1] if accounts else None), [_given(books, row, fields) for row in given]

        last, rows = desk.write(work)
        if last is None:
            return
        if rows:
            yield rows
        after = last


def _given(books: Books, row: AccountRow, fields: tuple[str, ...]) -> dict[str, str]:
    """A line of the file. What an owner wrote is no formula in it; a mobile number is digits, and keeps its plus."""
    values = {
        "account": str(row.account),
        "name": cell(row.name),
        "email": cell(row.email or ""),
        "mobile": row.mobile or "",
        "devices": "",
    }
    if "devices" in fields:
        devices = books.devices_of(row.account, limit=MAX_DEVICES)
        values["devices"] = " ".join(str(one.device) for one in devices if one.terminated_ms is None)
    return {field: values[field] for field in fields}
