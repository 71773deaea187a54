"""What may become of a payment and of a payment method, as tables. Pure.

Each table is a way without a return, so reports of a gateway may come twice, late or in another order than they were
sent: the one that is further on wins, and one that leads nowhere from there changes nothing.

    charge    PENDING → DONE | FAILED
    refund    PENDING → DONE | FAILED | VOID;  FAILED → PENDING (asked for again) | PAID_OTHERWISE | VOID;
              PAID_OTHERWISE → TAKEN_BACK (the note was wrong). Money that left does not come back
    credit    DONE → TAKEN_BACK
    counter   DONE
    dispute   OPEN → LOST | WON;  LOST → WON (the bank gave it back)
    method    PENDING → USABLE | FAILED; then it is removed
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from storage.errors import Conflict
from storage.rows.accounts import MethodState, PaymentKind, PaymentRow, PaymentState

PAYMENT_STEPS: Mapping[PaymentKind, Mapping[PaymentState, frozenset[PaymentState]]] = MappingProxyType(
    {
        PaymentKind.CHARGE: {PaymentState.PENDING: frozenset({PaymentState.DONE, PaymentState.FAILED})},
        PaymentKind.REFUND: {
            PaymentState.PENDING: frozenset({PaymentState.DONE, PaymentState.FAILED, PaymentState.VOID}),
            PaymentState.FAILED: frozenset(
                {PaymentState.PENDING, PaymentState.PAID_OTHERWISE, PaymentState.VOID}
            ),
            PaymentState.PAID_OTHERWISE: frozenset({PaymentState.TAKEN_BACK}),
        },
        PaymentKind.CREDIT: {PaymentState.DONE: frozenset({PaymentState.TAKEN_BACK})},
        PaymentKind.COUNTER: {},
        PaymentKind.DISPUTE: {
            PaymentState.OPEN: frozenset({PaymentState.LOST, PaymentState.WON}),
            PaymentState.LOST: frozenset({PaymentState.WON}),
        },
    }
)
"""By kind and state: the states that may be next. A state that is no key is an end."""

METHOD_STEPS: Mapping[MethodState, frozenset[MethodState]] = MappingProxyType(
    {MethodState.PENDING: frozenset({MethodState.USABLE, MethodState.FAILED})}
)


def may_follow(row: PaymentRow, state: PaymentState) -> bool:
    """Whether a payment may go to this state now."""
    return state in PAYMENT_STEPS[row.kind].get(row.state, frozenset())


def require_step(row: PaymentRow, state: PaymentState) -> None:
    """Raises Conflict `payment_settled`: the payment can't go to this state."""
    if not may_follow(row, state):
        raise Conflict(
            f"this {row.kind} is {row.state} and can't become {state}",
            subject=row.reference,
            code="payment_settled",
        )


def counts(row: PaymentRow) -> bool:
    """Whether a refund or a credit counts as given (8.2.1): from the moment it is owed, also while the gateway refuses
    it; no more when it is owed no longer, or was taken back."""
    return row.state not in (PaymentState.VOID, PaymentState.TAKEN_BACK)


def method_may_follow(before: MethodState, after: MethodState) -> bool:
    """Whether a method may go from one state to the other."""
    return after in METHOD_STEPS.get(before, frozenset())
