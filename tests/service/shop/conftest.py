"""A shop is shown on both engines in one run, whatever catalogs the other tests of it have."""

from __future__ import annotations

import pytest

from storage.open_catalog import SQLITE
from tests.servers.catalogs import ENGINE
from tests.servers.postgres import any_binaries


@pytest.fixture(params=[SQLITE, "postgresql"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the catalog, for this process and those that it starts."""
    if request.param == "postgresql":
        any_binaries()
    monkeypatch.setenv(ENGINE, request.param)
    return str(request.param)
