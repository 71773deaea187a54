"""The catalog as plans use it: devices, their plans, the change log."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from storage.catalog.devices import CHANGES_PAGE, DevicesCatalog
from storage.errors import CallerError, NotFound
from storage.rows.devices import (
    DEVICE_COLUMNS,
    NO_END,
    PLAN_COLUMNS,
    DeviceFacts,
    EraseState,
    PlanRow,
)
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, writing
from storage.sql.ending_clips import end_clips_of_epoch
from storage.sql.erasure_records import note_marked
from storage.sql.numbers import highest_given, next_generation, require_room

CHANGE_CODE = re.compile(r"(?:[a-z]+: )?[a-z_ -]{0,40}")
"""What the change log takes: who, and what was done. It is not sealed and outlives the account, so there is no place in
it for an address, a number or a sentence."""
_FACTS = (
    "device, account, token_generation, erase_epoch, suspended, terminated_ms, erase_state, erase_reason,"
    " viewer_generation,"
    " (SELECT suspended_ms IS NOT NULL OR state = 'cancelled' FROM accounts WHERE account = devices.account)"
)


class Devices(OnDatabase, DevicesCatalog):
    @writing()
    def add_devices(
        self, connection: Connection, count: int, *, account: int, plans: Sequence[PlanRow], now_ms: int
    ) -> list[DeviceFacts]:
        return insert_devices(connection, count, account=account, plans=plans, now_ms=now_ms)

    def device(self, device: int) -> DeviceFacts:
        with self.db.read() as connection:
            return facts_of(connection, device)

    def devices(self, *, after: int = 0, limit: int = 1000) -> list[DeviceFacts]:
        with self.db.read() as connection:
            return facts_where(connection, "device > ? ORDER BY device LIMIT ?", (after, limit))

    def device_columns(
        self, *, after: int = 0, limit: int = 1000, numbers: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        with self.db.read() as connection:
            these: str = ""
            values: tuple[str, ...] = ()
            if numbers is not None:
                these = f" AND {connection.among('device', '?')}"
                values = (json.dumps(list(numbers)),)
            devices = connection.records(
                "SELECT device, token_generation, viewer_generation, erase_epoch,"
                " CAST(CASE WHEN devices.suspended <> 0 OR accounts.suspended_ms IS NOT NULL"
                " OR accounts.state = 'cancelled' THEN 1 ELSE 0 END AS BIGINT),"
                " CAST(CASE WHEN terminated_ms IS NULL THEN 0 ELSE 1 END AS BIGINT), erase_state"
                " FROM devices LEFT JOIN accounts ON accounts.account = devices.account"
                f" WHERE device > ?{these} ORDER BY device LIMIT ?",
                (after, *values, limit),
                DEVICE_COLUMNS,
            )
            last = int(devices["device"][-1]) if len(devices) else after
            plans = connection.records(
                f"SELECT device, starts_on, coalesce(ends_on, {NO_END}), retention_days, limit_class"
                f" FROM plans WHERE device > ? AND device <= ?{these} ORDER BY device, plan_id",
                (after, last, *values),
                PLAN_COLUMNS,
            )
        return devices, plans

    def upload_limits(self) -> list[tuple[int, int, int]]:
        with self.db.read() as connection:
            found = connection.execute(
                "SELECT DISTINCT limit_class, max_bytes_per_day, max_chunks_per_s FROM packages"
                " WHERE limit_class > 0 ORDER BY limit_class"
            ).fetchall()
        return [(int(number), int(bytes_), int(chunks)) for number, bytes_, chunks in found]

    def devices_numbered(self, numbers: Sequence[int]) -> list[DeviceFacts]:
        with self.db.read() as connection:
            where = f"{connection.among('device', '?')} ORDER BY device"
            return facts_where(connection, where, (json.dumps(list(numbers)),))

    @writing()
    def update_device(
        self,
        connection: Connection,
        device: int,
        change: Callable[[DeviceFacts], DeviceFacts],
        *,
        what: str,
        now_ms: int,
        before_commit: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
    ) -> tuple[DeviceFacts, int]:
        return change_facts(connection, device, change, what=what, now_ms=now_ms, before_commit=before_commit)

    def changes_after(self, number: int, limit: int = CHANGES_PAGE) -> tuple[list[int], int]:
        with self.db.read() as connection:
            last = min(newest_change(connection), number + limit)
            rows = connection.execute(
                "SELECT DISTINCT device FROM changes WHERE number > ? AND number <= ? ORDER BY device",
                (number, last),
            )
            return [row[0] for row in rows], last

    def devices_changing_on(self, day: int) -> list[int]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT device FROM plans WHERE starts_on = ? OR ends_on = ?", (day, day - 1)
            )
            return [row[0] for row in rows]


def newest_change(connection: Connection) -> int:
    row = connection.execute("SELECT coalesce(max(number), 0) FROM changes").fetchone()
    return int(row[0])


def insert_devices(
    connection: Connection, count: int, *, account: int, plans: Sequence[PlanRow], now_ms: int
) -> list[DeviceFacts]:
    """See `Catalog.add_devices`."""
    if not connection.execute("SELECT 1 FROM accounts WHERE account = ?", (account,)).fetchone():
        raise NotFound("no such account", subject=f"account {account}")
    classes = json.dumps(sorted({p.retention_days for p in plans}))
    first = next_device(connection)
    numbers = range(first, first + count)
    require_room(connection, "device", numbers.stop - 1)
    connection.executemany(
        "INSERT INTO devices (device, account, classes, created_ms) VALUES (?, ?, ?, ?)",
        [(n, account, classes, now_ms) for n in numbers],
    )
    connection.gave_numbers("devices", numbers.stop - 1)
    connection.executemany(_INSERT_PLAN, (_plan_values(n, p, now_ms) for n in numbers for p in plans))
    connection.executemany(
        "INSERT INTO changes (number, device, what, at_ms) VALUES (?, ?, 'added', ?)",
        [(c, n, now_ms) for c, n in zip(connection.change_numbers(count), numbers, strict=True)],
    )
    return facts_where(connection, "device BETWEEN ? AND ?", (first, first + count - 1))


def next_device(connection: Connection) -> int:
    """The number of the next device that is added."""
    return connection.last_number("devices") + 1


def change_facts(
    connection: Connection,
    device: int,
    change: Callable[[DeviceFacts], DeviceFacts],
    *,
    what: str,
    now_ms: int,
    before_commit: Callable[[DeviceFacts, DeviceFacts], None] | None,
) -> tuple[DeviceFacts, int]:
    """See `Catalog.update_device`."""
    old = facts_of(connection, device)
    new = change(old)
    if new == old:
        return old, 0
    fixed = (old.device, old.account, old.account_suspended)
    if (new.device, new.account, new.account_suspended) != fixed:
        raise CallerError(
            "a device's number and account never change, and its account's suspension only with the account",
            subject=f"device {device}",
        )
    if new.token_generation > old.token_generation:
        new = replace(new, token_generation=next_generation(connection, new.token_generation))
    if new.erase_epoch != old.erase_epoch or {p.retention_days for p in new.plans} - {
        p.retention_days for p in old.plans
    }:
        connection.exclude_commits()
    _write(connection, old, new, now_ms)
    require_room(connection, "plan", highest_given(connection, "plan"))
    note_marked(connection, old, new, what=what, now_ms=now_ms)
    number = log_change(connection, device, what, now_ms)
    stored = facts_of(connection, device)
    if before_commit is not None:
        before_commit(old, stored)
    return stored, number


def log_change(connection: Connection, device: int, what: str, now_ms: int) -> int:
    """Append to the change log; returns the number of the change.

    Raises:
        CallerError: `not_a_code`.
    """
    if not CHANGE_CODE.fullmatch(what):
        raise CallerError(
            "the change log takes a code in small letters; what a person wrote belongs into the account's history",
            subject=f"device {device}",
            code="not_a_code",
        )
    [number] = connection.execute(
        "INSERT INTO changes (number, device, what, at_ms) VALUES (?, ?, ?, ?) RETURNING number",
        (*connection.change_numbers(1), device, what, now_ms),
    ).fetchone()
    return int(number)


def facts_of(connection: Connection, device: int) -> DeviceFacts:
    found = facts_where(connection, "device = ?", (device,))
    if not found:
        raise no_such_device(device)
    return found[0]


def no_such_device(device: int) -> NotFound:
    return NotFound("no such device; `clipkeep device list` shows them", subject=f"device {device}")


def facts_where(connection: Connection, where: str, values: tuple[object, ...]) -> list[DeviceFacts]:
    found = {}
    for row in connection.execute(f"SELECT {_FACTS} FROM devices WHERE {where}", values):
        device, account, generation, epoch, suspended, terminated_ms, erase_state, erase_reason, *rest = row
        viewer_generation, barred = rest
        found[device] = DeviceFacts(
            device,
            account,
            generation,
            epoch,
            suspended=bool(suspended),
            terminated_ms=terminated_ms,
            erase_state=EraseState(erase_state),
            erase_reason=erase_reason,
            account_suspended=bool(barred),
            viewer_generation=viewer_generation,
        )
    plans: dict[int, list[PlanRow]] = {}
    for device, *columns in connection.execute(
        "SELECT device, plan_id, kind, starts_on, ends_on, retention_days, cancelled_on, package,"
        " package_version, limit_class FROM plans"
        f" WHERE {connection.among('device', '?')} ORDER BY plan_id",
        (json.dumps(list(found)),),
    ):
        plans.setdefault(device, []).append(PlanRow(*columns))
    return [replace(facts, plans=tuple(plans.get(number, ()))) for number, facts in found.items()]


def _write(connection: Connection, old: DeviceFacts, new: DeviceFacts, now_ms: int) -> None:
    connection.execute(
        "UPDATE devices SET token_generation = ?, viewer_generation = ?, erase_epoch = ?, suspended = ?,"
        " terminated_ms = ?, erase_state = ?, erase_reason = ?,"
        " stale_rows = CASE WHEN erase_epoch = ? THEN stale_rows ELSE 1 END"
        " WHERE device = ?",
        (
            new.token_generation,
            new.viewer_generation,
            new.erase_epoch,
            int(new.suspended),
            new.terminated_ms,
            new.erase_state,
            new.erase_reason,
            new.erase_epoch,
            new.device,
        ),
    )
    if new.erase_epoch != old.erase_epoch:
        connection.execute("DELETE FROM live_lists WHERE device = ?", (new.device,))
        connection.execute("DELETE FROM inits WHERE device = ?", (new.device,))
        end_clips_of_epoch(connection, new.device, below_epoch=new.erase_epoch, now_ms=now_ms)
    known = {plan.plan_id: plan for plan in old.plans}
    for plan in new.plans:
        if plan.plan_id == 0:
            connection.execute(_INSERT_PLAN, _plan_values(new.device, plan, now_ms))
            continue
        if plan.plan_id not in known:
            raise CallerError(f"plan {plan.plan_id} is not of this device", subject=f"device {new.device}")
        if known.pop(plan.plan_id) != plan:
            connection.execute(
                "UPDATE plans SET kind = ?, starts_on = ?, ends_on = ?, retention_days = ?, cancelled_on = ?,"
                " package = ?, package_version = ?, limit_class = ? WHERE plan_id = ?",
                (
                    plan.kind,
                    plan.starts_on,
                    plan.ends_on,
                    plan.retention_days,
                    plan.cancelled_on,
                    plan.package,
                    plan.package_version,
                    plan.limit_class,
                    plan.plan_id,
                ),
            )
    for plan_id in known:
        connection.try_execute("DELETE FROM plans WHERE plan_id = ?", (plan_id,))  # Refers: it was paid for
    # Classes only ever grow: chunks written under an earlier plan keep its class.
    classes = connection.execute("SELECT classes FROM devices WHERE device = ?", (new.device,)).fetchone()[0]
    merged = sorted({*json.loads(classes), *(plan.retention_days for plan in new.plans)})
    connection.execute("UPDATE devices SET classes = ? WHERE device = ?", (json.dumps(merged), new.device))


_INSERT_PLAN = (
    "INSERT INTO plans (device, kind, starts_on, ends_on, retention_days, cancelled_on, package, package_version,"
    " limit_class, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _plan_values(device: int, plan: PlanRow, now_ms: int) -> tuple[object, ...]:
    days = (plan.starts_on, plan.ends_on, plan.retention_days, plan.cancelled_on)
    return (device, plan.kind, *days, plan.package, plan.package_version, plan.limit_class, now_ms)
