"""What the recording gateway was asked, and said."""

from __future__ import annotations

from typing import NamedTuple


class PaymentRecord(NamedTuple):
    """The answer to one request, which stays the answer. Nothing in it names a person: payments outlive accounts whose
    rows in the books are cleared, and nothing here leads to a person."""

    reference: str
    kind: str
    """`charge` or `refund`."""
    minor: int
    currency: str
    outcome: str
    """`done` or `declined`."""
    detail: str
    of_reference: str = ""
    """The charge that a refund is of."""
