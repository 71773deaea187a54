"""Waiting for room in the byte budget."""

from __future__ import annotations

import trio

from ingest.budget import Account, Budget


async def wait_for_budget(budget: Budget, account: Account, wanted: int, *, whole: bool = False) -> int:
    """Charge as `Budget.charge` does, waiting for room; past `patience_s` the slowest client is let go.

    Args:
        whole: charge all of `wanted`, or nothing.

    Returns:
        The bytes granted; 0 when `wait_s` went by without any. Cancellation leaves nothing charged.
    """
    deadline = trio.current_time() + budget.wait_s
    while not (granted := _charge(budget, account, wanted, whole)):
        left_s = deadline - trio.current_time()
        if left_s <= 0:
            return 0
        with trio.move_on_after(min(budget.patience_s, left_s)) as patience:
            budget.waiting += 1
            try:
                await budget.refunded.park()
            finally:
                budget.waiting -= 1
        if patience.cancelled_caught and budget.is_full():
            budget.let_go()
    return granted


def _charge(budget: Budget, account: Account, wanted: int, whole: bool) -> int:
    return 0 if whole and not budget.has_room(account, wanted) else budget.charge(account, wanted)
