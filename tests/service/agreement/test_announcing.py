"""What everybody may read: planned announcements (agreement 3.1, 3.2) and the privacy policy (5)."""

from __future__ import annotations

import pytest

from service.agreement import announcing, privacy, standing
from service.agreement.announcing import MAX_AHEAD_DAYS, MAX_PLANNED, Window
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict, Forbidden, Unprocessable
from storage.days import MS_PER_DAY
from storage.errors import NotFound
from tests.retention.world import HOUR
from tests.service.agreement.office import Office, owner, refused


def plan(office: Office, reference: str, *, hours: float = 24, lasts: float = 2) -> Window:
    from_ms = office.clock.ms + round(hours * HOUR)
    window = Window(from_ms, from_ms + round(lasts * HOUR))
    announcing.announce(office.desk, OPERATOR, "Away", "A while.", reference=reference, window=window)
    return window


def shown(office: Office) -> list[str]:
    return [row.reference for row in announcing.planned(office.desk)]


def test_what_is_planned_is_shown_until_it_is_over(office: Office) -> None:
    assert shown(office) == []
    second, first = plan(office, "second", hours=48), plan(office, "first")
    announcing.announce(office.desk, OPERATOR, "No window", "x")
    assert shown(office) == ["first", "second"]
    office.clock.ms = first.until_ms - 1
    assert shown(office) == ["first", "second"], "while it lasts"
    office.clock.ms = first.until_ms
    assert shown(office) == ["second"]
    office.clock.ms = second.until_ms
    assert shown(office) == []


def test_what_is_planned_is_moved_and_withdrawn(office: Office) -> None:
    plan(office, "x", hours=24)
    moved = plan(office, "x", hours=30)
    [row] = announcing.planned(office.desk)
    assert (row.from_ms, row.until_ms) == (moved.from_ms, moved.until_ms)
    with refused(Forbidden, "operators_only"):
        announcing.withdraw(office.desk, owner(office.active()), "x")
    announcing.withdraw(office.desk, OPERATOR, "x")
    assert shown(office) == []
    with refused(NotFound, "no_announcement"):
        announcing.withdraw(office.desk, OPERATOR, "x")


@pytest.mark.parametrize(
    ("from_h", "until_h"), [(2, 1), (1, 1), (-2, -1), (-2, 0), (1, 24 * MAX_AHEAD_DAYS + 1)]
)
def test_a_window_that_cannot_be(office: Office, from_h: int, until_h: int) -> None:
    row, now_ms = office.active(), office.clock.ms
    before = len(office.notices(row.account))
    with refused(Unprocessable, "bad_window"):
        window = Window(now_ms + from_h * HOUR, now_ms + until_h * HOUR)
        announcing.announce(office.desk, OPERATOR, "s", "b", window=window)
    assert len(office.notices(row.account)) == before, "nobody is told"


def test_what_anybody_may_read_has_an_end(office: Office) -> None:
    for number in range(MAX_PLANNED):
        plan(office, f"r{number}")
    with refused(Conflict, "too_many_announcements"):
        plan(office, "one more")
    plan(office, "r7", hours=30)
    office.clock.ms += MS_PER_DAY + 3 * HOUR
    plan(office, "one more")
    assert sorted(shown(office)) == ["one more", "r7"]


def test_suspended_accounts_are_left_out_unless_asked_for(office: Office) -> None:
    awake, asleep = office.active("a@example.org"), office.active("b@example.org")
    standing.suspend(office.desk, OPERATOR, asleep.account, "x")
    assert announcing.announce(office.desk, OPERATOR, "s", "b", reference="r").accounts == 1
    assert not office.notices(asleep.account, "announcement:r")
    done = announcing.announce(office.desk, OPERATOR, "s", "b", reference="r", to_suspended=True)
    assert done.accounts == 1, "the other one was told"
    assert [len(office.notices(one.account, "announcement:r")) for one in (awake, asleep)] == [1, 1]


def test_a_privacy_policy_is_published_in_versions(office: Office) -> None:
    assert privacy.current(office.desk).text == privacy.shipped()
    with refused(Forbidden, "operators_only"):
        privacy.publish(office.desk, owner(office.active()), "Mine.")
    with refused(Unprocessable, "bad_text"):
        privacy.publish(office.desk, OPERATOR, " ")
    second = privacy.publish(office.desk, OPERATOR, "Ours.")
    assert privacy.publish(office.desk, OPERATOR, "Ours.") == second
    assert [row.version for row in privacy.published(office.desk)] == [1, 2]
    privacy.ensure(office.catalog, now_ms=office.clock.ms)
    assert privacy.current(office.desk) == second
    assert privacy.current(office.desk, 1).text == privacy.shipped()
