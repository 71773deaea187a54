"""What the account books promise of corrections, consents, serials, downloads, and of what everybody may read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of, notice
from storage.contracts.given import DAY, NOW
from storage.errors import NotFound
from storage.rows.accounts import NoticeLane
from storage.rows.devices import DeviceName
from storage.rows.people import (
    AnnouncementRow,
    ConsentRow,
    CorrectionRow,
    CorrectionState,
    ExportRow,
    ExportState,
)


def correction(account: int, **fields: Any) -> CorrectionRow:
    row = CorrectionRow(
        0, account, CorrectionState.NOTIFIED, "name email", "it bounces: naïve €", NOW, DAY + 14, DAY + 7
    )
    return replace(row, **fields)


def export(account: int, **fields: Any) -> ExportRow:
    return replace(ExportRow(0, account, ExportState.QUEUED, NOW, NOW + 100), **fields)


def announced(reference: str, from_ms: int, until_ms: int) -> AnnouncementRow:
    return AnnouncementRow(reference, "Maintenance", "An hour.", from_ms, until_ms, NOW)


class PeopleContract(OnBooks):
    """See the module docstring."""

    def test_corrections_are_kept_and_due(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            first = books.add_correction(correction(ann))
            second = books.add_correction(correction(bob, next_on=DAY + 8))
            assert second.correction_id > first.correction_id > 0
            over = replace(
                first, state=CorrectionState.CORRECTED, fields="", next_on=None, suspended_ms=1, ended_ms=NOW
            )
        with catalog.books() as books:
            assert books.corrections_due(on=DAY + 6) == []
            assert books.corrections_due(on=DAY + 7) == [first]
            assert books.corrections_due(on=DAY + 8, limit=1) == [first]
            assert books.corrections_due(on=DAY + 8, after=first.correction_id) == [second]
        with write() as books:
            books.put_correction(over)
            with pytest.raises(NotFound):
                books.put_correction(replace(over, correction_id=99))
            with pytest.raises(NotFound):
                books.add_correction(correction(99))
        with catalog.books() as books:
            assert books.corrections() == [over, second]
            assert books.corrections(open_only=True) == [second]
            assert books.corrections(account=ann) == [over]
            assert books.corrections(account=ann, open_only=True) == []
            assert books.corrections(limit=1) == [over]
            assert books.corrections(after=over.correction_id) == [second]
            assert books.corrections_due(on=DAY + 30) == [second]

    def test_the_privacy_policy_is_kept_in_versions(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            with pytest.raises(NotFound):
                books.policy()
            first = books.publish_policy("One.", now_ms=NOW)
            assert books.publish_policy("One.", now_ms=NOW + 1) == first
            second = books.publish_policy("Two.", now_ms=NOW + 2)
            assert books.publish_agreement("Mine.", now_ms=NOW).version == 1, "apart from the agreement"
        with catalog.books() as books:
            assert (first.version, second.version) == (1, 2)
            assert books.policies() == [first, second]
            assert (books.policy(), books.policy(1)) == (second, first)
            with pytest.raises(NotFound):
                books.policy(3)

    def test_announcements_until_they_are_over(self, catalog: Catalog, write: Any) -> None:
        late, early = announced("b", NOW + 50, NOW + 90), announced("a", NOW + 10, NOW + 20)
        with write() as books:
            for row in (late, replace(early, body="Two."), early):
                books.put_announcement(row)
        with catalog.books() as books:
            assert books.announcements(now_ms=NOW) == [early, late]
            assert books.announcements(now_ms=NOW, limit=1) == [early]
            assert books.announcements(now_ms=early.until_ms - 1) == [early, late]
            assert books.announcements(now_ms=early.until_ms) == [late]
        with write() as books:
            assert books.drop_announcement("b")
            assert not books.drop_announcement("b")
            assert books.announcements(now_ms=NOW) == [early]

    def test_consents_are_the_newest_word(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        yes = ConsentRow(ann, "partner:weather", True, "owner", NOW)
        with write() as books:
            for row in (replace(yes, given=False), yes, ConsentRow(bob, "partner:weather", True, "link", 1)):
                books.put_consent(row)
            no = ConsentRow(ann, "advertisements", False, "operator", NOW + 1)
            books.put_consent(no)
            with pytest.raises(NotFound):
                books.put_consent(replace(yes, account=99))
        with catalog.books() as books:
            assert books.consents_of(ann) == [no, yes]
            assert books.consenting("partner:weather") == [ann, bob]
            assert books.consenting("partner:weather", after=ann) == [bob]
            assert books.consenting("partner:weather", limit=1) == [ann]
            assert books.consenting("advertisements") == []

    def test_a_serial_is_of_one_device_and_has_one_trial(
        self, catalog: Catalog, write: Any, ann: int, bob: int
    ) -> None:
        with write() as books:
            mine, other, plain = (books.add_device(of).device for of in (ann, bob, bob))
            books.add_serial(mine, ann, "AB-1")
            assert (books.serial_of(mine), books.serial_of(other)) == ("AB-1", None)
            assert books.use_serial_trial(mine, on=DAY)
            assert not books.use_serial_trial(mine, on=DAY)
            assert books.use_serial_trial(plain, on=DAY), "without a serial"
        with write() as books:
            assert code_of(lambda: books.add_serial(other, bob, "AB-1")) == "serial_taken"
        with write() as books:
            books.release_serial(mine)
            books.release_serial(plain)
            books.add_serial(other, bob, "AB-1")
            assert not books.use_serial_trial(other, on=DAY), "the serial had it, under another account"
            assert books.serial_of(mine) == "AB-1", "still known for what it was"

    def test_downloads_wait_are_made_and_go(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            first = books.add_export(export(ann, secret="0f"))
            second = books.add_export(export(bob, claimed_ms=NOW + 5, expires_ms=NOW + 200))
            with pytest.raises(NotFound):
                books.add_export(export(99))
        with catalog.books() as books:
            assert books.exports() == [first, second]
            assert books.exports(account=bob) == [second]
            assert books.exports(after=first.export_id) == [second]
            assert books.exports_waiting(now_ms=NOW) == [first]
            assert books.exports_waiting(now_ms=NOW + 5) == [first, second]
            assert books.exports_waiting(now_ms=NOW + 5, limit=1) == [first]
        made = replace(first, state=ExportState.READY, ready_ms=NOW, parts=2, length=9, error="")
        with write() as books:
            books.put_export(made)
            assert books.exports_waiting(now_ms=NOW + 5) == [second]
            assert books.drop_exports(before_ms=NOW + 100) == 0
            assert books.drop_exports(before_ms=NOW + 101) == 1
            assert books.exports() == [second]

    def test_names_of_devices(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            first, second, third = (books.add_device(account).device for account in (ann, ann, bob))
            named = [
                DeviceName(first, ann, "Front door", "Ünter den Linden, 家"),
                DeviceName(second, ann, "", "2nd floor"),
                DeviceName(third, bob, "Front door"),
            ]
            for row in named:
                books.put_device_name(row)
        with catalog.books() as books:
            assert books.device_names([first, third, 99]) == {first: named[0], third: named[2]}
            assert books.device_names([]) == {}
            assert books.named_devices(ann) == named[:2]
            assert books.named_devices(ann, after=first) == books.named_devices(ann)[1:]
            assert books.named_devices(ann, limit=1) == named[:1]
        with write() as books:
            books.put_device_name(replace(named[0], name="Back door"))
            books.put_device_name(DeviceName(second, ann))
            assert books.named_devices(ann) == [replace(named[0], name="Back door")]
            with pytest.raises(NotFound):
                books.put_device_name(DeviceName(99, ann, "nobody's"))

    def test_notices_to_many_wait_for_no_other_lane(self, catalog: Catalog, write: Any, ann: int) -> None:
        with write() as books:
            many = books.add_notice(notice(ann, purpose="announcement:x", bulk=1, next_ms=NOW - 9))
            own = books.add_notice(notice(ann, next_ms=NOW - 5))
            code = books.add_notice(notice(ann, purpose="activate", next_ms=NOW))
        with catalog.books() as books:
            assert books.due_notices(now_ms=NOW) == [many, own, code]
            assert books.due_notices(now_ms=NOW, lane=NoticeLane.CODES) == [code]
            assert books.due_notices(now_ms=NOW, lane=NoticeLane.OWN) == [own, code]
            assert books.due_notices(now_ms=NOW, lane=NoticeLane.BULK) == [many]
