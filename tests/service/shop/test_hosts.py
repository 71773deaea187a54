"""Three hosts that renew and settle at the same moment, day after day: the work of one, and the books balance."""

from __future__ import annotations

import os

import pytest

from tests.retention.world import fast_folder
from tests.service.shop.year import DAYS, shop

SEED = int(os.environ.get("CLIPKEEP_SOAK_SEED", 7))
TWO_MONTHS = 62


def live(days: int, accounts: int) -> None:
    with fast_folder() as folder, shop(folder / "shop", seed=SEED, accounts=accounts, hosts=3) as year:
        for number in range(days):
            year.live(number)  # at midnight each charge is in the books once, and in the bank's journal once
        assert year.ledger.seen["months"] > accounts / 10, "months were charged for"


@pytest.mark.long
def test_two_months_with_three_hosts() -> None:
    live(TWO_MONTHS, accounts=40)


@pytest.mark.soak
def test_a_year_with_three_hosts() -> None:
    live(DAYS, accounts=100)
