"""What `storage.catalog.continuity.ContinuityCatalog` promises."""

from __future__ import annotations

import pytest

from storage.catalog import Catalog
from storage.contracts.given import (
    OnCatalog,
    Opener,
)
from storage.errors import CatalogUnavailable


class ContinuityContract(OnCatalog):
    """See the module docstring."""

    def test_the_home_is_settled_once(self, catalog: Catalog, opener: Opener) -> None:
        assert catalog.home is None
        assert catalog.settle_home((1 << 63) - 1) == (1 << 63) - 1
        assert catalog.settle_home(7) == catalog.home == (1 << 63) - 1
        again = opener()
        assert again.home == (1 << 63) - 1
        again.close()

    def test_a_closed_catalog_says_so(self, opener: Opener) -> None:
        catalog = opener()
        catalog.totals()
        catalog.close()
        catalog.close()
        with pytest.raises(CatalogUnavailable):
            catalog.totals()
