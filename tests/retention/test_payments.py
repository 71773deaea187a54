"""What may become of payments and methods."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from retention.payments import METHOD_STEPS, PAYMENT_STEPS, may_follow, method_may_follow, require_step
from storage.errors import Conflict
from storage.rows.accounts import MethodState, PaymentKind, PaymentRow, PaymentState


def row(kind: PaymentKind, state: PaymentState) -> PaymentRow:
    return PaymentRow(1, "r", 2, None, 1, kind, "USD", 5, state, "", 0)


def test_every_kind_has_its_table_and_no_state_follows_itself() -> None:
    assert set(PAYMENT_STEPS) == set(PaymentKind)
    for kind, state in product(PaymentKind, PaymentState):
        assert not may_follow(row(kind, state), state)


@pytest.mark.parametrize(
    ("kind", "state", "ends"),
    [
        (PaymentKind.CHARGE, PaymentState.PENDING, {"done", "failed"}),
        (PaymentKind.CHARGE, PaymentState.DONE, set()),
        (PaymentKind.CHARGE, PaymentState.FAILED, set()),
        (PaymentKind.REFUND, PaymentState.PENDING, {"done", "failed", "void"}),
        (PaymentKind.REFUND, PaymentState.FAILED, {"pending", "paid_otherwise", "void"}),
        (PaymentKind.REFUND, PaymentState.PAID_OTHERWISE, {"taken_back"}),
        (PaymentKind.REFUND, PaymentState.DONE, set()),
        (PaymentKind.REFUND, PaymentState.TAKEN_BACK, set()),
        (PaymentKind.CREDIT, PaymentState.DONE, {"taken_back"}),
        (PaymentKind.COUNTER, PaymentState.DONE, set()),
        (PaymentKind.DISPUTE, PaymentState.OPEN, {"lost", "won"}),
        (PaymentKind.DISPUTE, PaymentState.LOST, {"won"}),
        (PaymentKind.DISPUTE, PaymentState.WON, set()),
    ],
)
def test_steps(kind: PaymentKind, state: PaymentState, ends: set[str]) -> None:
    before = row(kind, state)
    assert {str(after) for after in PaymentState if may_follow(before, after)} == ends
    for after in set(PaymentState) - {PaymentState(end) for end in ends}:
        with pytest.raises(Conflict) as caught:
            require_step(before, after)
        assert caught.value.code == "payment_settled"


def test_reports_of_a_dispute_come_to_the_same_in_any_order() -> None:
    """What the bank said last counts, also when it is heard first."""
    told = (PaymentState.OPEN, PaymentState.LOST, PaymentState.WON)
    for count in (1, 2, 3):
        for sent in (told[:count], (told[0], told[2])):
            for heard in permutations((*sent, *sent)):
                dispute = row(PaymentKind.DISPUTE, heard[0])
                for state in heard[1:]:
                    if may_follow(dispute, state):
                        dispute = row(PaymentKind.DISPUTE, state)
                assert dispute.state is max(sent, key=told.index)


def test_a_method_becomes_usable_or_fails() -> None:
    assert set(METHOD_STEPS) == {MethodState.PENDING}
    assert method_may_follow(MethodState.PENDING, MethodState.USABLE)
    assert not method_may_follow(MethodState.FAILED, MethodState.USABLE), "a new one is set up"
