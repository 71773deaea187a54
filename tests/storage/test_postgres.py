"""The catalog on PostgreSQL: the contracts, on a real server, by a role that has no more privileges than it needs."""

from __future__ import annotations

from functools import partial

import pytest

from storage.contracts.books import BooksContract
from storage.contracts.catalog import CatalogContract
from storage.contracts.given import Opener
from storage.postgres import PostgresCatalog


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, service_url: str) -> Opener:
        return partial(PostgresCatalog.open, service_url)


class TestPostgresBooks(BooksContract):
    @pytest.fixture
    def opener(self, service_url: str) -> Opener:
        return partial(PostgresCatalog.open, service_url)
