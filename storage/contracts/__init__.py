"""The conformance suites of this room's interfaces, for whoever writes another store, vault or catalog.

They are pytest classes (`pip install clipkeep[contracts]`). Subclass one in a test module and give its fixtures:

    from storage.contracts.catalog import CatalogContract

    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        def opener(self, tmp_path):
            return functools.partial(MyCatalog.open, tmp_path / "catalog")

| of | suite | fixtures |
| --- | --- | --- |
| `storage.objects.ObjectStore` | `store.StoreContract` | `store`, `around`, `outage` |
| `storage.vault.Vault` | `vault.VaultContract` | `opener`, `master_key` |
| `storage.catalog.Catalog` | `catalog.CatalogContract` and the last two | as they say |
| its interfaces but for the last two | `ingest.IngestContract`, …: `CatalogContract` is all of these | `opener` |
| the account books | `books.BooksContract`, or one of its parts by subject | `opener`: with a vault |
| the account keys | `account_keys.AccountKeysContract` | `opener`, and `vault`: the one that it opens catalogs with |

A catalog's `opener` is called without arguments and opens one and the same catalog, empty at first. It is called in
other processes too, which the suite kills: it can be pickled. A part is put to a whole `Catalog`: a test of commits
makes devices, and looks at what the sweep would find.
"""

from pkgutil import iter_modules

import pytest

# They are no test modules by name; without this their asserts would tell nothing.
pytest.register_assert_rewrite(*(module.name for module in iter_modules(__path__, f"{__name__}.")))
