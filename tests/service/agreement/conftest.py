"""What all tests of the desk may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.retention.world import fast_folder
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.office import Office


@pytest.fixture
def office() -> Iterator[Office]:
    with fast_folder() as folder, Office(folder) as made:
        yield made


@pytest.fixture
def money() -> Iterator[MoneyWorld]:
    """A world of owners, plans and payments, on its first day."""
    with fast_folder() as folder, MoneyWorld(folder / "data") as world:
        yield world
