"""What `clipkeep check` looks at in the account books."""

from __future__ import annotations

from collections.abc import Iterator

from storage.sql.books.erasing import OF_ACCOUNT
from storage.sql.connection import Connection


def broken_books(connection: Connection) -> Iterator[str]:
    """Yield a sentence per disagreement among the rows of the books."""
    has_key = "account IN (SELECT account FROM account_keys WHERE account IS NOT NULL)"
    for (account,) in connection.execute(
        "SELECT account FROM (SELECT account FROM accounts WHERE state != 'cancelled' UNION SELECT 0) AS living"
        f" WHERE NOT {has_key}"
    ):
        yield f"account {account}: its key is missing, so what is sealed with it is lost; restore a backup"
    for table in OF_ACCOUNT:
        for account, count in connection.execute(
            f"SELECT account, count(*) FROM {table} WHERE NOT {has_key} AND account IN"
            " (SELECT account FROM accounts WHERE state = 'cancelled') GROUP BY 1"
        ):
            yield f"account {account}: was erased, but has {count} rows in {table}"
    for plan_id, device, account, plans_device, devices_account in connection.execute(
        "SELECT plan_id, s.device, s.account, p.device, d.account FROM subscriptions s"
        " JOIN plans p USING (plan_id) JOIN devices d ON d.device = s.device"
        " WHERE s.device != p.device OR s.account != d.account"
    ):
        if device != plans_device:
            yield f"plan {plan_id}: its subscription is of device {device}, the plan of device {plans_device}"
        if account != devices_account:
            yield f"plan {plan_id}: its subscription is of account {account}, its device of account {devices_account}"
