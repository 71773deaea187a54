"""Accounts and their devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace

from storage.days import ms_of_day
from storage.errors import CatalogUnavailable, Conflict, NotFound, Unprocessable
from storage.rows.accounts import (
    OPERATOR_ACCOUNT,
    PLAN_ENDING,
    TRIAL_ENDING,
    AccountRow,
    AccountState,
    ClosingState,
)
from storage.rows.devices import DeviceFacts
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table, of_accounts
from storage.sql.connection import Refers, Taken, bounded
from storage.sql.devices import (
    change_facts,
    facts_of,
    facts_where,
    insert_devices,
    log_change,
    next_device,
)
from storage.sql.numbers import highest_given, require_room
from storage.sql.sealing import bucket, give_key

ACCOUNTS = Table(
    "accounts",
    AccountRow,
    ("account",),
    "account",
    decode={"state": AccountState, "closing": ClosingState},
    private=("name", "email", "mobile", "password_hash", "suspend_reason", "closing_reason"),
)


class Accounts(OnBooks):
    def add_account(self, row: AccountRow) -> AccountRow:
        connection = self._writer
        row = replace(row, account=highest_given(connection, "account") + 1)
        require_room(connection, "account", row.account)
        self._require_free(row)
        key_id = self._next_key()
        try:
            give_key(connection, key_id, row.account)
        except Taken as error:
            self.spoiled_keys.add(key_id)
            raise CatalogUnavailable(
                "this took so long that the new account's key was taken for unused; try again",
                subject=f"account {row.account}",
            ) from error
        ACCOUNTS.add(connection, self._keys, row, **self._buckets(row))
        return row

    def put_account(self, row: AccountRow) -> None:
        old = self.account(row.account)
        if row.account == OPERATOR_ACCOUNT and (is_barred(row) or row.kind != old.kind):
            raise Unprocessable(
                "the built-in operator account is never suspended or cancelled",
                subject=f"account {row.account}",
                code="operator_account",
            )
        self._require_going_on(old)
        self._require_free(row)
        before = self.devices_of(row.account, limit=-1) if is_barred(row) != is_barred(old) else []
        ACCOUNTS.put(self._writer, self._keys, row, **self._buckets(row))
        if row.state is AccountState.CANCELLED:
            what = "account cancelled"
        else:
            what = "account resumed" if row.suspended_ms is None else "account suspended"
        self._tell(before, what)

    def _require_going_on(self, row: AccountRow) -> None:
        if row.state is AccountState.CANCELLED:
            raise Conflict(
                "this account was cancelled, for good; a new one may be registered",
                subject=f"account {row.account}",
                code="account_cancelled",
            )

    def _require_free(self, row: AccountRow) -> None:
        for kind, address in (("email", row.email), ("mobile", row.mobile)):
            found = None if address is None else self.account_at(**{kind: address})
            if found is not None and found.account != row.account:
                raise Conflict(f"another account has this {kind} address", code="address_taken")

    def _buckets(self, row: AccountRow) -> dict[str, int | None]:
        return {
            "email_bucket": bucket(self._reader, self._keys, "email", row.email),
            "mobile_bucket": bucket(self._reader, self._keys, "mobile", row.mobile),
        }

    def _tell(self, before: list[DeviceFacts], what: str) -> None:
        """Log, and tell the bitmap, that an account's devices may do something else than before."""
        for old in before:
            log_change(self._writer, old.device, what, self._logging())
            self._revoking()(old, self.device(old.device))

    def account(self, account: int) -> AccountRow:
        return ACCOUNTS.get(self._reader, self._keys, account)

    def account_at(self, *, email: str | None = None, mobile: str | None = None) -> AccountRow | None:
        for column, address in (("email", email), ("mobile", mobile)):
            place = bucket(self._reader, self._keys, column, address)
            for row in ACCOUNTS.select(
                self._reader, self._keys, f"{column}_bucket = ?", (place,)
            ):  # NULL equals nothing
                if getattr(row, column) == address:
                    return row
        return None

    def accounts(
        self, *, after: int = 0, limit: int = 100, state: AccountState | None = None
    ) -> list[AccountRow]:
        return ACCOUNTS.select(
            self._reader,
            self._keys,
            "account > :after AND state = coalesce(:state, state) ORDER BY account LIMIT :limit",
            {"after": after, "state": state, "limit": limit},
        )

    def last_used_on(self, account: int) -> int:
        row = self._reader.execute(
            "SELECT max(used_on) FROM (SELECT used_on FROM accounts WHERE account = :account"
            " UNION ALL SELECT used_on FROM devices WHERE account = :account) AS uses",
            {"account": account},
        ).fetchone()
        if row[0] is None:
            raise NotFound("no such account", subject=f"account {account}")
        return int(row[0])

    def note_requests(self, accounts: Collection[int], day: int, *, version: int) -> None:
        self._writer.execute(
            f"UPDATE accounts SET used_on = {self._writer.larger('used_on', ':day')},"
            f" used_version = {self._writer.larger('used_version', ':version')}"
            f" WHERE {self._writer.among('account', ':accounts')} AND state != 'cancelled'"
            " AND (used_on < :day OR used_version < :version)",
            {"day": day, "version": version, "accounts": json.dumps(sorted(accounts))},
        )

    def newest_account(self) -> int:
        return int(self._reader.execute("SELECT max(account) FROM accounts").fetchone()[0])

    def unused_accounts(self, *, before_day: int, after: int = 0, limit: int = 100) -> list[AccountRow]:
        return ACCOUNTS.select(
            self._reader,
            self._keys,
            "account > :after AND kind = 'owner' AND state != 'cancelled' AND created_ms < :before_ms"
            " AND used_on < :day"
            " AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.account = accounts.account AND d.used_on >= :day)"
            " ORDER BY account LIMIT :limit",
            {"after": after, "before_ms": ms_of_day(before_day), "day": before_day, "limit": limit},
        )

    def approved_closings(self, *, after: int = 0, limit: int = 100) -> list[AccountRow]:
        return ACCOUNTS.select(
            self._reader,
            self._keys,
            "closing = 'approved' AND account > ? AND state != 'cancelled' ORDER BY account LIMIT ?",
            (after, limit),
        )

    def requested_closings(self, *, after: int = 0, limit: int = 100) -> list[AccountRow]:
        return ACCOUNTS.select(
            self._reader,
            self._keys,
            "closing = 'requested' AND account > ? AND state != 'cancelled' ORDER BY account LIMIT ?",
            (after, limit),
        )

    # --- devices ----------------------------------------------------------------------------------------------

    def add_device(self, account: int) -> DeviceFacts:
        connection, now_ms = self._writer, self._logging()
        self._require_going_on(self.account(account))
        number = next_device(connection)
        if self._max_device is not None and number > self._max_device:
            raise Unprocessable(
                f"there is room for {self._max_device} devices. Stop the service, set [retention] max_devices in"
                " config.toml, and move entitlements.bitmap aside: the next start makes a larger one",
                code="too_many_devices",
            )
        [facts] = insert_devices(connection, 1, account=account, plans=(), now_ms=now_ms)
        return facts

    def device(self, device: int) -> DeviceFacts:
        return facts_of(self._reader, device)

    def device_of_plan(self, plan_id: int) -> DeviceFacts:
        found = self._reader.execute("SELECT device FROM plans WHERE plan_id = ?", (plan_id,)).fetchone()
        if found is None:
            raise NotFound("no such plan", subject=f"plan {plan_id}")
        return self.device(found[0])

    def devices_of(self, *accounts: int, after: int = 0, limit: int = 1000) -> list[DeviceFacts]:
        of_them, value = of_accounts(self._reader, accounts)
        where = f"{of_them} AND device > ? ORDER BY device LIMIT ?"
        return facts_where(self._reader, where, (value, after, bounded(limit)))

    def trials_ending(self, *, first: int, last: int, limit: int = 100) -> list[DeviceFacts]:
        rows = self._reader.execute(
            "SELECT p.device FROM plans p JOIN devices d USING (device) JOIN accounts a USING (account)"
            " WHERE p.kind = 'trial' AND p.ends_on BETWEEN ? AND ? AND p.ends_on >= p.starts_on"
            " AND d.terminated_ms IS NULL AND a.kind = 'owner' AND a.state = 'active' AND NOT EXISTS"
            " (SELECT 1 FROM notices n WHERE n.account = d.account AND n.purpose = ?) ORDER BY p.ends_on LIMIT ?",
            (first, last, TRIAL_ENDING, limit),
        )
        return [self.device(row[0]) for row in rows.fetchall()]

    def plans_ending(self, *, first: int, last: int, limit: int = 100) -> list[tuple[int, str]]:
        purpose = f"'{PLAN_ENDING}:' || p.plan_id || ':' || p.ends_on"
        rows = self._reader.execute(
            f"SELECT p.plan_id, {purpose} FROM plans p JOIN devices d ON d.device = p.device"
            " JOIN accounts a ON a.account = d.account LEFT JOIN subscriptions s ON s.plan_id = p.plan_id"
            " WHERE p.kind != 'trial' AND p.ends_on BETWEEN ? AND ? AND p.ends_on >= p.starts_on"
            " AND coalesce(s.renews, 0) = 0 AND d.terminated_ms IS NULL AND a.kind = 'owner' AND a.state = 'active'"
            f" AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.account = a.account AND n.purpose = {purpose})"
            " ORDER BY p.ends_on, p.plan_id LIMIT ?",
            (first, last, limit),
        )
        return [(row[0], row[1]) for row in rows.fetchall()]

    def change_device(
        self, device: int, change: Callable[[DeviceFacts], DeviceFacts], *, what: str
    ) -> DeviceFacts:
        connection, revoke, now_ms = self._writer, self._revoking(), self._logging()
        try:
            facts, _ = change_facts(
                connection, device, change, what=what, now_ms=now_ms, before_commit=revoke
            )
        except Refers as error:
            raise Unprocessable(
                "a plan that was paid for is not removed, only ended",
                subject=f"device {device}",
                code="plan_in_use",
            ) from error
        return facts


def is_barred(row: AccountRow) -> bool:
    """Whether the account's devices may do nothing, as `DeviceFacts.account_suspended` says."""
    return row.suspended_ms is not None or row.state is AccountState.CANCELLED
