"""The catalog on PostgreSQL: the contracts, on a real server."""

from __future__ import annotations

from functools import partial

import pytest

from storage.contracts.books import BooksContract
from storage.contracts.catalog import CatalogContract
from storage.contracts.given import Opener
from storage.postgres import PostgresCatalog


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return partial(PostgresCatalog.open, url)


class TestPostgresBooks(BooksContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return partial(PostgresCatalog.open, url)
