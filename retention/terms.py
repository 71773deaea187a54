"""What was agreed when a plan was bought. Pure.

The fees of the day of purchase stay those of a subscription (agreement 8.2.1 counts a refund with them). Another price
of its package is for new purchases, and for monthly plans that run only after a notice (`retention.fee_changes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from retention.money import Money, required


@dataclass(frozen=True, slots=True)
class Terms:
    """Agreed at purchase.

    Args:
        fee: of one period: a month of a monthly plan, all months of one paid in full.
        monthly_fee: of a month; what the months begun of a plan paid in full are counted with.

    Raises:
        CallerError: `bad_amount`, `wrong_currency`.
    """

    fee: Money
    monthly_fee: Money

    def __post_init__(self) -> None:
        required(self.fee, "the fee")
        required(self.monthly_fee, "the monthly fee")
        _ = self.fee + self.monthly_fee  # one currency

    @property
    def currency(self) -> str:
        return self.fee.currency


@dataclass(frozen=True, slots=True)
class NextFee:
    """Another fee of a monthly plan, of which its owner was told.

    Args:
        version: of the package, which has this price.
        on: it is that of the first period that begins on this day or later.
    """

    fee: Money
    version: int
    on: date
