"""What the account books promise of events, blocks and versions of the agreement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import DETAIL, OnBooks, event
from storage.contracts.given import NOW
from storage.errors import NotFound
from storage.rows.accounts import AcceptanceRow, BlockKind, BlockRow


class HistoryContract(OnBooks):
    """See the module docstring."""

    def test_events(self, catalog: Catalog, write: Any, ann: int, bob: int, device: int) -> None:
        with write() as books:
            rows = [
                books.add_event(event(ann)),
                books.add_event(
                    event(ann, "subscribed", device=device, who="system", why="paid", facts=DETAIL)
                ),
            ]
            books.add_event(event(bob))
            with pytest.raises(NotFound):
                books.add_event(event(99))
        assert rows[1] == event(
            ann,
            "subscribed",
            device=device,
            who="system",
            why="paid",
            facts=DETAIL,
            event_id=rows[1].event_id,
        )
        with catalog.books() as books:
            assert books.events_of(ann) == rows
            assert books.events_of(ann, after=rows[0].event_id) == rows[1:]
            assert books.events_of(ann, limit=1) == rows[:1]
            assert books.events_of(ann, limit=2, newest_first=True) == rows[::-1][:2]
            assert books.events_of(99) == []

    def test_blocks(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            rows = [
                books.add_block(BlockRow(0, ann, kind, f"because {kind}", "operator", NOW))
                for kind in BlockKind
            ]
            books.add_block(BlockRow(0, bob, BlockKind.OTHER, "", "operator", NOW))
            lifted = books.lift_block(rows[1].block_id, now_ms=NOW + 1)
            assert lifted == replace(rows[1], lifted_ms=NOW + 1)
            assert books.lift_block(rows[1].block_id, now_ms=NOW + 9) == lifted
            for call in (
                lambda: books.lift_block(99, now_ms=NOW),
                lambda: books.add_block(BlockRow(0, 99, BlockKind.OTHER, "", "", NOW)),
            ):
                with pytest.raises(NotFound):
                    call()
        with catalog.books() as books:
            assert books.blocks_of(ann) == [rows[0], lifted, *rows[2:]]
            assert books.blocks_of(99) == []

    def test_versions_of_the_agreement(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            with pytest.raises(NotFound):
                books.agreement()
            first = books.publish_agreement("One.", now_ms=NOW)
            assert books.publish_agreement("One.", now_ms=NOW + 1) == first
            second = books.publish_agreement("Two: ünï", now_ms=NOW + 2)
            third = books.publish_agreement("One.", now_ms=NOW + 3)  # back to the old text is a change
        assert [r.version for r in (first, second, third)] == [1, 2, 3]
        assert first.sha256 == third.sha256 != second.sha256
        assert len(first.sha256) == 64
        with catalog.books() as books:
            assert books.agreement() == third
            assert books.agreement(2) == second
            assert books.agreements() == [first, second, third]
            for version in (0, 4):
                with pytest.raises(NotFound):
                    books.agreement(version)

    def test_the_first_acceptance_counts(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            for text in ("One.", "Two."):
                books.publish_agreement(text, now_ms=NOW)
            first = AcceptanceRow(ann, 1, "registered", NOW)
            for row in (
                AcceptanceRow(ann, 2, "deemed", NOW + 1),
                first,
                AcceptanceRow(ann, 1, "purchase", NOW + 2),
            ):
                books.accept_agreement(row)
            for row in (AcceptanceRow(ann, 3, "deemed", NOW), AcceptanceRow(99, 1, "deemed", NOW)):
                with pytest.raises(NotFound):
                    books.accept_agreement(row)
        with catalog.books() as books:
            assert books.acceptances_of(ann) == [first, AcceptanceRow(ann, 2, "deemed", NOW + 1)]
            assert books.acceptances_of(bob) == []
