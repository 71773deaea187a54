"""Money that operators give back by hand, in whatever order with credits, counter-entries and cancellations: hypothesis
gives, notes, takes back, retries and cancels as it likes, while the gateway refuses or is away as it likes.

The model counts for itself what was paid and what stands as given back. At every moment no more is given than was paid,
the books say what the model says, and what a cancellation gives back is what 8.2.1 says, counted here anew. In the end
the books balance with the gateway to the cent: see `tests.service.agreement.balance`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import date

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retention.money import Money
from service.agreement import cancelling, crediting, refunding
from service.agreement.desk import OPERATOR
from service.agreement.payments import PaymentDeclined, Receipt
from service.agreement.settling import settle_pending
from storage.errors import CallerError
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import HOUR_MS, MetGateway, MoneyWorld

FEE, MONTHLY_FEE = 5999, 599
AMOUNTS = st.one_of(st.sampled_from([599, 1000, 3000, 5400, 5999]), st.integers(1, 6100))
ENTRIES = st.integers(0, 5)
KINDS = st.sampled_from(["annual", "annual", "monthly"])


class Refusing(MetGateway):
    """Refuses refunds while it is told to."""

    refuses = False

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        if self.refuses:
            raise PaymentDeclined("this card takes nothing back")
        return super().refund(reference, of_reference, money)


class RefundsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.left = ExitStack()
        folder = self.left.enter_context(fast_folder())
        self.world = self.left.enter_context(MoneyWorld(folder / "data", gateway=Refusing))
        self.desk = self.world.desk
        self.made = 0
        self.standing: dict[str, int] = {}
        """By the reference that an operator gave it: refunds by hand that count."""
        self.credits: dict[str, int] = {}
        self.cancelled = False
        self.counted: set[int] = set()

    @initialize(kind=KINDS)
    def begin(self, kind: str) -> None:
        self.kind, self.fee = kind, FEE if kind == "annual" else MONTHLY_FEE
        self.ada = self.world.add_owner()
        self.device = self.world.add_device(self.ada)
        self.world.buy(self.ada, self.device, kind, "first")
        self.started: date = self.world.today

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.left.close()

    # --- what operators do --------------------------------------------------------------------------------------------

    def name(self) -> str:
        self.made += 1
        return f"e{self.made}"

    @rule(minor=AMOUNTS, otherwise=st.booleans())
    def give(self, minor: int, otherwise: bool) -> None:
        reference, left = self.name(), self.paid() - self.given()

        def act() -> None:
            refunding.give(
                self.desk, OPERATOR, 1, Money(minor, "USD"), why="w", reference=reference, otherwise=otherwise
            )

        assert self.allowed(act) == (minor <= left), (minor, left)
        if minor <= left:
            self.standing[reference] = minor

    @rule(minor=AMOUNTS)
    def credit(self, minor: int) -> None:
        reference = self.name()
        if self.allowed(
            lambda: crediting.credit(
                self.desk, OPERATOR, 1, Money(minor, "USD"), why="w", reference=reference
            )
        ):
            assert minor <= self.fee
            assert not self.cancelled
            self.credits[reference] = minor

    def entry(self, at: int) -> PaymentRow | None:
        """Counted from the newest on: of all rows but charges."""
        rows = [r for r in self.world.payments(self.ada.account) if r.kind is not PaymentKind.CHARGE]
        return rows[::-1][at % len(rows)] if rows else None

    @rule(at=ENTRIES)
    def take_back(self, at: int) -> None:
        row = self.entry(at)
        if row is None or not self.allowed(
            lambda: crediting.take_back(self.desk, OPERATOR, row.reference, why="w")
        ):
            return
        if row.state in (PaymentState.VOID, PaymentState.TAKEN_BACK):
            return  # it was before
        assert (row.kind, row.state) != (PaymentKind.REFUND, PaymentState.DONE), "money that left"
        assert row.payment_id not in self.counted, "the cancellation was counted with it"
        if row.kind is PaymentKind.CREDIT:
            self.credits.pop(row.reference, None)
        elif "by_hand" in row.detail:
            self.standing[row.detail["by_hand"]["name"]] -= row.minor

    @rule(at=ENTRIES, retried=st.booleans())
    def see_to(self, at: int, retried: bool) -> None:
        """A refund that was refused: nothing else is."""
        row = self.entry(at)
        if row is None:
            return
        act = refunding.retry if retried else refunding.paid_otherwise
        done = self.allowed(lambda: act(self.desk, OPERATOR, row.reference, why="w"))
        refused = (row.kind, row.state) == (PaymentKind.REFUND, PaymentState.FAILED)
        assert done == refused or (not retried and row.state is PaymentState.PAID_OTHERWISE)

    @rule()
    def cancel(self) -> None:
        """What it gives back is counted here anew, by 8.2.1 and 8.2.2."""
        paid, hand, credit = self.paid(), sum(self.standing.values()), sum(self.credits.values())
        before = {row.payment_id for row in self.world.payments(self.ada.account)}
        today = self.world.today
        months = (today.year - self.started.year) * 12 + today.month - self.started.month + 1
        if self.allowed(lambda: self.world.cancel(self.ada, 1)):
            assert not self.cancelled
            owed = self.given() - hand
            if self.kind == "annual":
                assert owed == max(0, paid - hand - credit - MONTHLY_FEE * months)
            else:
                assert owed in (0, min(MONTHLY_FEE, paid - hand))
            self.cancelled, self.counted = True, before
            for row in self.world.payments(self.ada.account):
                if row.payment_id in before and ("by_hand" in row.detail or row.kind is PaymentKind.CREDIT):
                    self.stays(row)

    def stays(self, row: PaymentRow) -> None:
        """What the cancellation was counted with is not taken back; what was before, stays so."""
        taken = self.allowed(lambda: crediting.take_back(self.desk, OPERATOR, row.reference, why="w"))
        assert taken == (row.state in (PaymentState.VOID, PaymentState.TAKEN_BACK))

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule(months=st.integers(1, 3))
    def months(self, months: int) -> None:
        """From the last day of a month to another, so that none is begun by a short one; and what is due is charged."""
        for _ in range(months):
            self.world.go(_month_end(self.world.today))
            self.world.renew()

    @rule(away=st.sampled_from(["", "", "", "before", "after"]), refuses=st.booleans())
    def mood(self, away: str, refuses: bool) -> None:
        self.world.gateway.away, self.world.gateway.refuses = away, refuses

    @rule()
    def settle(self) -> None:
        self.world.clock.ms += HOUR_MS
        settle_pending(self.desk)

    @rule()
    def heal(self) -> None:
        """The gateway works, and all is seen to: then all adds up."""
        self.world.gateway.away, self.world.gateway.refuses = "", False
        self.world.clock.ms += HOUR_MS
        settle_pending(self.desk)
        with self.desk.reading() as books:
            failed = books.failed_refunds()
        for row in failed:
            refunding.retry(self.desk, OPERATOR, row.reference, why="w")
        balance.check(self.world)

    @invariant()
    def never_more_than_paid(self) -> None:
        if not hasattr(self, "ada"):
            return
        payments = self.world.payments(self.ada.account)
        balance.never_more_than_paid(payments)
        assert 0 <= self.given() <= self.paid()
        hand = sum(
            row.minor
            for row in payments
            if "by_hand" in row.detail and row.state not in (PaymentState.VOID, PaymentState.TAKEN_BACK)
        )
        assert hand == sum(self.standing.values())
        if not self.cancelled and self.kind == "annual":
            _, outcomes = cancelling.quote(self.desk, self.ada, 1) if self._runs() else (0, None)
            assert outcomes is None or outcomes.cancel.refund.minor <= self.paid() - self.given()

    def _runs(self) -> bool:
        [plan] = [sub.plan for sub in self.world.plans(self.device)]
        return not plan.has_ended(self.world.today)

    def paid(self) -> int:
        rows = self.world.payments(self.ada.account)
        return sum(r.minor for r in rows if r.kind is PaymentKind.CHARGE and r.state is PaymentState.DONE)

    def given(self) -> int:
        """Made, noted or owed."""
        gone = (PaymentState.VOID, PaymentState.TAKEN_BACK)
        rows = self.world.payments(self.ada.account)
        return sum(r.minor for r in rows if r.kind is PaymentKind.REFUND and r.state not in gone)

    @staticmethod
    def allowed(act: Callable[[], object]) -> bool:
        try:
            act()
        except CallerError:
            return False
        return True


def _month_end(day: date) -> date:
    """The last day of the next month."""
    year, month = divmod(day.year * 12 + day.month + 1, 12)
    return date.fromordinal(date(year, month + 1, 1).toordinal() - 1)


TestRefunds = RefundsMachine.TestCase
TestRefunds.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
