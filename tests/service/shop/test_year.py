"""A year of a shop with all packages on a moving clock: another price, charges that are declined and disputed, a
gateway that is away for two days, workers that are killed at random. At every midnight all books balance to the cent.

Real are the gateway's process and its HTTP, the desk, the catalog (of the engine that this run is on), the bitmap and
the SIGKILLs. `CLIPKEEP_SOAK_SEED` repeats a year that failed: who does what, and the bank's moods; when a worker dies
within a step is up to the machine.
"""

from __future__ import annotations

import json
import os
import random

import pytest

from storage.open_catalog import SQLITE
from tests.retention.world import fast_folder
from tests.service.shop.ledger import Ledger
from tests.service.shop.year import DAYS, shop

SEED = int(os.environ.get("CLIPKEEP_SOAK_SEED", 12))


def run(seed: int, accounts: int) -> Ledger:
    with fast_folder() as folder, shop(folder / "shop", seed=seed, accounts=accounts) as year:
        number = 0
        try:
            for number in range(DAYS):
                year.live(number)
        finally:
            print(f"seed {seed}, day {number} of {DAYS}, {accounts} accounts")
            print(json.dumps({"done": year.counts, "seen": year.ledger.seen}))
        assert year.counts["killed"] > 100, "workers were killed"
        return year.ledger


SEEN = (
    *("trials", "paid during a trial", "bought behind another", "months", "months given back", "lapsed"),
    *("bought monthly", "bought monthly-large", "bought annual", "bought annual-large", "bought half-year"),
    *("bought quarter", "cancelled", "moved up", "by hand", "credits", "told", "new fees"),
    *(
        "charge declined",
        "charge unheard",
        "charge void",
        "charge done_later",
        "refund declined",
        "refund done",
    ),
    *("dispute open", "dispute won", "dispute lost", "ended by a chargeback"),
)
"""What a year has to have had, else it shows nothing."""


def require_seen(ledger: Ledger) -> None:
    missing = [what for what in SEEN if not ledger.seen[what]]
    assert len(missing) <= 3, f"chance left out {missing}"


@pytest.mark.long
@pytest.mark.parametrize(
    "engine", [SQLITE, pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)  # of each run, three hosts for two months and a price rise are on PostgreSQL
def test_a_year_of_a_shop(engine: str) -> None:
    require_seen(run(SEED, accounts=40))


@pytest.mark.soak
def test_a_year_of_a_large_shop() -> None:
    require_seen(run(int(os.environ.get("CLIPKEEP_SOAK_SEED", random.randrange(1 << 32))), accounts=500))
