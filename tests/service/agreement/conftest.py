"""What all tests of the desk may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.retention.world import fast_folder
from tests.service.agreement.office import Office


@pytest.fixture
def office() -> Iterator[Office]:
    with fast_folder() as folder, Office(folder) as made:
        yield made
