"""How much is kept: bytes and hours by day, of a device and of an account."""

from __future__ import annotations

from service.agreement.desk import Actor, Desk, account_of, device_of
from service.agreement.kept_counts import Kept


def of_device(desk: Desk, actor: Actor, device: int) -> Kept:
    """What is kept of a device, as far as it was counted. Raises NotFound."""
    with desk.reading() as books:
        device_of(books, actor, device)
    return desk.kept.of(desk.catalog, [device], today=desk.today())


def of_account(desk: Desk, actor: Actor, account: int, *, after: int = 0, limit: int = 100) -> Kept:
    """What is kept of an account's devices, of `limit` with numbers above `after`, as far as it was counted. Raises
    NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        numbers = [facts.device for facts in books.devices_of(account, after=after, limit=limit)]
    return desk.kept.of(desk.catalog, numbers, today=desk.today())
