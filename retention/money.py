"""Amounts of money: whole minor units of one currency, never floats (agreement 8.2). Pure.

An amount may be negative on the way (a fee less what it is owed against); what is paid, refunded or credited
never is, and `required` says so at the door.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering

from storage.errors import Unprocessable

MAX_MINOR = 10**15
"""Ten trillion of a currency with cents: far beyond any fee, far below what 8 bytes hold."""
NO_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND"
FOUR_DIGITS = "CLF UYW"
EXPONENTS = {
    **dict.fromkeys(NO_DIGITS.split(), 0),
    **dict.fromkeys(THREE_DIGITS.split(), 3),
    **dict.fromkeys(FOUR_DIGITS.split(), 4),
}
"""ISO 4217: digits behind the point, where they are not two."""


@total_ordering
@dataclass(frozen=True, slots=True)
class Money:
    """An amount.

    Args:
        minor: in minor units (cents, yen, fils), within +-10^15.
        currency: ISO 4217 code: three capital letters.

    Raises:
        CallerError: `bad_amount` or `wrong_currency`; the latter also when two currencies are added or compared.
    """

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int or abs(self.minor) > MAX_MINOR:
            raise Unprocessable(
                f"an amount is a whole number of minor units up to {MAX_MINOR}, not {self.minor!r}",
                code="bad_amount",
            )
        code = self.currency
        if not (isinstance(code, str) and len(code) == 3 and code.isascii() and code.isupper()):
            raise Unprocessable(
                f"a currency is an ISO 4217 code such as USD, not {code!r}", code="wrong_currency"
            )
        if not code.isalpha():
            raise Unprocessable(f"a currency is three letters, not {code!r}", code="wrong_currency")

    @property
    def zero(self) -> Money:
        """Nothing, of the same currency."""
        return Money(0, self.currency)

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other), self.currency)

    def __mul__(self, count: int) -> Money:
        if type(count) is not int:
            raise Unprocessable(
                f"an amount is taken a whole number of times, not {count!r}", code="bad_amount"
            )
        return Money(self.minor * count, self.currency)

    __rmul__ = __mul__

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._same(other)

    def __bool__(self) -> bool:
        return self.minor != 0

    def __str__(self) -> str:
        """`59.99 USD`, `5999 JPY`, `59.990 KWD`."""
        digits = EXPONENTS.get(self.currency, 2)
        if not digits:
            return f"{self.minor} {self.currency}"
        whole, part = divmod(abs(self.minor), 10**digits)
        return f"{'-' if self.minor < 0 else ''}{whole}.{part:0{digits}} {self.currency}"

    def _same(self, other: Money) -> int:
        if other.currency != self.currency:
            raise Unprocessable(
                f"{other} and {self} are of two currencies; use {self.currency}", code="wrong_currency"
            )
        return other.minor


def required(amount: Money, what: str) -> Money:
    """Return the amount.

    Raises:
        CallerError: `bad_amount`, it is negative.
    """
    if amount.minor < 0:
        raise Unprocessable(f"{what} is {amount}; it can't be less than nothing", code="bad_amount")
    return amount
