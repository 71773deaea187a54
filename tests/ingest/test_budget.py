"""The byte budget (invariant 15)."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ingest.budget import SHARE_SLACK_BYTES, STEP_BYTES, Account, Budget
from ingest.room import wait_for_budget

STEP = STEP_BYTES


def test_a_charge_is_granted_whole_while_there_is_room() -> None:
    budget, account = Budget(10 * STEP, 10 * STEP), Account()
    assert budget.charge(account, 100) == 100
    assert budget.charge(account, 4 * STEP) == 4 * STEP
    assert (budget.in_use_bytes, account.charged_bytes) == (4 * STEP + 100, 4 * STEP + 100)


def test_what_is_left_is_granted_in_whole_steps() -> None:
    """No receives of a few bytes each when the budget is nearly used up."""
    budget, account = Budget(10 * STEP, 10 * STEP), Account()
    budget.charge(account, 7 * STEP + 100)
    assert budget.charge(account, 4 * STEP) == 2 * STEP
    assert budget.charge(account, STEP) == 0
    assert budget.charge(account, STEP - 100) == STEP - 100, "a last, smaller piece that fits"
    assert budget.in_use_bytes == 10 * STEP
    assert budget.charge(account, 1) == 0


def test_one_connection_has_a_share() -> None:
    """And one receive beyond it, for what surrounds a chunk as large as the share."""
    budget, first, second = Budget(20 * STEP, 4 * STEP), Account(), Account()
    most = 4 * STEP + SHARE_SLACK_BYTES
    assert budget.charge(first, 10 * STEP) == most
    assert budget.charge(first, 1) == 0
    assert budget.charge(second, 10 * STEP) == most
    budget.refund(first, most)
    assert budget.charge(first, 1) == 1


def test_refunding_more_than_was_charged_is_a_bug() -> None:
    budget, account, other = Budget(10 * STEP, 4 * STEP), Account(), Account()
    budget.charge(account, STEP)
    budget.charge(other, STEP)
    with pytest.raises(AssertionError, match="more than this connection"):
        budget.refund(other, STEP + 1)


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6 * STEP), st.booleans()), max_size=60),
)
def test_no_order_of_charges_and_refunds_exceeds_the_budget(
    total: int, share: int, steps: list[tuple[int, int, bool]]
) -> None:
    """Invariant 15, for the whole process and for each connection."""
    budget = Budget(total * STEP, share * STEP)
    accounts = [Account() for _ in range(4)]
    peak = 0
    for who, size, back in steps:
        account = accounts[who]
        if back:
            budget.refund(account, min(size, account.charged_bytes))
        else:
            most = budget.share_bytes + SHARE_SLACK_BYTES
            room = min(budget.total_bytes - budget.in_use_bytes, most - account.charged_bytes)
            granted = budget.charge(account, size)
            assert 0 <= granted <= size
            assert granted <= room
            assert granted == size or (granted % STEP == 0 and room - granted < STEP)
        peak = max(peak, budget.in_use_bytes)
        assert budget.in_use_bytes == sum(a.charged_bytes for a in accounts) <= budget.total_bytes
    assert budget.peak_bytes == peak


async def test_who_waits_goes_on_when_bytes_come_back() -> None:
    budget, holder, waiter = Budget(2 * STEP, 2 * STEP), Account(), Account()
    budget.charge(holder, 2 * STEP)
    granted: list[int] = []

    async def wait() -> None:
        granted.append(await wait_for_budget(budget, waiter, 5 * STEP))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        budget.refund(holder, 100)
        await wait_all_tasks_blocked()
        assert granted == [], "less than a step is not worth a receive"
        budget.refund(holder, STEP)
    assert granted == [STEP]


async def test_a_cancelled_wait_leaves_nothing_charged() -> None:
    budget, holder, waiter = Budget(STEP, STEP), Account(), Account()
    budget.charge(holder, STEP)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_budget, budget, waiter, STEP)
            await wait_all_tasks_blocked()
            scope.cancel()
            budget.refund(holder, STEP)
    assert scope.cancelled_caught
    assert (budget.in_use_bytes, waiter.charged_bytes) == (0, 0)


async def test_waiting_ends_without_a_grant(autojump_clock: MockClock) -> None:
    budget, holder = Budget(STEP, STEP, patience_s=2.0, wait_s=5.0), Account()
    budget.charge(holder, STEP)
    began_s = trio.current_time()
    assert await wait_for_budget(budget, Account(), 1) == 0
    assert trio.current_time() - began_s == pytest.approx(5.0)


async def test_a_short_wait_does_not_last_as_long_as_patience(autojump_clock: MockClock) -> None:
    budget, holder = Budget(STEP, STEP, patience_s=2.0, wait_s=0.5), Account()
    budget.charge(holder, STEP)
    began_s = trio.current_time()
    assert await wait_for_budget(budget, Account(), 1) == 0
    assert trio.current_time() - began_s == pytest.approx(0.5)


async def test_patience_over_the_slowest_is_let_go(autojump_clock: MockClock) -> None:
    holder = Account()
    asked_at_s: list[float] = []
    began_s = trio.current_time()

    def let_go() -> bool:
        asked_at_s.append(trio.current_time() - began_s)
        if len(asked_at_s) == 2:
            budget.refund(holder, STEP)
        return True

    budget = Budget(STEP, STEP, patience_s=2.0, wait_s=10.0, let_go=let_go)
    budget.charge(holder, STEP)
    assert await wait_for_budget(budget, Account(), STEP) == STEP
    assert asked_at_s == pytest.approx([2.0, 4.0])


async def test_a_share_used_up_lets_nobody_go(autojump_clock: MockClock) -> None:
    """A connection at its own limit waits for its own acknowledgements; its neighbours have no part in that."""
    asked: list[bool] = []

    def let_go() -> bool:
        asked.append(True)
        return True

    budget = Budget(10 * STEP, STEP, patience_s=1.0, wait_s=3.0, let_go=let_go)
    account = Account()
    budget.charge(account, STEP + SHARE_SLACK_BYTES)
    assert await wait_for_budget(budget, account, 1) == 0
    assert not asked
