"""The one path by which a change reaches the entitlement bitmap.

The catalog is the truth, the bitmap what the hot path reads. A revocation must be in the bitmap before it is
committed, a grant only after: so each change first writes the *meet* of the old and the new row (what both
allow), then commits, then writes the new row. Whatever happens in between, nobody is allowed what the catalog
does not allow.

Lock order: the bitmap's file lock, then the catalog's write transaction, then the lock of its rows.

**Rows never get older.** Two kinds of writers meet: those who change the catalog, one at a time under the file lock,
and the feed (`retention.feed`), which takes up what was changed on whatever host and waits for none of them. What they
write is read from the catalog before, so what was read first may be written last. `last_change` decides: whoever sets
it to n has seen to it that all rows are of change n or a later one. Rows that were read when the newest change was m
are written under the lock of the rows, and only while `last_change` is at most m; else they are read again. So no row
is ever older than `last_change` says, and `last_change` only grows. Whoever has committed change n returns when
`last_change` is n or more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from retention.arrival import HERE, Arrival, Later
from retention.bitmap import ALL_DEVICES, ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap, Row
from retention.bulk import BulkCompiler
from retention.compile import PAST_DAYS, compile_row
from retention.plans import Plan, PlanKind
from retention.row import RING_DAYS, limit_classes
from retention.upload_limits import UploadLimits
from storage.catalog.books import Books, BooksCatalog
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.devices import CHANGES_PAGE, ChangesCatalog, DevicesCatalog
from storage.clock import Clock, machine_boot_id, today
from storage.days import to_date, to_day
from storage.errors import ClipkeepError, Unprocessable, WorldError
from storage.rows.devices import DeviceFacts, EraseState, PlanRow

ROLL_HORIZON_DAYS = 100
"""A row that reaches less far ahead than this is compiled anew: a row reaches 127 days when fresh."""
OLDEST_ROW_DAYS = RING_DAYS - PAST_DAYS - ROLL_HORIZON_DAYS
"""How long ago a row was compiled at most, when its reach does not call for a roll: 28 days."""
BATCH_ROWS = 1000
"""Rows written under one hold of the lock, and facts read in one query: tens of milliseconds."""
READ_TRIES = 100
"""For rows that somebody has outrun meanwhile; the feed does so a few times a second."""
BULK_DEVICES = 20_000
"""Read in one query by who reads all of them: some 10 MB."""
NO_ROW = Row(0, 0, 0, 0, 0, 0)
"""What stands in the bitmap for a device that the catalog does not have: nothing is allowed."""

Change = Callable[[DeviceFacts], DeviceFacts]
T = TypeVar("T")


class CatalogRestored(ClipkeepError):
    """The catalog knows less than this host has seen of it: an older one was put in its place."""

    code = "catalog_restored"


def plan_of(row: PlanRow) -> Plan:
    """The pure plan of a stored row."""
    return Plan(
        PlanKind(row.kind),
        to_date(row.starts_on),
        row.retention_days,
        None if row.ends_on is None else to_date(row.ends_on),
        None if row.cancelled_on is None else to_date(row.cancelled_on),
        row.package,
        row.package_version,
        row.limit_class,
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
        plan.package,
        plan.version,
        plan.limit_class,
    )


def entitled_from(facts: DeviceFacts, day: int) -> bool:
    """Whether any plan covers `day` or a later one."""
    return any(plan.ends_on is None or plan.ends_on >= max(day, plan.starts_on) for plan in facts.plans)


def bitmap_row(facts: DeviceFacts, on: int) -> Row:
    """What the bitmap says of a device on day number `on`."""
    flags = PRESENT
    if facts.suspended or facts.account_suspended:
        flags |= SUSPENDED
    if facts.terminated_ms is not None:
        flags |= TERMINATED
    if facts.erase_state is not EraseState.NONE and (
        facts.terminated_ms is not None or not entitled_from(facts, on)
    ):
        flags |= ERASED
    return compile_row(
        [plan_of(plan) for plan in facts.plans],
        today=on,
        flags=flags,
        token_generation=facts.token_generation,
        erase_epoch=facts.erase_epoch,
        viewer_generation=facts.viewer_generation,
    )


def meet(old: Row, new: Row) -> Row:
    """What both rows allow. Both are compiled for the same day, so their windows are the same.

    Tokens and uploads of the old generation and epoch end with the write; nobody has any of the new ones yet.
    """
    assert old.first_day == new.first_day, "rows of two different days"
    return Row(
        old.flags | new.flags,
        min(old.class_days, new.class_days),
        new.first_day,
        new.token_generation,
        new.erase_epoch,
        old.days & new.days,
        new.viewer_generation,
        new.limit_class,
    )


class EntitlementsCatalog(DevicesCatalog, ChangesCatalog, BooksCatalog, ContinuityCatalog, Protocol):
    """What the one path to the bitmap needs."""


class Entitlements:
    """Changes what devices may do, and keeps the bitmap what the catalog says.

    All methods may raise:
        CatalogRestored: nothing was changed, see there.
        WorldError: `bitmap_busy`, or the catalog is unavailable; nothing was changed.
    """

    def __init__(
        self, catalog: EntitlementsCatalog, bitmap: EntitlementBitmap, clock: Clock, arrival: Arrival = HERE
    ) -> None:
        self._catalog = catalog
        self._bitmap = bitmap
        self._clock = clock
        self._arrival = arrival
        # Numbers beyond have no row, so they are denied on this host.
        self._stop = min(bitmap.capacity_rows, ALL_DEVICES)

    def today(self) -> int:
        """The day number that entitlement is judged by."""
        return today(self._clock, self._bitmap.least_day)

    @property
    def recovered(self) -> bool:
        """Whether the rows are of this boot of the machine; else `recover` is still to come."""
        return self._bitmap.boot_id == machine_boot_id()

    def change(self, device: int, change: Change, *, what: str) -> DeviceFacts:
        """Change one device; when this returns, every process of every host acts on it, or serves nothing.

        Args:
            change: old facts to new ones; raises to refuse.
            what: who and why, for the history.

        Raises:
            NotFound: no such device.
        """
        with self._arriving(), self._changing() as revoke_first:
            facts, _ = self._catalog.update_device(
                device, change, what=what, now_ms=self._clock.now_ms(), before_commit=revoke_first
            )
            return facts

    def transact(self, work: Callable[[Books], T], *, new_accounts: int = 0) -> T:
        """Change the account books, and with them what any number of devices may do, in one transaction.

        When this returns, every process of every host acts on it, or serves nothing (`retention.arrival`); when it
        raises, nothing was changed. Everybody else's changes on this host wait for `work`, so that is for milliseconds.

        Args:
            work: given the books, inside the transaction; raises to refuse.
            new_accounts: how many accounts `work` may add.

        Returns:
            What `work` returned.
        """
        with self._arriving(), self._changing() as revoke_first:
            return self._catalog.transact(
                work,
                before_change=revoke_first,
                now_ms=self._clock.now_ms(),
                max_device=self._stop - 1,
                new_accounts=new_accounts,
            )

    @contextmanager
    def together(self) -> Iterator[Entitlements]:
        """For whoever makes many changes in a row: by what this yields each is in force on this host when it returns,
        and all of them on all hosts at the end of the block, however it ends."""
        later = Later(self._arrival)
        try:
            yield Entitlements(self._catalog, self._bitmap, self._clock, later)
        finally:
            later.arrive()

    @contextmanager
    def _arriving(self) -> Iterator[None]:
        """After a change was committed and every lock let go: wait until it is in force on all hosts. Also what was
        found to be so already: whoever decided it may be waiting still, or have been killed in that."""
        yield
        self._arrival.wait(self._bitmap.last_change)

    @contextmanager
    def _changing(self) -> Iterator[Callable[[DeviceFacts, DeviceFacts], None]]:
        """Hold the lock around one transaction of the catalog. Yields what is to be called with the old and the new
        facts before the commit: it takes away what the new ones do not allow."""
        with self._bitmap.locked():
            self._replay()
            on = self.today()
            committed: dict[int, Row] = {}

            def revoke_first(old: DeviceFacts, new: DeviceFacts) -> None:
                # Of several changes of a device in one transaction, only what was before the first is committed.
                before = committed.setdefault(new.device, bitmap_row(old, on))
                self._write(new.device, meet(before, bitmap_row(new, on)))

            try:
                yield revoke_first
            finally:
                self._replay(committed)  # also undoes the revocations of a transaction that was not committed

    def add_devices(self, count: int, *, account: int, plans: Sequence[PlanRow]) -> list[DeviceFacts]:
        """Make devices and let them in.

        Raises:
            CallerError: `too_many_devices`, the bitmap has no room for so many; none was added.
        """
        with self._arriving(), self._bitmap.locked():
            self._replay()
            room = self._stop - 1
            if count > room or self._catalog.devices(after=room - count, limit=1):
                raise Unprocessable(
                    f"{count} more do not fit: there is room for {room} devices. Stop the service, set"
                    " [retention] max_devices in config.toml, and move entitlements.bitmap aside: the next start"
                    " makes a larger one",
                    code="too_many_devices",
                )
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

    def mend(self) -> None:
        """Write anew the rows that a killed writer left more restrictive than the catalog is."""
        if self._bitmap.unfinished:
            with self._bitmap.locked():
                self._replay()

    def follow(self) -> int:
        """As `replay`, and waits for nobody who changes something: the feed's. Returns how many devices."""
        return self._take_up()

    def rebuild(self) -> int:
        """Write every row anew, in place: after an unclean boot, or when the file is new. Returns how many."""
        with self._bitmap.locked():
            seen = self._bitmap.last_change
            newest = self._catalog.newest_change()
            self._require_all_seen(seen, newest)
            self._bitmap.raise_closed_through(self._catalog.closed_through)
            count = self._write_all()
            self._bitmap.settle()
            self._raise_last_change(newest)
            self._bitmap.set_boot_id(machine_boot_id())
            return count

    def recover(self) -> int:
        """What a start needs: rebuild when the machine has booted since, else replay. Returns how many rows."""
        return self.replay() if self.recovered else self.rebuild()

    def roll(self) -> int:
        """Compile anew the rows that reach too little ahead, and those of devices where a plan has begun or
        ended since they were compiled. Returns how many.

        To be called every day; days on which nobody did are made good.
        """
        self.replay()
        on = self.today()
        needing = {int(n) for n in self._bitmap.devices_needing_roll(on, ROLL_HORIZON_DAYS)}
        for day in range(on - OLDEST_ROW_DAYS + 1, on + 1):
            needing.update(self._catalog.devices_changing_on(day))
        devices = sorted(needing)
        for start in range(0, len(devices), BATCH_ROWS):
            with self._bitmap.locked():
                self._replay()
                self._restore(devices[start : start + BATCH_ROWS])
                self._bitmap.settle()
        return len(devices)

    # --- under the lock -------------------------------------------------------------------------------------------

    def _replay(self, revoked: Collection[int] = ()) -> int:
        """Write the rows that the catalog changed. `revoked`: those that this holder of the lock has written since
        its first replay, so that nothing else is left to mend."""
        if not revoked:
            self._mend()
        count = self._take_up(revoked)
        self._bitmap.settle()
        return count

    def _mend(self) -> None:
        """Write rows anew that a killed or failed writer left more restrictive than the catalog is."""
        unfinished = self._bitmap.unfinished
        if unfinished == ALL_DEVICES:
            self._write_all()
        elif unfinished:
            self._restore([unfinished])

    # --- with the lock or without ---------------------------------------------------------------------------------

    def _take_up(self, more: Collection[int] = ()) -> int:
        """Write the rows of devices that the change log has and the bitmap has not, page by page, and of these."""
        count, page_is_full = 0, True
        while page_is_full:
            seen = self._bitmap.last_change
            devices, last = self._catalog.changes_after(seen)
            self._require_all_seen(seen, last)
            self._restore(sorted({*devices, *more}), read_at=last)
            self._raise_last_change(last)
            count += len(devices)
            more, page_is_full = (), last - seen == CHANGES_PAGE
        return count

    def _require_all_seen(self, seen: int, newest: int) -> None:
        """`seen` was read before `newest`: another one may have gone on meanwhile."""
        if newest < seen:
            raise CatalogRestored(
                f"its newest change is number {newest}, this host has seen {seen}: the catalog was restored or"
                " replaced. Put the newer one back. When it is lost: stop the service and move entitlements.bitmap"
                " aside, so that the next start makes it anew",
                subject="catalog",
            )

    def _raise_last_change(self, number: int) -> None:
        with self._bitmap.writing():
            if number > self._bitmap.last_change:
                self._bitmap.set_last_change(number)

    def _write_all(self) -> int:
        """Page by page: nothing is held for a fleet, and no transaction lasts as long as this does."""
        compiler = BulkCompiler(self.today())
        self._write_limits()
        count = after = 0
        while True:
            read = partial(self._catalog.device_columns, after=after, limit=BULK_DEVICES)
            numbers = self._write_read(read, compiler)
            if not len(numbers):
                return count
            after = int(numbers[-1])
            count += len(numbers)

    def _restore(self, devices: Sequence[int], read_at: int | None = None) -> None:
        """Write the rows of these devices, in ascending order, as the catalog says.

        Args:
            read_at: a change that the catalog had before this was called, if the caller knows one.
        """
        compiler = BulkCompiler(self.today())
        for start in range(0, len(devices), BATCH_ROWS):
            page = devices[start : start + BATCH_ROWS]
            read = partial(self._catalog.device_columns, numbers=page, limit=BATCH_ROWS)
            numbers = self._write_read(read, compiler, read_at)
            for device in sorted({*page} - {*numbers.tolist()}):
                self._write(device, NO_ROW)  # no device is ever added under a number that was seen

    def _write_read(
        self,
        read: Callable[[], tuple[np.ndarray, np.ndarray]],
        compiler: BulkCompiler,
        read_at: int | None = None,
    ) -> NDArray[np.int64]:
        """Read devices and write their rows; again, as long as the rows may be older than what is written meanwhile, or
        are of the day before.

        Returns:
            The numbers of the devices, ascending.

        Raises:
            WorldError: `bitmap_busy`, others were always faster.
        """
        for _ in range(READ_TRIES):
            newest = self._catalog.newest_change() if read_at is None else read_at
            read_at = None
            if compiler.on != self.today():
                compiler = BulkCompiler(self.today())
            columns = read()
            numbers: NDArray[np.int64] = columns[0]["device"]
            known = numbers < self._stop
            rows = compiler.rows(*columns)[known]
            if any(not self._bitmap.limits_word(limit_class) for limit_class in limit_classes(rows)):
                self._write_limits()  # before the first row that names them
            with self._bitmap.writing():
                if self._bitmap.last_change <= newest and compiler.on == self.today():
                    self._bitmap.write_rows(numbers[known], rows)
                    return numbers
        raise WorldError("others change rights faster than this can; try again", code="bitmap_busy")

    def _write_limits(self) -> None:
        words = {
            limit_class: UploadLimits(bytes_per_day, chunks_per_s).word
            for limit_class, bytes_per_day, chunks_per_s in self._catalog.upload_limits()
        }
        with self._bitmap.writing():
            self._bitmap.set_limits(words)

    def _write(self, device: int, row: Row) -> None:
        if device < self._stop:
            with self._bitmap.writing():
                self._bitmap.write(device, row)
