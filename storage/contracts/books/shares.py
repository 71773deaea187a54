"""What the account books promise of share links."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks
from storage.contracts.given import NOW
from storage.errors import NotFound
from storage.rows.shares import ShareRow


def share(account: int, device: int, **fields: Any) -> ShareRow:
    return replace(ShareRow(0, account, device, 10, 20, NOW, NOW + 100, 3, 2), **fields)


class SharesContract(OnBooks):
    """See the module docstring."""

    def test_links_of_a_device_by_number(self, catalog: Catalog, write: Any, ann: int, device: int) -> None:
        with write() as books:
            other = books.add_device(ann).device
            first = books.add_share(share(ann, device))
            second = books.add_share(share(ann, device, opens=4, opened_ms=NOW))
            elsewhere = books.add_share(share(ann, other))
            with pytest.raises(NotFound):
                books.add_share(share(99, device))
            with pytest.raises(NotFound):
                books.add_share(share(ann, 999))
        with catalog.books() as books:
            assert books.shares_of(device) == [first, second]
            assert books.shares_of(device, limit=1) == [first]
            assert books.shares_of(device, after=first.share_id) == [second]
            assert books.shares_of(other) == [elsewhere]

    def test_a_link_goes_when_it_is_revoked_or_over(
        self, catalog: Catalog, write: Any, ann: int, device: int
    ) -> None:
        with write() as books:
            other = books.add_device(ann).device
            first = books.add_share(share(ann, device))
            second = books.add_share(share(ann, device, expires_ms=NOW + 200))
            elsewhere = books.add_share(share(ann, other))
            assert not books.drop_share(other, first.share_id), "of another device"
            assert books.drop_shares(before_ms=NOW + 99) == 0
            assert books.drop_shares(before_ms=NOW + 100, device=device) == 1
            assert books.shares_of(device) == [second]
            assert books.drop_share(device, second.share_id)
            assert not books.drop_share(device, second.share_id)
            assert books.drop_shares(before_ms=NOW + 100) == 1
            assert books.shares_of(other) == []
            assert books.add_share(share(ann, device)).share_id > elsewhere.share_id, "never given twice"
