"""Money: whole minor units of one currency, never mixed, never a float."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.money import MAX_MINOR, Money, required
from retention.terms import Terms
from storage.errors import CallerError

AMOUNTS = st.integers(-(10**12), 10**12)


def usd(minor: int) -> Money:
    return Money(minor, "USD")


def refusal(call: Any) -> str:
    with pytest.raises(CallerError) as caught:
        call()
    return caught.value.code


@given(AMOUNTS, AMOUNTS, st.integers(-100, 100))
def test_it_counts_as_whole_numbers_do(a: int, b: int, times: int) -> None:
    assert usd(a) + usd(b) == usd(a + b)
    assert usd(a) - usd(b) == usd(a - b)
    assert usd(a) * times == times * usd(a) == usd(a * times)
    assert (usd(a) < usd(b), usd(a) <= usd(b)) == (a < b, a <= b)
    assert max(usd(a), usd(b)) == usd(max(a, b))
    assert bool(usd(a)) == bool(a)
    assert usd(a).zero == usd(0)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a < b,
        lambda a, b: a >= b,
        max,
        lambda a, b: Terms(a, b),
    ],
)
def test_two_currencies_are_never_mixed(mixed: Any) -> None:
    assert refusal(lambda: mixed(usd(1), Money(1, "EUR"))) == "wrong_currency"
    assert usd(1) != Money(1, "EUR")


@pytest.mark.parametrize("minor", [1.0, 0.1, True, "1", None, MAX_MINOR + 1, -MAX_MINOR - 1, float("nan")])
def test_what_is_no_whole_number_in_bounds_is_no_amount(minor: Any) -> None:
    assert refusal(lambda: Money(minor, "USD")) == "bad_amount"


@pytest.mark.parametrize("currency", ["usd", "US", "USDT", "", "U$D", "ÜSD", "US1", "us\n", None, 840])
def test_what_is_no_code_is_no_currency(currency: Any) -> None:
    assert refusal(lambda: Money(1, currency)) == "wrong_currency"


@pytest.mark.parametrize("count", [1.5, True, "2"])
def test_it_is_not_taken_a_part_of_a_time(count: Any) -> None:
    assert refusal(lambda: usd(100) * count) == "bad_amount"


def test_products_and_sums_are_bounded_too() -> None:
    assert refusal(lambda: usd(MAX_MINOR) + usd(1)) == "bad_amount"
    assert refusal(lambda: usd(MAX_MINOR) * 2) == "bad_amount"


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (usd(5999), "59.99 USD"),
        (usd(5), "0.05 USD"),
        (usd(0), "0.00 USD"),
        (usd(-5999), "-59.99 USD"),
        (usd(-5), "-0.05 USD"),
        (Money(5999, "JPY"), "5999 JPY"),
        (Money(-1, "JPY"), "-1 JPY"),
        (Money(59990, "KWD"), "59.990 KWD"),
        (Money(12345, "CLF"), "1.2345 CLF"),
    ],
)
def test_it_is_written_with_the_digits_of_its_currency(money: Money, text: str) -> None:
    assert str(money) == text


def test_what_is_paid_is_never_less_than_nothing() -> None:
    assert required(usd(0), "the fee") == usd(0)
    assert refusal(lambda: required(usd(-1), "the fee")) == "bad_amount"
    assert refusal(lambda: Terms(usd(-1), usd(1))) == "bad_amount"
    assert refusal(lambda: Terms(usd(1), usd(-1))) == "bad_amount"
