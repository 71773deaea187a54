"""What a catalog promises of account keys, together with the vault that has them: `storage.catalog.account_keys`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of, event, full_account, owner
from storage.contracts.given import DAY, NOW, Opener
from storage.errors import CallerError, CatalogUnavailable, NotFound, WorldError
from storage.vault import ACCOUNT_KEY_ID_BYTES, Vault


class AccountKeysContract(OnBooks):
    """See the module docstring."""

    @pytest.fixture
    def vault(self, opener: Opener) -> Vault:
        """The vault of the catalogs that `opener` opens."""
        raise NotImplementedError

    def key_of(self, catalog: Catalog, account: int) -> bytes:
        [row] = [row for row in catalog.account_keys() if row.account == account]
        return row.key_id

    def spare(self, catalog: Catalog, vault: Vault) -> list[bytes]:
        ids = [facts.id for facts in vault.account_keys_made(limit=10_000)]
        return [id_ for id_ in ids if id_ not in catalog.account_keys_of(ids)]

    def test_each_account_has_a_key_of_its_own_in_the_vault(
        self, catalog: Catalog, vault: Vault, ann: int, bob: int
    ) -> None:
        rows = catalog.account_keys()
        assert [row.key_id for row in rows] == sorted(row.key_id for row in rows)
        assert {row.account for row in rows} == {0, 1, ann, bob}
        assert not any(row.destroyed for row in rows)
        assert len({*vault.account_keys([row.key_id for row in rows]).values()}) == 4
        assert catalog.account_keys(after=rows[1].key_id, limit=1) == rows[2:3]
        assert catalog.account_keys_of([rows[0].key_id, bytes(16)]) == {rows[0].key_id: rows[0]}
        assert catalog.ended_account_keys() == []

    def test_the_vault_destroys_the_key_of_an_account_that_ends(
        self, catalog: Catalog, vault: Vault, write: Any, ann: int, bob: int
    ) -> None:
        key = self.key_of(catalog, ann)
        with write() as books:
            books.erase_account(ann, cancelled_on=DAY)
        assert vault.account_keys([key]) == {}
        [row] = catalog.account_keys_of([key]).values()
        assert (row.account, row.destroyed) == (None, True)
        assert catalog.ended_account_keys() == []
        assert catalog.end_account_keys([key, self.key_of(catalog, bob)]) == [key]
        assert len(vault.account_keys([self.key_of(catalog, bob)])) == 1
        with catalog.books() as books:
            assert books.account(bob).email == "bob@example.com"

    def test_a_vault_that_is_away_destroys_it_later(
        self, catalog: Catalog, vault: Vault, write: Any, ann: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = self.key_of(catalog, ann)

        def away(*_: object) -> int:
            raise WorldError("away", code="key_store_unavailable")

        with monkeypatch.context() as patched:
            patched.setattr(type(vault), "destroy_account_keys", away)
            with write() as books:
                books.erase_account(ann, cancelled_on=DAY)
            assert catalog.ended_account_keys() == [key]
            with pytest.raises(WorldError):
                catalog.overwrite_erased()
        with catalog.books() as books:
            assert books.account(ann).email is None, "that it has ended is committed"
        assert catalog.overwrite_erased()
        assert catalog.ended_account_keys() == []
        assert vault.account_keys([key]) == {}

    def test_who_reads_a_moment_of_before_finds_the_account_gone(
        self, opener: Opener, catalog: Catalog, vault: Vault, write: Any, ann: int, bob: int
    ) -> None:
        """Its rows are there for a transaction that began before it ended; the key is nowhere any more."""
        with write() as books:
            books.add_event(event(ann))
            books.add_event(event(bob))
        other = opener()
        with other.books() as books:
            assert books.devices_of(ann) == []
            with write() as writing:
                writing.erase_account(ann, cancelled_on=DAY)
            with pytest.raises(NotFound):
                books.account(ann)
            assert [row.account for row in books.accounts()] == [1, bob]
            assert books.events_of(ann) == []
            assert len(books.events_of(bob)) == 1
        with other.books() as books:
            assert books.account(ann).cancelled_on == DAY
        other.close()

    def test_what_a_lost_key_has_sealed_reads_as_gone(
        self, opener: Opener, vault: Vault, write: Any, catalog: Catalog, ann: int, bob: int
    ) -> None:
        """A catalog that was restored to before the account ended."""
        with write() as books:
            books.put_account(full_account(ann))
        vault.destroy_account_keys([self.key_of(catalog, ann)])
        other = opener()
        with other.books() as books:
            assert [row.account for row in books.accounts()] == [1, bob]
            assert books.account_at(email="ann@example.com") is None
        other.close()

    def test_refused_transactions_leave_nothing_in_the_vault(
        self, catalog: Catalog, vault: Vault, write: Any, ann: int
    ) -> None:
        """Or whoever asks for accounts and is refused could make it grow."""
        with write():
            pass
        made = len(vault.account_keys_made(limit=10_000))
        for _ in range(5):
            with suppress(CallerError), write() as books:
                books.add_account(owner("carl@example.com"))
                raise CallerError("as a rule would")
        assert len(vault.account_keys_made(limit=10_000)) == made
        with write() as books:
            carl = books.add_account(owner("carl@example.com")).account
        with catalog.books() as books:
            assert books.account(carl).email == "carl@example.com"

    def test_a_key_that_was_taken_for_unused_is_given_to_nobody(
        self, catalog: Catalog, vault: Vault, write: Any, ann: int
    ) -> None:
        """A transaction that took so long is refused, and the next one has other keys."""
        with write():
            pass
        unused = self.spare(catalog, vault)
        assert sorted(catalog.end_account_keys(unused)) == sorted(unused)
        vault.destroy_account_keys(unused)
        for _ in unused:
            with pytest.raises(CatalogUnavailable, match="try again"), write(new_accounts=1) as books:
                books.add_account(owner("carl@example.com"))
        catalog.note_account_keys_destroyed(unused)
        assert catalog.ended_account_keys() == []
        with write(new_accounts=1) as books:
            carl = books.add_account(owner("carl@example.com")).account
        assert self.key_of(catalog, carl) not in unused
        assert vault.account_keys([self.key_of(catalog, carl)])

    def test_an_account_needs_a_key_that_was_made_ahead(self, catalog: Catalog, write: Any, ann: int) -> None:
        with write(new_accounts=1) as books:
            books.add_account(owner())
            assert code_of(lambda: books.add_account(owner())) == "no_account_key"
        assert code_of(lambda: catalog.transact(lambda books: None, new_accounts=1)) == "no_time"

    def test_ids_are_random_and_as_long_as_the_vault_takes_them(
        self, catalog: Catalog, vault: Vault, ann: int, bob: int
    ) -> None:
        assert {len(row.key_id) for row in catalog.account_keys()} == {ACCOUNT_KEY_ID_BYTES}
        made = {facts.id: facts.made_ms for facts in vault.account_keys_made(limit=10_000)}
        assert made[self.key_of(catalog, ann)] == NOW
