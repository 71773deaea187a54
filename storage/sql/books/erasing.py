"""The end of an account: what was stored of it is overwritten, and its addresses stay reserved for a while."""

from __future__ import annotations

from storage.days import day_of_ms
from storage.errors import Unprocessable
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState
from storage.rows.devices import EraseState
from storage.sql.books.accounts import ACCOUNTS, Accounts
from storage.sql.books.money import reference_hash
from storage.sql.sealing import end_key, key_id_of

HISTORY = ("events", "acceptances")
"""Tables that are only added to, until their account is cancelled."""
OF_ACCOUNT = (
    "sessions",
    "codes",
    "identities",
    "payments",
    "methods",
    "subscriptions",
    "blocks",
    "notices",
    "answers",
    "corrections",
    "consents",
    "serials",
    "device_names",
    "data_exports",
    "shares",
    "kept_clips",
    *HISTORY,
)
"""Tables with rows of an account; payments and subscriptions refer to plans, which go last."""
MONEY = "'charge', 'refund', 'dispute'"
"""Kinds of payments that are money. Credits are none, and a counter-entry goes with what it takes back."""
MOVED = "'done', 'paid_otherwise', 'lost'"
"""States in which it has moved for good."""
LEFT_IN_LOG = "erased_left_in_log"
"""In `meta` while the write-ahead log may hold what was erased."""


class Erasing(Accounts):
    def erase_account(self, account: int, *, cancelled_on: int) -> None:
        connection = self._writer
        row = self.account(account)
        if account == OPERATOR_ACCOUNT:
            raise Unprocessable(
                "the built-in operator account is never cancelled",
                subject=f"account {account}",
                code="operator_account",
            )
        if key_id_of(connection, account) is None:
            return
        before = self.devices_of(account, limit=-1)
        for facts in before:
            if facts.erase_state is EraseState.NONE or facts.terminated_ms is None:
                raise Unprocessable(
                    "terminate the device and mark it for erasure first, in this transaction",
                    subject=f"device {facts.device}",
                    code="not_marked",
                )
        self.erased = True
        connection.overwrite_freed()
        empty = AccountRow(account, row.kind, "", 0, state=AccountState.CANCELLED, cancelled_on=cancelled_on)
        ACCOUNTS.put(
            connection, self._keys, empty, **self._buckets(empty)
        )  # first: events go only with a cancelled one
        connection.forget_history(account)
        self._keep_what_moved(account)
        for table in (table for table in OF_ACCOUNT if table not in HISTORY):
            connection.execute(f"DELETE FROM {table} WHERE account = ?", (account,))
        devices = "device IN (SELECT device FROM devices WHERE account = ?)"
        for table in ("plans", "sightings", "refusals"):
            connection.execute(f"DELETE FROM {table} WHERE {devices}", (account,))
        connection.execute(f"UPDATE deletions SET reason = ? WHERE {devices}", (b"", account))
        end_key(connection, account)
        connection.execute("INSERT INTO meta VALUES (?, 1) ON CONFLICT DO NOTHING", (LEFT_IN_LOG,))
        self._tell(before, "account cancelled")  # those that ended before have no other change of today

    def _keep_what_moved(self, account: int) -> None:
        """Of each payment that moved money number, kind, amount and day, and by what it is known again (6.5.4)."""
        connection = self._writer
        rows = connection.execute(
            "SELECT payment_id, kind, state, currency, minor, at_ms, reference FROM payments WHERE account = ?"
            f" AND kind IN ({MONEY}) AND state IN ({MOVED})",
            (account,),
        ).fetchall()
        connection.executemany(
            "INSERT INTO closed_payments (payment_id, kind, state, currency, minor, day, reference_hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*row[:5], day_of_ms(row[5]), reference_hash(connection, self._keys, row[6])) for row in rows],
        )

    def reserve_address(self, address_hash: bytes, *, until_day: int) -> None:
        self._writer.execute(
            "INSERT INTO reserved_addresses VALUES (?, ?)"
            " ON CONFLICT (address_hash) DO UPDATE SET until_day = excluded.until_day"
            " WHERE reserved_addresses.until_day < excluded.until_day",
            (address_hash, until_day),
        )

    def is_reserved(self, address_hash: bytes, *, on: int) -> bool:
        row = self._reader.execute(
            "SELECT 1 FROM reserved_addresses WHERE address_hash = ? AND until_day >= ?", (address_hash, on)
        )
        return row.fetchone() is not None

    def drop_reserved(self, *, before_day: int) -> int:
        cursor = self._writer.execute("DELETE FROM reserved_addresses WHERE until_day < ?", (before_day,))
        return cursor.rowcount
