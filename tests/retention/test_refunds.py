"""Refunds: never negative, never above what was paid, never growing with time (agreement 8.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention import refunds
from retention.money import Money
from retention.terms import Terms
from storage.errors import CallerError

FEES = st.integers(0, 10**10)
SMALL = st.integers(0, 10_000)


def usd(minor: int) -> Money:
    return Money(minor, "USD")


def annual(fee: int, monthly: int, started: int, paid: int, credits: int = 0) -> int:
    terms = Terms(usd(fee), usd(monthly))
    return refunds.of_paid_in_full(terms, months_started=started, paid=usd(paid), credits=usd(credits)).minor


@pytest.mark.parametrize(("started", "refund"), [(1, 5400), (2, 4801), (5, 3004), (10, 9), (11, 0), (12, 0)])
def test_a_year_for_5999_with_months_of_599(started: int, refund: int) -> None:
    """8.2.1: the fee less a month's for each month started; 11 months are 6589, more than the year: nothing."""
    assert annual(5999, 599, started, 5999) == refund


def test_credits_and_earlier_refunds_are_taken_off_once_each() -> None:
    assert annual(5999, 599, 5, 5999, credits=1000) == 2004
    assert annual(5999, 599, 5, 4999) == 2004  # 1000 was refunded before
    assert annual(5999, 599, 5, 4999, credits=1000) == 1004


def test_credits_above_the_refund_leave_nothing_to_refund() -> None:
    assert annual(5999, 599, 5, 5999, credits=3004) == 0
    assert annual(5999, 599, 5, 5999, credits=3003) == 1
    assert annual(5999, 599, 5, 5999, credits=999_999) == 0


@given(FEES, FEES, st.integers(1, 12), FEES, FEES)
def test_it_is_never_negative_and_never_above_what_was_paid(
    fee: int, monthly: int, started: int, paid: int, credits: int
) -> None:
    refund = annual(fee, monthly, started, paid, credits)
    assert 0 <= refund <= min(paid, fee)
    assert refund in (0, min(paid, fee) - credits - monthly * started)


@given(SMALL, SMALL, st.integers(1, 11), SMALL, SMALL)
def test_it_never_grows_with_time(fee: int, monthly: int, started: int, paid: int, credits: int) -> None:
    now, later = (annual(fee, monthly, n, paid, credits) for n in (started, started + 1))
    assert later <= now <= refunds.before_start(usd(paid)).minor


@given(SMALL, SMALL, st.integers(1, 12), SMALL, SMALL)
def test_after_a_refund_nothing_more_is_due(
    fee: int, monthly: int, started: int, paid: int, credits: int
) -> None:
    """What is paid back lowers what was paid; the same question again gives at most what the fee left."""
    paid = min(fee, paid)
    refund = annual(fee, monthly, started, paid, credits)
    assert annual(fee, monthly, started, paid - refund, credits) == 0


@given(SMALL, st.integers(0, 3), SMALL)
def test_months_ahead_are_refunded_in_full_but_not_above_what_was_paid(
    fee: int, months: int, paid: int
) -> None:
    terms = Terms(usd(fee), usd(fee))
    assert refunds.of_months_ahead(terms, months=months, paid=usd(paid)) == usd(min(fee * months, paid))


def test_before_its_first_day_all_that_was_paid_is_refunded() -> None:
    assert refunds.before_start(usd(5999)) == usd(5999)


def test_amounts_that_can_not_be_are_refused() -> None:
    terms = Terms(usd(5999), usd(599))
    euros = Money(5999, "EUR")
    for paid, credits, code in (
        (euros, usd(0), "wrong_currency"),
        (usd(5999), Money(0, "EUR"), "wrong_currency"),
        (usd(-1), usd(0), "bad_amount"),
        (usd(5999), usd(-1), "bad_amount"),
    ):
        with pytest.raises(CallerError) as caught:
            refunds.of_paid_in_full(terms, months_started=1, paid=paid, credits=credits)
        assert caught.value.code == code
    for amount, code in ((euros, "wrong_currency"), (usd(-1), "bad_amount")):
        with pytest.raises(CallerError) as caught:
            refunds.of_months_ahead(terms, months=1, paid=amount)
        assert caught.value.code == code
