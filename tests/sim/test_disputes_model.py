"""Charges that are asked back from the bank, in whatever order with purchases, renewals, refunds and cancellations:
hypothesis disputes, and has the bank decide and change its mind, as it likes, while the gateway is away as it likes.

No bank of the model pays back what was paid back already. Then no more is given back of a charge than it was, by
anybody, at every moment; and in the end `books check` finds nothing, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retention.money import Money
from service.agreement import refunding
from service.agreement.auditing import check_books
from service.agreement.desk import OPERATOR
from service.agreement.details import charge_reference
from service.agreement.gateway.told import DisputeTold
from service.agreement.reports import Heard, hear
from service.agreement.settling import settle_pending
from storage.errors import CallerError, WorldError
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import HOUR_MS, MoneyWorld

KINDS = st.sampled_from(["annual", "monthly"])
PLANS = 3
NEWEST = st.integers(0, 3)
"""Which charge, plan or dispute: counted from the newest."""
PARTS = st.sampled_from([1, 1, 1, 2, 3])
"""All of what is left, half of it, a third."""
LEFT = (PaymentState.DONE, PaymentState.PAID_OTHERWISE)


class DisputesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.left = ExitStack()
        folder = self.left.enter_context(fast_folder())
        self.world = self.left.enter_context(MoneyWorld(folder / "data"))
        self.desk = self.world.desk
        self.made = 0
        self.disputes: list[DisputeTold] = []
        self.ada = self.world.add_owner()
        self.device = self.world.add_device(self.ada)

    @initialize(kind=KINDS)
    def begin(self, kind: str) -> None:
        self.buy(kind)

    def teardown(self) -> None:
        try:
            self.heal("won")
        finally:
            self.left.close()

    def name(self) -> str:
        self.made += 1
        return f"e{self.made}"

    def rows(self, kind: PaymentKind) -> list[PaymentRow]:
        return [row for row in self.world.payments(self.ada.account) if row.kind is kind][::-1]

    def open_disputes(self) -> set[str]:
        return {row.gateway_id for row in self.rows(PaymentKind.DISPUTE) if row.state is PaymentState.OPEN}

    # --- what owners, operators and the world do ----------------------------------------------------------------------

    @precondition(lambda self: len(self.world.plans(self.device)) < PLANS)
    @rule(kind=KINDS)
    def buy(self, kind: str) -> None:
        self.allowed(lambda: self.world.buy(self.ada, self.device, kind, self.name()))

    @rule(at=NEWEST)
    def cancel(self, at: int) -> None:
        plans = self.world.plans(self.device)
        if plans:
            self.allowed(lambda: self.world.cancel(self.ada, plans[::-1][at % len(plans)].plan_id))

    @rule(at=NEWEST, minor=st.sampled_from([100, 599, 5400]), otherwise=st.booleans())
    def give(self, at: int, minor: int, otherwise: bool) -> None:
        """By other means only while no bank decides: what is paid then the bank may give once more."""
        charges = self.rows(PaymentKind.CHARGE)
        otherwise = otherwise and not self.open_disputes()
        if charges and (plan_id := charges[at % len(charges)].plan_id) is not None:
            more = {"why": "w", "reference": self.name(), "otherwise": otherwise}
            self.allowed(lambda: refunding.give(self.desk, OPERATOR, plan_id, Money(minor, "USD"), **more))

    @rule(days=st.sampled_from([0, 1, 1, 10, 27, 31]))
    def pass_days(self, days: int) -> None:
        self.world.pass_days(days)
        self.world.renew()

    @rule(away=st.sampled_from(["", "", "before", "after"]))
    def settle(self, away: str) -> None:
        """By a gateway that is away, or comes back, and stays so."""
        self.world.gateway.away = away
        self.world.clock.ms += HOUR_MS
        settle_pending(self.desk)

    # --- the bank -----------------------------------------------------------------------------------------------------

    @rule(at=NEWEST, part=PARTS, cancelled=st.booleans())
    def dispute(self, at: int, part: int, cancelled: bool) -> None:
        """Whoever does that cancels as often as not; what that gives back waits for the bank."""
        charges = [row for row in self.rows(PaymentKind.CHARGE) if row.state is PaymentState.DONE]
        if not charges:
            return
        charge = charges[at % len(charges)]
        if minor := self.may_be_asked_back(charge) // part:
            told = DisputeTold.model_validate(
                {
                    **{"about": "dispute", "reference": charge.reference, "dispute": self.name()},
                    **{"currency": "USD", "amount_minor": minor, "outcome": "open"},
                }
            )
            assert hear(self.desk, told) is Heard.TAKEN
            self.disputes.append(told)
            if cancelled and (plan_id := charge.plan_id) is not None:
                self.allowed(lambda: self.world.cancel(self.ada, plan_id))

    def may_be_asked_back(self, charge: PaymentRow) -> int:
        """What the owner has not had back yet, and no other dispute asks for; nothing while the gateway may be at a
        refund."""
        gone = 0
        for row in self.world.payments(self.ada.account):
            if charge_reference(row) != charge.reference:
                continue
            if row.kind is PaymentKind.DISPUTE:
                gone += row.minor
            elif row.kind is PaymentKind.REFUND:
                if row.state is PaymentState.PENDING and row.attempts:
                    return 0
                gone += row.minor if row.state in LEFT else 0
        return max(0, charge.minor - gone)

    @rule(at=NEWEST, outcome=st.sampled_from(["lost", "won"]))
    def decide(self, at: int, outcome: str) -> None:
        """Told again, or after the other one, too: a loss may be undone, and a win is for ever."""
        if self.disputes:
            told = self.disputes[::-1][at % len(self.disputes)]
            assert hear(self.desk, told.model_copy(update={"outcome": outcome})) is Heard.TAKEN

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def never_more_than_paid(self) -> None:
        payments = self.world.payments(self.ada.account)
        for charge in payments:
            if charge.kind is PaymentKind.CHARGE and charge.state is PaymentState.DONE:
                of = [row for row in payments if charge_reference(row) == charge.reference]
                assert sum(row.minor for row in of if gives_back(row)) <= charge.minor, of

    @rule(outcome=st.sampled_from(["lost", "won"]))
    def heal(self, outcome: str) -> None:
        """The bank decides what is open, and the gateway works: then all adds up, and nothing waits."""
        self.world.gateway.away = ""
        is_open = self.open_disputes()
        for told in self.disputes:
            if told.dispute in is_open:
                hear(self.desk, told.model_copy(update={"outcome": outcome}))
        for _ in range(3):
            self.world.clock.ms += HOUR_MS
            settle_pending(self.desk)
        assert [
            row for row in self.world.payments(self.ada.account) if row.state is PaymentState.PENDING
        ] == []
        balance.consistent(self.world)
        audit = check_books(self.desk, self.world.bitmap, days=36_500)
        assert (audit.findings, audit.unanswered) == ([], 0)

    @staticmethod
    def allowed(act: Callable[[], object]) -> None:
        with suppress(CallerError, WorldError):
            act()


def gives_back(row: PaymentRow) -> bool:
    """By the bank, by the gateway, noted, or owed."""
    if row.kind is PaymentKind.DISPUTE:
        return row.state is PaymentState.LOST
    gone = (PaymentState.VOID, PaymentState.TAKEN_BACK)
    return row.kind is PaymentKind.REFUND and row.state not in gone


TestDisputes = DisputesMachine.TestCase
TestDisputes.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
