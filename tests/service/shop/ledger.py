"""What each account owes, has paid and gets back, and until when each plan runs: counted from the agreement's text and
its readings (docs/agreement.md), from what owners and operators asked for, and from the lines of the bank's journal.

Nothing here calls the product: no rule, no row. Numbers in brackets are clauses of the agreement, or readings.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

DAY = timedelta(days=1)
HOUR_MS = 3_600_000
AHEAD_DAYS, RETRY_MS, NOTICE_DAYS, ORDER_MS = 3, 12 * HOUR_MS, 30, 24 * HOUR_MS
TRIAL_DAYS = 14
EPOCH = date(1970, 1, 1)
RENEWAL = re.compile(r"monthly plan, device (\d+), (\S+) to (\S+)")

Line = dict[str, Any]


def months_after(start: date, months: int) -> date:
    """The same day of a later month, or that month's last (reading 3)."""
    month = start.month - 1 + months
    year, month = start.year + month // 12, month % 12 + 1
    return start.replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))


def day_of(ms: int) -> date:
    return EPOCH + timedelta(milliseconds=ms)


def midnight_ms(day: date) -> int:
    return (day - EPOCH).days * 24 * HOUR_MS


@dataclass
class Back:
    """A part of a charge that is owed to whoever paid it."""

    minor: int
    by_hand: bool = False
    otherwise: bool = False


@dataclass
class Charge:
    reference: str
    minor: int
    currency: str
    deal: Deal | None
    first: date | None  # of the days that a renewal is for
    backs: list[Back] = field(default_factory=list)
    sent: int = 0  # given back by the bank's journal
    lost: int = 0  # taken back by the bank of whoever paid
    open_disputes: set[str] = field(default_factory=set)
    due_if_won: int = 0

    @property
    def given(self) -> int:
        return sum(back.minor for back in self.backs) + self.lost

    @property
    def left(self) -> int:
        return self.minor - self.given


@dataclass
class Renewal:
    reference: str
    first: date
    last: date
    minor: int


@dataclass
class Deal:
    """A plan: what was agreed, and its days so far."""

    device: int
    package: str
    months: int  # paid in full for; 1: monthly; 0: a trial
    currency: str
    fee: int
    monthly_fee: int
    version: int
    start: date
    end: date
    renews: bool
    name: str = ""  # the reference of its purchase
    cancelled: bool = False
    charges: list[Charge] = field(default_factory=list)
    credits: int = 0
    told: tuple[int, int, date] | None = None  # another fee: version, minor units, from which day on
    asked: Renewal | None = None
    retry_ms: tuple[int, int] = (0, 0)  # not before; at the latest

    @property
    def has_days(self) -> bool:
        return self.end >= self.start

    def goes_on(self, day: date) -> bool:
        return self.has_days and self.end >= day

    @property
    def paid(self) -> int:
        return sum(charge.left for charge in self.charges)

    @property
    def is_disputed(self) -> bool:
        return any(charge.open_disputes for charge in self.charges)

    def months_begun(self, day: date) -> int:
        begun = 0
        while months_after(self.start, begun) <= day:
            begun += 1
        return begun

    def next_days(self) -> tuple[date, date]:
        return self.end + DAY, months_after(self.start, self.months_begun(self.end) + 1) - DAY


@dataclass
class Order:
    reference: str
    account: int
    device: int
    package: str
    months: int
    currency: str
    fee: int
    monthly_fee: int
    version: int
    at_ms: int
    state: str = "open"  # paid, declined, void, back
    abandoned: bool = False


@dataclass
class Version:
    number: int
    months: int
    prices: dict[str, list[int]]
    applied: bool = False


