"""What plans cost, and what was agreed when one was bought. Pure.

The fees of the day of purchase stay those of a subscription for as long as it lasts (agreement 8.2.1 counts a
refund with them); a new price list is for new purchases.
"""

from __future__ import annotations

from dataclasses import dataclass

from retention.money import Money, required
from retention.plans import PlanKind
from storage.errors import Unprocessable


@dataclass(frozen=True, slots=True)
class Terms:
    """Agreed at purchase.

    Args:
        fee: of one period: a month of a monthly plan, the year of an annual one.
        monthly_fee: of a month; what the months begun of an annual plan are counted with.

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
class PriceList:
    """Today's fees, both of one currency.

    Raises:
        CallerError: `bad_amount`, `wrong_currency`.
    """

    monthly: Money
    annual: Money

    def __post_init__(self) -> None:
        Terms(self.annual, self.monthly)

    def terms(self, kind: PlanKind) -> Terms:
        """What a plan bought today is agreed at.

        Raises:
            CallerError: `not_for_sale`, a trial.
        """
        if kind is PlanKind.TRIAL:
            raise Unprocessable(
                "a trial costs nothing and can't be bought; choose monthly or annual", code="not_for_sale"
            )
        return Terms(self.annual if kind is PlanKind.ANNUAL else self.monthly, self.monthly)
