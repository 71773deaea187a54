"""The catalog on PostgreSQL: the contracts, on a real server."""

from __future__ import annotations

from functools import partial

import pytest

from storage.postgres import PostgresCatalog
from tests.storage.books_contract import BooksContract
from tests.storage.catalog_contract import CatalogContract, Opener


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return partial(PostgresCatalog.open, url)


class TestPostgresBooks(BooksContract):
    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return partial(PostgresCatalog.open, url)