class Ledger:
    """See the module docstring. Whatever is not as it should be raises AssertionError.

    Args:
        came_second: asked for a renewal that came together with a purchase of the same device: whether the purchase
            was first, so that the renewal is given back. Either is right.
    """

    def __init__(self, came_second: Callable[[str], bool]) -> None:
        self.came_second = came_second
        self.deals: dict[int, list[Deal]] = {}
        self.of_account: dict[int, list[int]] = {}
        self.orders: dict[str, Order] = {}
        self.charges: dict[str, Charge] = {}
        self.renewals: dict[str, Deal] = {}
        self.packages: dict[str, list[Version]] = {}
        self.disputes: dict[str, str] = {}
        self.unsettled: list[Line] = []
        self.unheard: set[str] = set()
        self.refused: dict[str, Line] = {}
        self.refunds_done: dict[str, Line] = {}
        self.seen: Counter[str] = Counter()

    # --- the calendar ---------------------------------------------------------------------------------------------

    def all_deals(self) -> Iterator[Deal]:
        for deals in self.deals.values():
            yield from deals

    def deal(self, name: str) -> Deal:
        [found] = [deal for deal in self.all_deals() if deal.name == name]
        return found

    def days(self, device: int) -> set[date]:
        """On which the device may record and be played back."""
        return {
            deal.start + DAY * n
            for deal in self.deals[device]
            for n in range((deal.end - deal.start).days + 1)
        }

    # --- what is asked for ----------------------------------------------------------------------------------------

    def joined(self, account: int, devices: list[int]) -> None:
        self.of_account[account] = devices
        for device in devices:
            self.deals.setdefault(device, [])

    def sold(self, package: str, months: int, prices: dict[str, list[int]]) -> None:
        versions = self.packages.setdefault(package, [])
        versions.append(Version(len(versions) + 1, months, prices))

    def tried(self, device: int, day: date) -> None:
        end = day + DAY * (TRIAL_DAYS - 1)  # 7.1
        self.deals[device].append(Deal(device, "trial", 0, "", 0, 0, 1, day, end, False))
        self.seen["trials"] += 1

    def ordered(
        self, reference: str, account: int, device: int, package: str, currency: str, at_ms: int
    ) -> Order:
        version = self.packages[package][-1]
        fee, monthly = version.prices[currency]
        order = Order(
            reference, account, device, package, version.months, currency, fee, monthly, version.number, at_ms
        )
        self.orders[reference] = order
        return order

    def abandoned(self, device: int) -> None:
        for order in self.orders.values():
            if order.device == device and order.state == "open":
                order.abandoned = True
                self.seen["abandoned"] += 1

    def applied(self, package: str, day: date) -> None:
        self.packages[package][-1].applied = True
        self.tell(day)

    def tell(self, day: date) -> None:
        """Another fee is for a period that begins more than 30 days after its owner was told; a lower one for the next
        that is not being charged (reading 32)."""
        for deal in self.all_deals():
            target = next((v for v in self.packages.get(deal.package, [])[::-1] if v.applied), None)
            if target is None or not deal.renews or target.number <= deal.version:
                continue
            if deal.told is not None and deal.told[0] == target.number:
                continue
            fee = target.prices[deal.currency][0]
            on = day + DAY * (NOTICE_DAYS + 1) if fee > deal.fee else day
            if deal.asked is not None:
                on = max(on, deal.asked.first + DAY)
            deal.told = (target.number, fee, on)
            self.seen["told"] += 1

    def given(self, name: str, minor: int, *, otherwise: bool) -> None:
        self._owe(self.deal(name), minor, by_hand=True, otherwise=otherwise)
        self.seen["by hand"] += 1

    def credited(self, name: str, minor: int) -> None:
        self.deal(name).credits += minor
        self.seen["credits"] += 1

    def cancelled(self, name: str, day: date) -> int:
        """Returns what is given back (8.1, 8.2, 7.2.1)."""
        deal = self.deal(name)
        refund, end = self.if_cancelled(deal, day)
        deal.cancelled, deal.renews = True, False
        self._cut(deal, end)
        self._owe(deal, refund)
        self.seen["cancelled"] += 1
        return refund

    def if_cancelled(self, deal: Deal, day: date) -> tuple[int, date]:
        if day < deal.start:  # reading 6
            return deal.paid, deal.start - DAY
        begun = deal.months_begun(day)
        if deal.months == 1:  # 8.2.2, reading 9
            end = min(deal.end, months_after(deal.start, begun) - DAY)
            ahead = deal.months_begun(deal.end) - begun
            return min(deal.fee * ahead, deal.paid), end
        refund = max(0, min(deal.fee, deal.paid) - deal.credits - deal.monthly_fee * begun)  # 8.2.1
        return refund, min(deal.end, months_after(deal.start, begun) - DAY) if refund else deal.end

    def _owe(self, deal: Deal, minor: int, *, by_hand: bool = False, otherwise: bool = False) -> None:
        """Of the newest charge first (reading 34)."""
        for charge in deal.charges[::-1]:
            if part := min(minor, charge.left):
                charge.backs.append(Back(part, by_hand, otherwise))
                minor -= part
        assert not minor, "no more is given back than was paid"

    def _cut(self, deal: Deal, end: date) -> None:
        """What followed without a gap moves up and keeps its months (reading 7)."""
        before, deal.end = deal.end, end
        for other in sorted(self.deals[deal.device], key=lambda other: other.start):
            if other is deal or not other.has_days or other.start != before + DAY or before == end:
                continue
            months, before = other.months_begun(other.end), other.end
            other.start = end + DAY
            other.end = end = months_after(other.start, months) - DAY
            self.seen["moved up"] += 1

    # --- what the bank says ---------------------------------------------------------------------------------------

    def take(self, lines: list[Line], now_ms: int, *, settles: bool, away: bool = False) -> None:
        """Lines of the journal since the last time.

        Args:
            settles: the shop asked about what it does not know yet, and could be answered.
            away: what the bank decided was not heard.
        """
        day = day_of(now_ms)
        if settles:
            self.tell(day)
            decided = [line for line in lines if line["what"] == "done_later"]  # before the shop asked
            waiting, self.unsettled = self.unsettled + decided, []
            self._settle_all(waiting, now_ms)
        for line in lines:
            self.seen[f"{line['kind']} {line['what']}"] += 1
            if line["kind"] == "refund":
                self._refund(line)
            elif line["what"] == "unheard":
                self.unheard.add(line["reference"])
            elif line["what"] == "asked":
                self._asked(line, now_ms)
            elif line["what"] == "done_later":
                self.unsettled += [] if settles else [line]
            elif line["what"] != "void" and (away or line["reference"] in self.unheard):
                self.unsettled.append(
                    line
                )  # (void is what the shop asked for; it asks again until it has heard)
            else:
                self._settle(line, now_ms)
        if settles:
            self._lapse(day)
            left = [deal for deal in self.all_deals() if self._is_due(deal, now_ms, latest=True)]
            assert not left, f"a month was due and was not asked for: {left}"

    def heard(self, reference: str, now_ms: int) -> None:
        """The shop has been told what became of a charge."""
        mine = [line for line in self.unsettled if line["reference"] == reference]
        self.unsettled = [line for line in self.unsettled if line["reference"] != reference]
        self._settle_all(mine, now_ms)

    def _settle_all(self, lines: list[Line], now_ms: int) -> None:
        ordered = {
            self.orders[line["reference"]].device for line in lines if line["reference"] in self.orders
        }

        def turn(line: Line) -> int:
            deal = self.renewals.get(line["reference"])
            if deal is None:
                return 1
            return 2 if deal.device in ordered and self.came_second(line["reference"]) else 0

        for line in sorted(lines, key=turn):
            self._settle(line, now_ms)

    def _asked(self, line: Line, now_ms: int) -> None:
        reference = line["reference"]
        if reference in self.orders:
            order = self.orders[reference]
            assert (line["amount_minor"], line["currency"]) == (order.fee, order.currency), line
            return
        found = RENEWAL.fullmatch(line["why"])
        assert found, f"nobody asked for this: {line}"
        device, first, last = int(found[1]), date.fromisoformat(found[2]), date.fromisoformat(found[3])
        if reference in self.renewals:
            return  # again, for its answer was lost
        deals = [deal for deal in self.deals[device] if deal.renews and deal.end + DAY == first]
        assert len(deals) == 1, f"no plan renews then: {line}"
        [deal] = deals
        assert self._is_due(deal, now_ms, latest=False), f"it is not due: {line} {deal}"
        assert (first, last) == deal.next_days(), line
        if deal.told is not None and first >= deal.told[2]:
            deal.version, deal.fee, _ = deal.told
            deal.monthly_fee, deal.told = deal.fee, None
            self.seen["new fees"] += 1
        assert (line["amount_minor"], line["currency"]) == (deal.fee, deal.currency), (line, deal)
        deal.asked = Renewal(reference, first, last, deal.fee)
        self.renewals[reference] = deal

    def _is_due(self, deal: Deal, now_ms: int, *, latest: bool) -> bool:
        """Whether the next month is to be charged now (7.2.2, reading 9)."""
        day = day_of(now_ms)
        runs = deal.renews and deal.start <= day <= deal.end
        waits = deal.asked is not None or deal.is_disputed or now_ms < deal.retry_ms[latest]
        return runs and (deal.end - day).days <= AHEAD_DAYS and not waits

    def _settle(self, line: Line, now_ms: int) -> None:
        reference, what = line["reference"], line["what"].removesuffix("_later")
        if reference in self.orders:
            self._settle_order(self.orders[reference], what, now_ms)
        elif reference in self.renewals:
            self._settle_renewal(self.renewals[reference], reference, what, line["at_ms"], now_ms)
        else:
            assert what == "void", f"nobody asked for this: {line}"

    def _charged(
        self, reference: str, minor: int, currency: str, deal: Deal | None, first: date | None
    ) -> Charge:
        assert reference not in self.charges, "charged once"
        charge = self.charges[reference] = Charge(reference, minor, currency, deal, first)
        if deal is not None:
            deal.charges.append(charge)
        return charge

    def _settle_order(self, order: Order, what: str, now_ms: int) -> None:
        if what != "done":
            assert order.state == "open", order
            order.state = what
            return
        if order.abandoned or now_ms - order.at_ms > ORDER_MS:  # reading 25
            order.state = "back"
            charge = self._charged(order.reference, order.fee, order.currency, None, None)
            charge.backs.append(Back(charge.minor))
            self.seen["orders given back"] += 1
            return
        order.state = "paid"
        day, deals = day_of(now_ms), self.deals[order.device]
        start = day
        for deal in deals:
            deal.renews = False  # reading 5
            if deal.months and deal.goes_on(day):
                start = max(start, deal.end + DAY)  # 7.2.1
        for deal in deals:
            if not deal.months and deal.goes_on(start):
                deal.end = start - DAY  # reading 8
                self.seen["paid during a trial"] += 1
        self.seen["bought behind another"] += start > day
        end = months_after(start, order.months) - DAY
        deal = Deal(
            order.device,
            order.package,
            order.months,
            order.currency,
            order.fee,
            order.monthly_fee,
            order.version,
            start,
            end,
            order.months == 1,
            order.reference,
        )
        deals.append(deal)
        self.seen[f"bought {order.package}"] += 1
        self._charged(order.reference, order.fee, order.currency, deal, None)

    def _settle_renewal(self, deal: Deal, reference: str, what: str, decided_ms: int, now_ms: int) -> None:
        asked, day = deal.asked, day_of(now_ms)
        if asked is None or asked.reference != reference:
            raise AssertionError(f"{reference} was settled before")
        deal.asked = None
        if what == "declined":
            if deal.renews:
                # A worker that was killed before it had noted this left it to a later run: of the same moment, or the
                # next one, since a payment just asked about is not asked about again at once.
                deal.retry_ms = (self._again(deal, decided_ms), self._again(deal, now_ms + RETRY_MS))
            return
        if what == "void":
            return
        charge = self._charged(reference, asked.minor, deal.currency, deal, asked.first)
        if not deal.renews or deal.end + DAY != asked.first or day > deal.end:  # reading 10
            charge.backs.append(Back(charge.minor))
            self.seen["months given back"] += 1
            return
        deal.end, deal.retry_ms = asked.last, (0, 0)
        self.seen["months"] += 1

    def _again(self, deal: Deal, now_ms: int) -> int:
        """In 12 hours, and once more in the last hour."""
        ends_ms = midnight_ms(deal.end + DAY)
        for at_ms in (ends_ms - HOUR_MS, ends_ms):
            if now_ms < at_ms < now_ms + RETRY_MS:
                return at_ms
        return now_ms + RETRY_MS

    def _lapse(self, day: date) -> None:
        for deal in self.all_deals():
            if deal.renews and deal.end < day:
                deal.renews = False
                self.seen["lapsed"] += 1

    def healed(self, account: int) -> None:
        """Its owner pays with something else from now on: tried at once."""
        for device in self.of_account[account]:
            for deal in self.deals[device]:
                if deal.renews:
                    deal.retry_ms = (0, 0)

    def _refund(self, line: Line) -> None:
        if line["what"] == "unheard":
            self.unheard.add(line["reference"])
        elif line["what"] == "declined":
            self.refused[line["reference"]] = line
        elif line["what"] == "done":
            self.refunds_done[line["reference"]] = line
            charge = self.charges[line["of"]]
            charge.sent += line["amount_minor"]
            owed = sum(back.minor for back in charge.backs if not back.otherwise)
            assert charge.sent <= owed, f"given back and not owed: {line} {charge}"

    # --- disputes -------------------------------------------------------------------------------------------------

    def disputed(self, reference: str, number: str, state: str, minor: int, day: date) -> None:
        """What the bank of whoever paid says (readings 38 to 40)."""
        charge = self.charges[reference]
        if self.disputes.get(number) == state:
            return  # told twice
        self.disputes[number] = state
        self.seen[f"dispute {state}"] += 1
        if state == "open":
            charge.open_disputes.add(number)
            return
        charge.open_disputes.discard(number)
        if state == "lost":
            charge.lost += minor
            self._taken_back(charge, day)
        else:
            charge.lost -= min(charge.lost, minor)
            if due := min(charge.due_if_won, charge.left):
                charge.backs.append(Back(due))
            charge.due_if_won = 0

    def _taken_back(self, charge: Charge, day: date) -> None:
        deal = charge.deal
        assert deal is not None
        was_due = 0 if deal.cancelled or deal.end < day else self._of_charge_if_cancelled(deal, charge, day)
        charge.due_if_won = self._void_backs(charge)
        if charge.left > 0:
            return
        first = charge.first or deal.start
        last = deal.end
        if deal.months == 1 and deal.start <= first <= deal.end:
            last = min(last, months_after(deal.start, deal.months_begun(first)) - DAY)
        if last < day or not deal.has_days:
            return
        end = max(min(day, last), deal.start - DAY) if first <= day else first - DAY
        charge.due_if_won += was_due
        deal.cancelled, deal.renews = True, False
        self._cut(deal, min(end, deal.end))
        self.seen["ended by a chargeback"] += 1
        for other in deal.charges:
            if other is not charge and other.left > 0 and (other.first or deal.start) > deal.end:
                other.backs.append(Back(other.left))

    def _of_charge_if_cancelled(self, deal: Deal, charge: Charge, day: date) -> int:
        charge.lost, lost = 0, charge.lost
        refund, _ = self.if_cancelled(deal, day)
        charge.lost = lost
        if deal.months == 1:
            is_ahead = (charge.first or deal.start) > day
            return charge.minor if is_ahead else 0
        return refund

    def _void_backs(self, charge: Charge) -> int:
        """What was owed and not sent is void where the bank's covers it (reading 39). Returns how much."""
        voided = 0
        unsent = charge.given - charge.lost - charge.sent
        for back in list(charge.backs):
            if charge.left < 0 and not back.otherwise and unsent >= back.minor:
                charge.backs.remove(back)
                voided += back.minor
                unsent -= back.minor
        if voided and charge.left > 0:
            rest = min(voided, charge.left)
            charge.backs.append(Back(rest))
            voided -= rest
        return voided

    # --- sums -----------------------------------------------------------------------------------------------------

    def paid_otherwise(self, of: str, minor: int) -> None:
        """What the gateway refused to give back was paid in another way."""
        [*_, back] = [b for b in self.charges[of].backs if b.minor == minor and not b.otherwise]
        back.otherwise = True
        self.seen["paid otherwise"] += 1

    def totals(self) -> dict[str, tuple[int, int, int]]:
        """By currency: charged, given back by the gateway, taken back by banks, in minor units."""
        sums: dict[str, list[int]] = {}
        for charge in self.charges.values():
            mine = sums.setdefault(charge.currency, [0, 0, 0])
            mine[0] += charge.minor
            mine[1] += charge.sent
            mine[2] += charge.lost
        return {currency: (a, b, c) for currency, (a, b, c) in sums.items()}

    def unheard_refunds(self, rows_done: set[str]) -> dict[str, int]:
        """By currency: what the bank has given back, and the shop was not told of."""
        sums: Counter[str] = Counter()
        for reference, line in self.refunds_done.items():
            if reference not in rows_done:
                sums[line["currency"]] += line["amount_minor"]
        return dict(sums)

    def waits(self, reference: str) -> bool:
        """Whether a refund of a charge was refused, and waits for somebody."""
        return any(line["of"] == reference for line in self.refused.values())

    @property
    def has_open(self) -> bool:
        return any(o.state == "open" for o in self.orders.values()) or any(
            deal.asked is not None for deal in self.all_deals()
        )

    def outstanding(self, charge: Charge) -> int:
        """Owed through the gateway, and not at the bank yet."""
        return sum(back.minor for back in charge.backs if not back.otherwise) - charge.sent
