"""Devices for an owner's account, with a plan at once where one is wanted: all of it or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from service.agreement import serials
from service.agreement.desk import Actor, Desk
from service.agreement.devices import add_in
from service.agreement.purchases import grant_in
from storage.catalog.books import Books
from storage.rows.devices import DeviceFacts


@dataclass(frozen=True, slots=True)
class Grant:
    """A plan to start, see `purchases.grant`."""

    package: str
    retention_days: int | None = None
    starts_on: date | None = None


def equip(
    desk: Desk,
    actor: Actor,
    account: int,
    count: int,
    grant: Grant | None = None,
    serial: str | None = None,
) -> list[DeviceFacts]:
    """Add `count` devices, and start the same plan for each.

    Raises:
        As `devices.add_device` and `purchases.grant`; then nothing was added.
    """

    serial = serials.checked(desk, account, serial if count == 1 else None)

    def work(books: Books) -> list[DeviceFacts]:
        added = add_in(desk, books, actor, account, count, serial)
        if grant is not None:
            for facts in added:
                grant_in(
                    desk,
                    books,
                    actor,
                    facts.device,
                    grant.package,
                    retention_days=grant.retention_days,
                    starts_on=grant.starts_on,
                )
        return added

    return desk.change(work)
