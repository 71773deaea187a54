"""What `storage.catalog.continuity.ContinuityCatalog` promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage.catalog import Catalog
from storage.clock import ClockMark
from storage.contracts.given import (
    AFTER,
    DAY,
    ENDS,
    EXPIRED,
    NOON,
    NOW,
    STORED,
    OnCatalog,
    Opener,
    Upload,
    add_device,
    commit,
    everything,
    lease,
    segment_of,
)
from storage.errors import CallerError, CatalogUnavailable, LeaseLost, WorldError
from storage.rows.accounts import OPERATOR_ACCOUNT, CodeRow, SessionRow
from storage.rows.recordings import Due


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

    def test_the_last_believed_moment_is_kept(self, catalog: Catalog, opener: Opener) -> None:
        assert catalog.clock_mark() is None
        catalog.note_clock(ClockMark(NOW, 5, 1))
        newest = ClockMark(NOW - 1, (1 << 62) + 1, (1 << 63) - 1)  # a clock may be set back
        catalog.note_clock(newest)
        again = opener()
        assert again.clock_mark() == newest
        again.close()

    def test_when_it_was_last_heard_of(self, catalog: Catalog) -> None:
        assert catalog.newest_seen_ms() == 0
        segment_of(catalog)
        assert catalog.newest_seen_ms() == NOW
        catalog.record_sweep({}, now_ms=NOW + 5)
        assert catalog.newest_seen_ms() == NOW + 5

    def test_how_far_it_is(self, catalog: Catalog) -> None:
        assert (catalog.closed_through, catalog.newest_change(), catalog.highest_segment_id()) == (0, 0, 0)
        add_device(catalog)
        segment = segment_of(catalog)
        assert (catalog.newest_change(), catalog.highest_segment_id()) == (1, segment.segment_id)
        fence = lease(catalog)
        for day in (DAY, DAY - 1):
            catalog.advance_closed_through(day, fence=fence)
            assert catalog.closed_through == DAY

    def test_the_first_month_with_keys_only_grows(self, catalog: Catalog) -> None:
        assert catalog.first_key_month == 0
        for month in (202601, 202512):
            catalog.raise_first_key_month(month)
            assert catalog.first_key_month == 202601

    def test_closed_days_are_taken_back_for_new_uploads_alone(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        fence = lease(catalog)
        catalog.close_day(ENDS, fence=fence, now_ms=AFTER, delete_after_ms=AFTER + 9)
        assert commit(catalog, Upload(device, NOON + 1)) == [EXPIRED]
        with pytest.raises(CallerError) as caught:
            catalog.reopen_days(ENDS, fence=fence, delete_after_ms=NOW)
        assert caught.value.code == "not_closed"
        assert catalog.closed_through == ENDS
        catalog.reopen_days(ENDS - 1, fence=fence, delete_after_ms=AFTER + 3)
        assert catalog.closed_through == ENDS - 1
        assert catalog.chunk(device, NOON) is None
        assert commit(catalog, Upload(device, NOON), Upload(device, NOON + 1)) == [STORED, STORED]
        assert catalog.due_totals(AFTER + 2) == Due(1, 1_000_000)  # refused whole, and due since NOW
        assert catalog.due_totals(AFTER + 3) == Due(2, 2_000_000)
        catalog.release_lease("sweep", fence=fence)
        with pytest.raises(LeaseLost):
            catalog.reopen_days(0, fence=fence, delete_after_ms=NOW)
        assert catalog.closed_through == ENDS - 1

    def test_numbers_are_given_up_to_their_ceilings(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        given = catalog.numbers_given()
        assert set(given) == {"device", "account", "plan", "payment", "notice", "generation"}
        assert (given["device"], given["plan"], given["payment"]) == (device, 1, 0)
        assert catalog.ceilings() == {}  # nothing is reserved yet, and nothing bounded
        catalog.raise_ceilings({"device": device + 1})
        catalog.raise_ceilings({"device": device})
        assert catalog.ceilings() == {"device": device + 1}
        assert add_device(catalog) == device + 1
        before = everything(catalog)
        with pytest.raises(WorldError) as caught:
            add_device(catalog)
        assert caught.value.code == "numbers_used_up"
        assert everything(catalog) == before
        catalog.raise_ceilings({"device": device + 2})
        assert add_device(catalog) == device + 2

    def test_a_restored_catalog_starts_above_what_may_be_out(self, catalog: Catalog) -> None:
        """And all log-ins and codes end: those that were ended since would be valid again."""
        device = add_device(catalog)
        catalog.transact(
            lambda books: books.add_session(SessionRow(bytes(32), OPERATOR_ACCOUNT, NOW, NOW + 9))
        )
        catalog.transact(lambda books: books.put_code(CodeRow(OPERATOR_ACCOUNT, "email", "", b"h", NOW + 9)))
        above = {kind: number + 100 for kind, number in catalog.numbers_given().items()}
        above["notice"] = 0  # never lowered
        catalog.start_above(above)
        assert catalog.numbers_given() == above
        assert add_device(catalog) == device + 101
        later, _ = catalog.update_device(
            device, lambda old: replace(old, token_generation=old.token_generation + 1), what="", now_ms=NOW
        )
        assert later.token_generation == above["generation"] + 1
        with catalog.books() as books:
            assert books.session(bytes(32)) is None
            assert books.codes(OPERATOR_ACCOUNT) == []

    def test_a_doubt_stays_until_it_is_taken_back(self, catalog: Catalog, opener: Opener) -> None:
        assert catalog.is_doubted is False
        for doubted in (True, True, False, True):
            catalog.note_doubt(doubted)
            assert catalog.is_doubted is doubted
        other = opener()
        assert other.is_doubted
        other.close()

    def test_asking_whether_it_can_be_used_changes_nothing(self, catalog: Catalog, opener: Opener) -> None:
        add_device(catalog)
        before = everything(catalog)
        catalog.require_files()
        catalog.require_writable()
        assert everything(catalog) == before
        ended = opener()
        ended.close()
        with pytest.raises(CatalogUnavailable):
            ended.require_writable()
