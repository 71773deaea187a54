"""What `storage.catalog.shares.SharesCatalog` promises."""

from __future__ import annotations

from storage.catalog import Catalog
from storage.contracts.blocks import writing_books
from storage.contracts.given import NOW, OnCatalog
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.shares import ShareRow


def share(device: int, **fields: int) -> ShareRow:
    return ShareRow(0, OPERATOR_ACCOUNT, device, NOW, NOW + 1000, NOW, NOW + 5000, 1, 0, **fields)


class SharesContract(OnCatalog):
    """See the module docstring."""

    def test_links_are_found_by_number(self, catalog: Catalog) -> None:
        with writing_books(
            catalog, before_change=lambda *_: None, now_ms=NOW, max_device=1000, new_accounts=0
        ) as books:
            device = books.add_device(OPERATOR_ACCOUNT).device
            first, second = books.add_share(share(device)), books.add_share(share(device))
        assert second.share_id > first.share_id > 0
        asked = [second.share_id, first.share_id, second.share_id + 1]
        assert catalog.shares_by_number(asked) == [first, second]
        assert catalog.shares_by_number([second.share_id]) == [second]
        assert catalog.shares_by_number([]) == []

    def test_opens_are_added_up(self, catalog: Catalog) -> None:
        with writing_books(
            catalog, before_change=lambda *_: None, now_ms=NOW, max_device=1000, new_accounts=0
        ) as books:
            device = books.add_device(OPERATOR_ACCOUNT).device
            first, second = books.add_share(share(device)).share_id, books.add_share(share(device)).share_id
        catalog.count_opens({first: 2, second: 1, second + 1: 7}, now_ms=NOW + 1)
        catalog.count_opens({first: 3}, now_ms=NOW + 2)
        catalog.count_opens({}, now_ms=NOW + 3)
        found = [(row.opens, row.opened_ms) for row in catalog.shares_by_number([first, second])]
        assert found == [(5, NOW + 2), (1, NOW + 1)]
