"""The way back after a sweep by a clock that was ahead: days that it closed before their time take uploads again.

What that sweep un-indexed stays so: rows are gone, keys are destroyed, objects follow. New uploads must not be mistaken
for it:

- Their expiry month may be one whose keys are destroyed, and a destroyed key is never made again. So they get the keys
  of the first month after those (`Catalog.first_key_month`): kept a while longer than need be, never shared with what
  was destroyed.
- A device that was erased, for it seemed to have lapsed, keeps its new erase epoch and begins empty, as after a
  renewal.

Nothing may write meanwhile, for a worker has keys in memory and days in its head: the service is stopped first.
"""

from __future__ import annotations

from dataclasses import dataclass

from retention.bitmap import EntitlementBitmap
from retention.destruction import last_month_destroyed, last_month_over
from retention.entitlements import Entitlements, EntitlementsCatalog, entitled_from
from retention.erasure import mark_renewed
from retention.sweep.lease import Lease
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.devices import DevicesCatalog
from storage.clock import Clock
from storage.days import day_of_ms, month_after, to_date
from storage.errors import CallerError
from storage.rows.devices import DeviceFacts, EraseState
from storage.vault import Vault


@dataclass(frozen=True, slots=True)
class Closed:
    """What is closed.

    Args:
        today: day number by this host's clock.
        through: the last closed day, by catalog or bitmap; 0 before the first sweep.
        last_month_destroyed: yyyymm; 0 when no keys were.
    """

    today: int
    through: int
    last_month_destroyed: int

    @property
    def ahead(self) -> bool:
        """Whether days are closed that have not come: uploads that expire on them are refused."""
        return self.through > self.today


def closed(catalog: ContinuityCatalog, vault: Vault, bitmap: EntitlementBitmap, clock: Clock) -> Closed:
    """What is closed now. Writes nothing."""
    through = max(catalog.closed_through, bitmap.closed_through)
    return Closed(day_of_ms(clock.now_ms()), through, vault.last_month_destroyed())


def reopen(
    catalog: EntitlementsCatalog,
    vault: Vault,
    bitmap: EntitlementBitmap,
    clock: Clock,
    lease: Lease,
    *,
    through: int,
    delete_delay_ms: int,
) -> int:
    """Let all days after `through` take uploads again. Killed anywhere, it is run again.

    Args:
        lease: not taken yet.
        through: the last day that is over, this host's today at least.
        delete_delay_ms: before objects go that were un-indexed by a time that has not come.

    Returns:
        How many devices were erased though they are entitled: they begin empty.

    Raises:
        CallerError: `not_closed`, nothing after it is; `day_is_over`, it lies before this host's today.
        SweepRefused: `busy`, a sweep is at work.
    """
    now = closed(catalog, vault, bitmap, clock)
    if through < now.today:
        raise CallerError(
            f"{to_date(through)} is over: by this host's clock today is {to_date(now.today)}. If that is wrong, set the"
            " clock right first",
            code="day_is_over",
        )
    if now.through <= through:
        raise CallerError(
            f"nothing after {to_date(through)} is closed: the last closed day is {to_date(now.through)}",
            code="not_closed",
        )
    with lease.taken():
        if now.last_month_destroyed > last_month_over(through):
            catalog.raise_first_key_month(month_after(now.last_month_destroyed))
        if catalog.closed_through > through:
            again_ms = clock.now_ms() + delete_delay_ms
            catalog.reopen_days(through, fence=lease.fence, delete_after_ms=again_ms)
        with bitmap.locked():
            bitmap.lower_closed_through(through)
        entitlements = Entitlements(catalog, bitmap, clock)
        entitlements.rebuild()
        return _begin_anew(catalog, entitlements, lease)


def adopt_key_months(catalog: ContinuityCatalog, vault: Vault) -> None:
    """Let the catalog know of months whose keys were destroyed before their days were closed: by a sweep that was
    taken back, or one that an older catalog than this has not heard of. Else what expires in them could not be
    stored."""
    destroyed = vault.last_month_destroyed()
    if destroyed > last_month_destroyed(catalog):
        catalog.raise_first_key_month(month_after(destroyed))


def _begin_anew(catalog: DevicesCatalog, entitlements: Entitlements, lease: Lease) -> int:
    """Devices that are entitled record again, and their next lapse counts."""
    today = entitlements.today()

    def renewed(facts: DeviceFacts) -> DeviceFacts:
        gone = facts.erase_state is EraseState.NONE or facts.terminated_ms is not None
        return facts if gone or not entitled_from(facts, today) else mark_renewed(facts)

    count = after = 0
    while batch := catalog.devices(after=after):
        for facts in batch:
            if renewed(facts) != facts:
                lease.renew()
                entitlements.change(facts.device, renewed, what="operator: days reopened")
                count += 1
        after = batch[-1].device
    return count
