"""What the account books promise of log-in from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of
from storage.contracts.given import NOW
from storage.errors import NotFound
from storage.rows.identities import IdentityRow


class IdentitiesContract(OnBooks):
    """See the module docstring."""

    def test_an_identity_is_one_accounts(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        first = IdentityRow(ann, "google", "https://a.example\n1", NOW)
        other = replace(first, provider="acme", subject="https://b.example\n1", linked_ms=NOW + 1)
        with write() as books:
            books.add_identity(first)
            books.add_identity(other)
            assert code_of(lambda: books.add_identity(replace(first, account=bob))) == "identity_taken"
            again = replace(first, subject="https://a.example\n2")
            assert code_of(lambda: books.add_identity(again)) == "identity_exists"
            nobodys = replace(first, account=99, subject="x")
            with pytest.raises(NotFound):
                books.add_identity(nobodys)
        with catalog.books() as books:
            assert books.identities_of(ann) == [other, first]
            assert books.identities_of(bob) == []
            assert books.identity_at(first.subject) == first
            assert books.identity_at("https://a.example\n2") is None
        with write() as books:
            assert (books.drop_identity(ann, "google"), books.drop_identity(ann, "google")) == (True, False)
            books.add_identity(replace(first, account=bob))
            assert books.identity_at(first.subject) == replace(first, account=bob)
