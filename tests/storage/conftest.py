"""What several files of this room stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.sqlite import SqliteCatalog
from tests.storage.raw_server import RawServer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a new catalog."""
    SqliteCatalog.create(tmp_path / "catalog.db").close()
    return tmp_path / "catalog.db"


@pytest.fixture
def catalog(path: Path) -> Iterator[SqliteCatalog]:
    """The one at `path`; sound at the end."""
    catalog = SqliteCatalog.open(path)
    yield catalog
    assert list(catalog.broken_rows()) == []
    catalog.close()


@pytest.fixture
def server() -> Iterator[RawServer]:
    """A server that answers what a test says."""
    server = RawServer()
    yield server
    server.close()
