"""What a cancellation gives back: arithmetic alone (agreement 7.2.1, 8.2). Pure.

`paid` is always what was charged for the plan less what was refunded of it already, so an earlier refund lowers
the next one by itself. No refund is negative or above `paid`, and none grows as months begin.
"""

from __future__ import annotations

from retention.money import Money, required
from retention.terms import Terms


def before_start(paid: Money) -> Money:
    """A plan without a day: all that was paid (7.2.1). Credits are not taken off: 8.2.1, which does so, is about
    plans that began."""
    return required(paid, "what was paid")


def of_paid_in_full(terms: Terms, *, months_started: int, paid: Money, credits: Money) -> Money:
    """A plan paid in full that runs (8.2.1, whose "annual plan" is the one of 12 months): the fee, less a monthly fee
    for each month started, less credits and earlier refunds; nothing where that is below zero.

    Args:
        months_started: 1 or more; the month that began today counts.

    Raises:
        CallerError: `wrong_currency`, `bad_amount`.
    """
    left = min(terms.fee, required(paid, "what was paid")) - required(credits, "the credit")
    return max(left.zero, left - terms.monthly_fee * months_started)


def of_months_ahead(terms: Terms, *, months: int, paid: Money) -> Money:
    """Months of a monthly plan that were charged and have not begun: their fees, in full. The month that runs
    gives nothing back (8.2.2).

    Raises:
        CallerError: `wrong_currency`, `bad_amount`.
    """
    return min(terms.fee * months, required(paid, "what was paid"))
