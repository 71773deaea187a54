"""What was bought, and the money that moved for it."""

from __future__ import annotations

import json
from dataclasses import replace

from storage.account_keys import AccountKeys
from storage.rows.accounts import (
    ClosedPayment,
    MethodRow,
    MethodState,
    PaymentKind,
    PaymentRow,
    PaymentState,
    SubscriptionRow,
)
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table, of_accounts
from storage.sql.connection import Connection
from storage.sql.numbers import require_room
from storage.sql.sealing import keyed_hash

SUBSCRIPTIONS = Table(
    "subscriptions",
    SubscriptionRow,
    ("plan_id",),
    "subscription",
    decode={"renews": bool},
    private=("method",),
)
PAYMENTS = Table(
    "payments",
    PaymentRow,
    ("payment_id",),
    "payment",
    decode={"kind": PaymentKind, "state": PaymentState, "detail": json.loads},
    private=("why", "gateway_id", "detail"),
    taken="reference_taken",
)
METHODS = Table(
    "methods",
    MethodRow,
    ("reference",),
    "payment method",
    decode={"state": MethodState},
    private=("method", "label", "url"),
    taken="reference_taken",
)


class Money(OnBooks):
    def add_subscription(self, row: SubscriptionRow) -> None:
        SUBSCRIPTIONS.add(self._writer, self._keys, row)

    def put_subscription(self, row: SubscriptionRow) -> None:
        SUBSCRIPTIONS.put(self._writer, self._keys, row)

    def subscription(self, plan_id: int) -> SubscriptionRow:
        return SUBSCRIPTIONS.get(self._reader, self._keys, plan_id)

    def subscriptions_of(self, *accounts: int) -> list[SubscriptionRow]:
        of_them, value = of_accounts(self._reader, accounts)
        return SUBSCRIPTIONS.select(self._reader, self._keys, f"{of_them} ORDER BY plan_id", (value,))

    def subscriptions_of_device(self, *devices: int) -> list[SubscriptionRow]:
        where = f"{self._reader.among('device', '?')} ORDER BY plan_id"
        return SUBSCRIPTIONS.select(self._reader, self._keys, where, (json.dumps(devices),))

    def fee_changes_due(
        self, package: str, version: int, *, after: int = 0, limit: int = 100
    ) -> list[SubscriptionRow]:
        told = "next_fee_version <> 0 AND next_fee_version <> ?"
        of_package = (
            "SELECT package_version FROM plans p WHERE p.plan_id = subscriptions.plan_id AND p.package = ?"
        )
        if not version:  # by an index of few rows
            return SUBSCRIPTIONS.select(
                self._reader,
                self._keys,
                f"renews = 1 AND {told} AND EXISTS ({of_package}) AND plan_id > ? ORDER BY plan_id LIMIT ?",
                (0, package, after, limit),
            )
        return SUBSCRIPTIONS.select(
            self._reader,
            self._keys,
            f"renews = 1 AND plan_id > ? AND next_fee_version <> ? AND (({told} AND EXISTS ({of_package}))"
            f" OR (fee_version < ? AND ({of_package}) < ?)) ORDER BY plan_id LIMIT ?",
            (after, version, version, package, version, package, version, limit),
        )

    def renewals_due(
        self, *, ends_by: int, now_ms: int, after: int = 0, limit: int = 100
    ) -> list[SubscriptionRow]:
        return SUBSCRIPTIONS.select(
            self._reader,
            self._keys,
            "renews = 1 AND plan_id > ? AND retry_at_ms <= ?"
            " AND (SELECT ends_on FROM plans p WHERE p.plan_id = subscriptions.plan_id) <= ?"
            " ORDER BY plan_id LIMIT ?",
            (after, now_ms, ends_by, limit),
        )

    def add_payment(self, row: PaymentRow) -> PaymentRow:
        added = replace(row, payment_id=PAYMENTS.add(self._writer, self._keys, row, payment_id=None))
        require_room(self._writer, "payment", added.payment_id)
        return added

    def put_payment(self, row: PaymentRow) -> None:
        PAYMENTS.put(self._writer, self._keys, row)

    def payment(self, reference: str) -> PaymentRow | None:
        found = PAYMENTS.select(self._reader, self._keys, "reference = ?", (reference,))
        return found[0] if found else None

    def payments_of(
        self, *accounts: int, after: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[PaymentRow]:
        of_them, value = of_accounts(self._reader, accounts)
        order = "DESC" if newest_first else "ASC"
        where = f"{of_them} AND payment_id > ? ORDER BY payment_id {order} LIMIT ?"
        return PAYMENTS.select(self._reader, self._keys, where, (value, after, limit))

    def payments_of_plan(self, plan_id: int) -> list[PaymentRow]:
        return PAYMENTS.select(self._reader, self._keys, "plan_id = ? ORDER BY payment_id", (plan_id,))

    def pending_payments(self, *, before_ms: int, now_ms: int, limit: int = 100) -> list[PaymentRow]:
        return PAYMENTS.select(
            self._reader,
            self._keys,
            "state = 'pending' AND next_ms <= ? AND at_ms < ? ORDER BY next_ms, payment_id LIMIT ?",
            (now_ms, before_ms, limit),
        )

    def open_charges(self, *, account: int | None = None, device: int | None = None) -> list[PaymentRow]:
        where, values = ["state = 'pending'", "kind = 'charge'"], []
        for column, value in (("account", account), ("device", device)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        return PAYMENTS.select(
            self._reader, self._keys, f"{' AND '.join(where)} ORDER BY payment_id", tuple(values)
        )

    def failed_refunds(
        self, *, account: int | None = None, after: int = 0, limit: int = 100
    ) -> list[PaymentRow]:
        of_account = "" if account is None else "account = ? AND "
        where = (
            f"{of_account}kind = 'refund' AND state = 'failed' AND payment_id > ? ORDER BY payment_id LIMIT ?"
        )
        values = (after, limit) if account is None else (account, after, limit)
        return PAYMENTS.select(self._reader, self._keys, where, values)

    def payments(
        self,
        *,
        kind: PaymentKind | None = None,
        state: PaymentState | None = None,
        before_ms: int | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[PaymentRow]:
        # Kind and state are written out as the partial indexes have them: with a parameter SQLite would not use those.
        where, values = ["payment_id > ?"], [after]
        if kind is not None:
            where.append(f"kind = '{PaymentKind(kind).value}'")
        if state is not None:
            where.append(f"state = '{PaymentState(state).value}'")
        if before_ms is not None:
            where.append("at_ms < ?")
            values.append(before_ms)
        return PAYMENTS.select(
            self._reader,
            self._keys,
            f"{' AND '.join(where)} ORDER BY payment_id LIMIT ?",
            (*values, limit),
        )

    def payments_between(
        self, *, from_ms: int, until_ms: int, after: int = 0, limit: int = 1000
    ) -> list[PaymentRow]:
        where = "(at_ms, payment_id) > (?, ?) AND at_ms < ? ORDER BY at_ms, payment_id LIMIT ?"
        return PAYMENTS.select(self._reader, self._keys, where, (from_ms, after, until_ms, limit))

    def closed_payments(
        self, *, first: int, last: int, after: int = 0, limit: int = 1000
    ) -> list[ClosedPayment]:
        rows = self._reader.execute(
            "SELECT payment_id, kind, state, currency, minor, day FROM closed_payments"
            " WHERE (day, payment_id) > (?, ?) AND day <= ? ORDER BY day, payment_id LIMIT ?",
            (first, after, last, limit),
        )
        return [
            ClosedPayment(number, PaymentKind(kind), PaymentState(state), *more)
            for number, kind, state, *more in rows.fetchall()
        ]

    def is_of_closed(self, reference: str) -> bool:
        connection = self._reader
        row = connection.execute(
            "SELECT 1 FROM closed_payments WHERE reference_hash = ?",
            (reference_hash(connection, self._keys, reference),),
        )
        return row.fetchone() is not None

    def add_method(self, row: MethodRow) -> None:
        METHODS.add(self._writer, self._keys, row)

    def put_method(self, row: MethodRow) -> None:
        METHODS.put(self._writer, self._keys, row)

    def drop_method(self, reference: str) -> None:
        self._writer.execute("DELETE FROM methods WHERE reference = ?", (reference,))

    def method(self, reference: str) -> MethodRow | None:
        return METHODS.one(self._reader, self._keys, reference)

    def methods_of(self, account: int, *, limit: int = 100) -> list[MethodRow]:
        where = "account = ? ORDER BY made_ms DESC, reference LIMIT ?"
        return METHODS.select(self._reader, self._keys, where, (account, limit))


def reference_hash(connection: Connection, keys: AccountKeys, reference: str) -> bytes:
    """By which a payment of an erased account is known again when somebody has its reference; leads to nobody."""
    return keyed_hash(connection, keys, "payment", reference, 16)
