"""How a purchase stands that is not paid for yet, and what may become of it. Pure.

    OPEN → PAID | DECLINED | EXPIRED | ABANDONED
    EXPIRED, ABANDONED → VOID (it was not charged, and never will be) | GIVEN_BACK (it was, and all of it is refunded)

While one is OPEN, another purchase for the same device waits for it. EXPIRED and ABANDONED ones keep nobody waiting: no
plan can come of them any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class OrderState(StrEnum):
    OPEN = "open"  # the gateway has not answered, or whoever pays has to do something first
    EXPIRED = "expired"  # too old to be charged; the gateway has not confirmed that it is void
    ABANDONED = "abandoned"  # by whoever ordered it; likewise
    PAID = "paid"
    DECLINED = "declined"
    VOID = "void"
    GIVEN_BACK = "given_back"


ORDER_STEPS: Mapping[OrderState, frozenset[OrderState]] = MappingProxyType(
    {
        OrderState.OPEN: frozenset(
            {OrderState.PAID, OrderState.DECLINED, OrderState.EXPIRED, OrderState.ABANDONED}
        ),
        OrderState.EXPIRED: frozenset({OrderState.VOID, OrderState.GIVEN_BACK}),
        OrderState.ABANDONED: frozenset({OrderState.VOID, OrderState.GIVEN_BACK}),
    }
)
"""The states that may be next. A state that is no key is an end."""


def while_pending(*, ordered_ms: int, now_ms: int, ttl_ms: int, abandoned: bool) -> OrderState:
    """How an order stands whose charge is pending. It expires `ttl_ms` after it was made."""
    if abandoned:
        return OrderState.ABANDONED
    return OrderState.EXPIRED if now_ms - ordered_ms > ttl_ms else OrderState.OPEN


def may_be_paid(state: OrderState) -> bool:
    return OrderState.PAID in ORDER_STEPS.get(state, ())
