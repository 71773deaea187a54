"""The one path by which a change reaches the entitlement bitmap.

The catalog is the truth, the bitmap what the hot path reads. A revocation must be in the bitmap before it is
committed, a grant only after: so each change first writes the *meet* of the old and the new row (what both
allow), then commits, then writes the new row. Whatever happens in between, nobody is allowed what the catalog
does not allow.

Lock order: the bitmap's file lock, then the catalog's write transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from retention.bitmap import ALL_DEVICES, ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap, Row
from retention.compile import compile_row
from retention.plans import Plan, PlanKind
from storage.catalog import Catalog, DeviceFacts, EraseState, PlanRow
from storage.clock import Clock, today
from storage.days import to_date, to_day
from storage.errors import NotFound

ROLL_HORIZON_DAYS = 100
"""A row that reaches less far ahead than this is compiled anew: a row reaches 127 days when fresh."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Change = Callable[[DeviceFacts], DeviceFacts]


def plan_of(row: PlanRow) -> Plan:
    """The pure plan of a stored row."""
    return Plan(
        PlanKind(row.kind),
        to_date(row.starts_on),
        row.retention_days,
        None if row.ends_on is None else to_date(row.ends_on),
        None if row.cancelled_on is None else to_date(row.cancelled_on),
    )


def row_of(plan: Plan, plan_id: int = 0) -> PlanRow:
    """The row to store for a plan; 0 is a new one."""
    return PlanRow(
        plan_id,
        str(plan.kind),
        to_day(plan.starts_on),
        None if plan.ends_on is None else to_day(plan.ends_on),
        plan.retention_days,
        None if plan.cancelled_on is None else to_day(plan.cancelled_on),
    )


def entitled_from(facts: DeviceFacts, day: int) -> bool:
    """Whether any plan covers `day` or a later one."""
    return any(plan.ends_on is None or plan.ends_on >= max(day, plan.starts_on) for plan in facts.plans)


def bitmap_row(facts: DeviceFacts, on: int) -> Row:
    """What the bitmap says of a device on day number `on`."""
    flags = PRESENT
    if facts.suspended:
        flags |= SUSPENDED
    if facts.terminated_ms is not None:
        flags |= TERMINATED
    if facts.erase_state is not EraseState.NONE and not entitled_from(facts, on):
        flags |= ERASED
    return compile_row(
        [plan_of(plan) for plan in facts.plans],
        today=on,
        flags=flags,
        token_generation=facts.token_generation,
        erase_epoch=facts.erase_epoch,
    )


def meet(old: Row, new: Row) -> Row:
    """What both rows allow. Both are compiled for the same day, so their windows are the same."""
    assert old.first_day == new.first_day, "rows of two different days"
    return Row(
        old.flags | new.flags,
        new.class_days,
        new.first_day,
        new.token_generation,
        new.erase_epoch,
        old.days & new.days,
    )


class Entitlements:
    """Changes what devices may do, and keeps the bitmap what the catalog says."""

    def __init__(self, catalog: Catalog, bitmap: EntitlementBitmap, clock: Clock) -> None:
        self._catalog = catalog
        self._bitmap = bitmap
        self._clock = clock

    def today(self) -> int:
        """The day number that entitlement is judged by."""
        return today(self._clock, self._bitmap.closed_through)

    def change(self, device: int, change: Change, *, what: str) -> DeviceFacts:
        """Change one device; when this returns, every process of this host acts on it.

        Args:
            change: old facts to new ones; raises to refuse.
            what: who and why, for the history.

        Raises:
            NotFound: no such device. WorldError: `bitmap_busy`, or the catalog is unavailable; nothing changed.
        """
        with self._bitmap.locked():
            self._replay()
            on = self.today()

            def revoke_first(old: DeviceFacts, new: DeviceFacts) -> None:
                self._bitmap.write(device, meet(bitmap_row(old, on), bitmap_row(new, on)))

            try:
                facts, _ = self._catalog.update_device(
                    device, change, what=what, now_ms=self._clock.now_ms(), before_commit=revoke_first
                )
            finally:
                self._replay()  # also undoes the revocation of a change that was not committed
            return facts

    def add_devices(self, count: int, *, account: int, plans: Sequence[PlanRow]) -> list[DeviceFacts]:
        """Make devices and let them in."""
        with self._bitmap.locked():
            facts = self._catalog.add_devices(
                count, account=account, plans=plans, now_ms=self._clock.now_ms()
            )
            self._replay()
            return facts

    def replay(self) -> int:
        """Write what the change log has and the bitmap has not. Returns how many devices."""
        if self._catalog.newest_change() == self._bitmap.last_change and not self._bitmap.unfinished:
            return 0
        with self._bitmap.locked():
            return self._replay()

    def rebuild(self) -> int:
        """Write every row anew, in place: after an unclean boot, or when the file is new. Returns how many."""
        with self._bitmap.locked():
            newest = self._catalog.newest_change()
            self._bitmap.raise_closed_through(self._catalog.closed_through)
            count = self._write_all()
            self._bitmap.settle()
            self._bitmap.set_last_change(newest)
            self._bitmap.set_boot_id(machine_boot_id())
            return count

    def recover(self) -> int:
        """What a start needs: rebuild when the machine has booted since, else replay. Returns how many rows."""
        if self._bitmap.boot_id != machine_boot_id():
            return self.rebuild()
        return self.replay()

    def roll(self) -> int:
        """Compile anew the rows that reach too little ahead, and those of devices where a plan begins or ends
        today. Returns how many."""
        on = self.today()
        needing = {int(n) for n in self._bitmap.devices_needing_roll(on, ROLL_HORIZON_DAYS)}
        needing.update(self._catalog.devices_changing_on(on))
        for device in sorted(needing):
            with self._bitmap.locked():
                self._restore(device, on)
        return len(needing)

    def _replay(self) -> int:
        self._mend()
        devices, newest = self._catalog.changes_after(self._bitmap.last_change)
        on = self.today()
        for device in devices:
            self._restore(device, on)
        self._bitmap.set_last_change(newest)
        return len(devices)

    def _write_all(self) -> int:
        on = self.today()
        count = after = 0
        while batch := self._catalog.devices(after=after, limit=1000):
            for facts in batch:
                self._bitmap.write(facts.device, bitmap_row(facts, on))
            after = batch[-1].device
            count += len(batch)
        return count

    def _mend(self) -> None:
        """Write rows anew that a killed or failed writer left more restrictive than the catalog is."""
        unfinished = self._bitmap.unfinished
        if unfinished == ALL_DEVICES:
            self._write_all()
        elif unfinished:
            with suppress(NotFound):
                self._restore(unfinished, self.today())
        self._bitmap.settle()

    def _restore(self, device: int, on: int) -> None:
        self._bitmap.write(device, bitmap_row(self._catalog.device(device), on))


def machine_boot_id() -> bytes:
    """16 bytes that change with every boot of this machine; zeros where the system does not say."""
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)
