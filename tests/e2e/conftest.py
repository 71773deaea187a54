"""What the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service whose data folder is still to be made (`init`). Its processes end with the test."""
    with Service(tmp_path) as service:
        yield service
