"""An owner's plans and money against the calendar and a gateway with moods: hypothesis tries, buys, cancels, credits,
renews, suspends and terminates as it likes, also while the gateway works, which may be away before or after it acted.

At every moment no day is sold twice, the bitmap is what the plans say, and the history replays to what is stored. And
once the gateway works and `renew` has run, the books balance: see `tests.service.agreement.balance`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retention.money import Money
from service.agreement import crediting, devices, purchases
from service.agreement.desk import OPERATOR
from service.agreement.payments import PaymentUnavailable
from storage.errors import CallerError
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import HOUR_MS, MoneyWorld
from tests.sim import EXAMPLES

DEVICES = st.integers(1, 2)
PLANS = st.integers(1, 8)
KINDS = st.sampled_from(["monthly", "annual"])
RARELY = st.sampled_from([False, False, True])
MOMENTS = st.sampled_from(["before", "after"])


class MoneyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.left = ExitStack()
        folder = self.left.enter_context(fast_folder())
        self.world = self.left.enter_context(MoneyWorld(folder / "data"))
        self.references = 0

    @initialize()
    def begin(self) -> None:
        self.ada = self.world.add_owner()
        assert [self.world.add_device(self.ada) for _ in range(2)] == [1, 2]
        self.world.buy(self.ada, 1, "monthly", "first")

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.left.close()

    # --- what an owner does, and what becomes of it does not matter here ------------------------------------------

    @rule(kind=KINDS, device=DEVICES)
    def buy(self, kind: str, device: int) -> None:
        self.references += 1
        reference = f"r{self.references}"
        self.try_to(lambda: self.world.buy(self.ada, device, kind, reference))

    @rule(plan=PLANS)
    def cancel(self, plan: int) -> None:
        self.try_to(lambda: self.world.cancel(self.ada, plan))

    @rule(device=DEVICES)
    def try_out(self, device: int) -> None:
        self.try_to(lambda: purchases.start_trial(self.world.desk, self.ada, device))

    @rule(plan=PLANS, minor=st.integers(1, 3000))
    def credit(self, plan: int, minor: int) -> None:
        self.references += 1
        reference, money = f"c{self.references}", Money(minor, "USD")
        self.try_to(
            lambda: crediting.credit(self.world.desk, OPERATOR, plan, money, why="w", reference=reference)
        )

    @rule()
    def renew(self) -> None:
        self.try_to(self.world.renew)

    @rule(device=DEVICES, days_before=st.integers(0, 4))
    def renew_in_time(self, device: int, days_before: int) -> None:
        """Go to when the plan that ends last is due, and renew."""
        ends = [sub.plan.ends_on for sub in self.world.plans(device) if sub.renews and sub.plan.ends_on]
        if ends:
            self.days(max(0, (max(ends) - self.world.today).days - days_before))
        self.renew()

    @rule(suspended=RARELY)
    def suspend(self, suspended: bool) -> None:
        self.world.change_account(self.ada, suspended_ms=self.world.clock.ms if suspended else None)

    @rule(device=DEVICES)
    @precondition(lambda self: self.references > 9)
    def terminate(self, device: int) -> None:
        self.world.terminate(device)

    @rule(
        kind=KINDS,
        device=DEVICES,
        plan=PLANS,
        moment=MOMENTS,
        what=st.sampled_from([0, 0, 1, 1, 2, 2, 3, 4, 5]),
    )
    def meanwhile(self, kind: str, device: int, plan: int, moment: str, what: int) -> None:
        """Arrange for something to happen while the gateway works the next time."""
        self.references += 1
        reference = f"r{self.references}"
        acts: list[Callable[[], object]] = [
            lambda: self.world.buy(self.ada, device, kind, reference),
            lambda: self.world.cancel(self.ada, plan),
            self.world.renew,
            lambda: self.suspend(True),
            lambda: devices.terminate(self.world.desk, OPERATOR, device, why="w"),
            lambda: self.days(1),
        ]
        setattr(self.world.gateway, moment, lambda: self.try_to(acts[what]))

    # --- the world ------------------------------------------------------------------------------------------------

    @rule(days=st.sampled_from([1, 1, 3, 13, 25, 28, 31]))
    def days(self, days: int) -> None:
        """Days pass, and every night the rows are rolled."""
        self.world.pass_days(days)
        self.world.desk.entitlements.roll()

    @rule(hours=st.integers(1, 12))
    def hours(self, hours: int) -> None:
        self.world.clock.ms += hours * HOUR_MS
        self.world.desk.entitlements.roll()

    @rule(away=st.sampled_from(["", "", "before", "after"]))
    def mood(self, away: str) -> None:
        self.world.gateway.away = away

    @rule(is_so=RARELY)
    def decline(self, is_so: bool) -> None:
        self.world.decline(self.ada, is_so)

    @rule()
    def heal(self) -> None:
        """The gateway works, and `renew` runs: then all adds up."""
        gateway = self.world.gateway
        gateway.away, gateway.before, gateway.after = "", None, None
        self.world.clock.ms += HOUR_MS  # the longest pause before a payment is asked for again
        self.world.renew()
        balance.check(self.world)

    @invariant()
    def sound(self) -> None:
        if not hasattr(self, "ada"):
            return
        balance.consistent(self.world)
        suspended = self.world.account(self.ada).suspended_ms is not None
        today = self.world.today
        for device in (1, 2):
            runs = any(sub.plan.runs(today) for sub in self.world.plans(device))
            assert self.world.entitled(device, today) == (runs and not suspended)

    @staticmethod
    def try_to(act: Callable[[], object]) -> None:
        with suppress(CallerError, PaymentUnavailable):
            act()


TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
