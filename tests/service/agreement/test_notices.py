"""The outbox: at least once, not twice by two, given up at last; announcements (agreement 3.1, 3.2, 6.4)."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.agreement import announcing, closing, notices, standing
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict, Forbidden, Unprocessable
from service.agreement.notices import DeliveryReport
from service.agreement.senders import HookSender, SendLater, SendRefused, SmtpSender
from storage.errors import NotFound
from storage.rows.accounts import NoticeRow, NoticeState
from tests.retention.world import fast_folder
from tests.service.agreement.office import EMAIL, MOBILE, Office, owner, refused
from tests.service.agreement.servers import Hook, MailServer, hook_server, mail_server

DELIVERED, QUEUED, FAILED = NoticeState.DELIVERED, NoticeState.QUEUED, NoticeState.FAILED


class Hand:
    """A sender that does what it is told and counts."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.sent: list[int] = []

    def send(self, notice: NoticeRow) -> None:
        self.sent.append(notice.notice_id)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


def test_what_is_due_is_sent_once_and_its_code_forgotten(office: Office) -> None:
    row = office.register(EMAIL, MOBILE)
    assert office.deliver() == DeliveryReport(delivered=2)
    assert office.deliver() == DeliveryReport()
    assert [(n.state, n.settled_ms, n.body) for n in office.notices(row.account)] == [
        (DELIVERED, office.clock.ms, "")
    ] * 2
    names = sorted(path.name for path in (office.folder / "notices").iterdir())
    assert [name[-4:] for name in names] == [".eml", ".txt"]


def test_at_most_so_many_are_sent_in_one_run(office: Office) -> None:
    office.register(EMAIL, MOBILE)
    hand = Hand()
    report = notices.deliver_due(office.desk, {"email": hand, "mobile": hand}, limit=1)
    assert (report.delivered, len(hand.sent)) == (1, 1)


def test_a_temporary_failure_is_tried_again_with_doubling_pauses_and_given_up(office: Office) -> None:
    office.register()
    hand = Hand(*[SendLater("busy, said ada@example.org")] * 100)
    pauses: list[float] = []
    for attempt in range(1, 13):
        report = office.deliver(email=hand)
        assert len(hand.sent) == attempt
        [notice] = office.notices()
        if notice.state is FAILED:
            break
        assert report.delayed == 1
        assert office.deliver(email=hand) == DeliveryReport(), "not before its time"
        pauses.append((notice.next_ms - office.clock.ms) / 1000)
        office.clock.ms = notice.next_ms
    assert pauses == [60 * 2**n for n in range(11)]
    assert (notice.state, notice.attempts, notice.error) == (FAILED, 12, "busy, said its address")
    assert report.failed == 1
    office.later(days=30)
    assert office.deliver(email=hand) == DeliveryReport()


def test_a_pause_is_never_longer_than_a_day(office: Office) -> None:
    office.register()
    patient = office.parts(notices=type(office.desk.notices)(max_attempts=1000))
    hand = Hand(*[SendLater("busy")] * 100)
    for _ in range(60):
        notices.deliver_due(patient, {"email": hand})
        [notice] = office.notices()
        assert notice.next_ms - office.clock.ms <= 86_400_000
        office.clock.ms = notice.next_ms
    assert len(hand.sent) == 60


def test_a_permanent_failure_goes_to_the_operator_at_once(office: Office) -> None:
    row = office.register()
    assert office.deliver(email=Hand(SendRefused("no such mailbox"))).failed == 1
    [notice] = notices.listed(office.desk, OPERATOR, state=FAILED)
    assert (notice.account, notice.error, notice.body) == (row.account, "no such mailbox", "")


def test_operators_do_not_see_codes(office: Office) -> None:
    office.register()
    assert [n.body for n in notices.listed(office.desk, OPERATOR)] == [""]
    with refused(Forbidden, "operators_only"):
        notices.listed(office.desk, owner(office.active("b@example.org")))


def test_real_servers_one_after_the_other(office: Office) -> None:
    office.register(EMAIL, MOBILE)
    with (
        mail_server(MailServer(answers={"RCPT": "450 greylisted"})) as mail,
        hook_server(Hook([503])) as hook,
    ):
        senders = {
            "email": SmtpSender("127.0.0.1", mail.port, "c@example.org", 5, None),
            "mobile": HookSender(urlsplit(hook.url), 5),
        }
        assert notices.deliver_due(office.desk, senders) == DeliveryReport(delayed=2)
        mail.answers.clear()
        office.later(seconds=60)
        assert notices.deliver_due(office.desk, senders) == DeliveryReport(delivered=2)
        office.register("b@example.org", "+4915112345678")
        mail.answers["RCPT"] = "550 no"
        hook.statuses.append(404)
        assert notices.deliver_due(office.desk, senders) == DeliveryReport(failed=2)
    assert len(mail.mails) == 1
    assert [body["to"] for _, _, body in hook.requests] == [MOBILE, MOBILE, "+4915112345678"]


def test_a_channel_without_a_sender_fails(office: Office) -> None:
    office.register()
    assert notices.deliver_due(office.desk, {}).failed == 1


def test_two_runs_at_once_send_a_notice_once(office: Office) -> None:
    for number in range(10):
        office.register(f"a{number}@example.org")
    both = threading.Barrier(2)
    sent: list[int] = []

    class Slow:
        def send(self, notice: NoticeRow) -> None:
            sent.append(notice.notice_id)
            threading.Event().wait(0.01)

    def run() -> int:
        both.wait()
        return notices.deliver_due(office.desk, {"email": Slow()}).delivered

    with ThreadPoolExecutor(2) as pool:
        delivered = [future.result() for future in [pool.submit(run), pool.submit(run)]]
    assert sum(delivered) == 10
    assert sorted(sent) == sorted(set(sent))


class Deadly:
    """Delivers to a folder, and kills its process before it can say so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, notice: NoticeRow) -> None:
        with (self.folder / "sent").open("a") as file:
            file.write(json.dumps(notice.notice_id) + "\n")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_notice_is_sent_again_when_the_process_was_killed_before_it_was_noted() -> None:
    with fast_folder() as folder:
        with Office(folder) as office:
            office.register()
        child = os.fork()
        if child == 0:
            try:
                with Office(folder) as office:
                    notices.deliver_due(office.desk, {"email": Deadly(folder)})
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with Office(folder) as office:
            [notice] = office.notices()
            assert (folder / "sent").read_text() == f"{notice.notice_id}\n"
            assert notice.state is QUEUED
            assert office.deliver() == DeliveryReport(), "its claim runs"
            office.later(seconds=4 * office.desk.notices.send_timeout_s)
            assert office.deliver() == DeliveryReport(delivered=1)


def test_a_notice_that_was_confirmed_while_it_was_sent_stays_delivered(office: Office) -> None:
    office.register()

    class Confirming:
        def send(self, notice: NoticeRow) -> None:
            notices.confirm(office.desk, OPERATOR, notice.notice_id)
            raise SendRefused("no such mailbox")

    office.deliver(email=Confirming())
    assert [n.state for n in office.notices()] == [DELIVERED]


def test_an_account_that_was_cancelled_while_a_notice_was_sent(office: Office) -> None:
    row = office.approved(EMAIL)

    class Closing:
        def send(self, notice: NoticeRow) -> None:
            if notice.purpose != "closing":
                for other in office.notices(row.account, "closing"):
                    notices.confirm(office.desk, OPERATOR, other.notice_id)

    standing.suspend(office.desk, OPERATOR, row.account, "one more notice")
    office.deliver(email=Closing())
    assert office.row(row.account).cancelled_on == office.desk.today()
    assert office.notices() == []


def test_confirming_by_hand(office: Office) -> None:
    row = office.active()
    notice = office.notices(row.account)[0]
    with refused(Forbidden, "operators_only"):
        notices.confirm(office.desk, owner(row), notice.notice_id)
    done = notices.confirm(office.desk, OPERATOR, notice.notice_id)
    assert (done.state, done.settled_ms, done.body) == (DELIVERED, office.clock.ms, "")
    assert office.told(row.account)[-1] == "notice_confirmed"
    with refused(Conflict, "already_delivered"):
        notices.confirm(office.desk, OPERATOR, notice.notice_id)
    with refused(NotFound, "not_found"):
        notices.confirm(office.desk, OPERATOR, 999)


# --- announcements ------------------------------------------------------------------------------------------------


def everybody(office: Office, count: int) -> list[int]:
    return [office.active(f"a{n}@example.org", client=f"c{n}").account for n in range(count)]


def test_an_announcement_reaches_every_active_account_once(office: Office) -> None:
    accounts = everybody(office, announcing.PAGE_ACCOUNTS + 3)
    office.register("new@example.org")
    gone = office.approved("gone@example.org")
    while office.deliver().delivered:
        pass
    assert office.row(gone.account).cancelled_on
    told = announcing.announce(office.desk, OPERATOR, "Maintenance", "On Sunday.\nTwo hours.")
    assert told.accounts == len(accounts)
    again = announcing.announce(office.desk, OPERATOR, "Maintenance", "On Sunday.\nTwo hours.")
    assert (again.accounts, again.reference) == (0, told.reference)
    sent = [n for n in office.notices() if n.purpose.startswith("announcement:")]
    assert [n.account for n in sent] == accounts
    assert {(n.subject, n.body) for n in sent} == {("Maintenance", "On Sunday.\nTwo hours.")}
    office.later(days=7)
    assert announcing.announce(
        office.desk, OPERATOR, "Maintenance", "On Sunday.\nTwo hours."
    ).accounts == len(accounts), "the next one of the same text"


def test_an_announcement_that_was_interrupted_goes_on(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = everybody(office, 5)
    monkeypatch.setattr(announcing, "PAGE_ACCOUNTS", 2)
    real, pages = announcing._page, 0

    def dying(*args: object) -> tuple[int | None, int]:
        nonlocal pages
        pages += 1
        if pages == 3:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(announcing, "_page", dying)
    with pytest.raises(KeyboardInterrupt):
        announcing.announce(office.desk, OPERATOR, "s", "b", reference="2025-1")
    office.later(days=2)
    assert announcing.announce(office.desk, OPERATOR, "s", "b", reference="2025-1").accounts == 2
    sent = office.notices(purpose="announcement:2025-1")
    assert [n.account for n in sent] == accounts


@pytest.mark.parametrize(
    ("subject", "body"), [("", "b"), ("s\n", "b\x00"), ("s\nt", "b"), ("s", "b" * 20_001)]
)
def test_an_announcement_that_cannot_be_shown(office: Office, subject: str, body: str) -> None:
    with refused(Unprocessable, "bad_text"):
        announcing.announce(office.desk, OPERATOR, subject, body)


def test_owners_announce_nothing(office: Office) -> None:
    with refused(Forbidden, "operators_only"):
        announcing.announce(office.desk, owner(office.active()), "s", "b")


def test_a_closing_settles_with_the_run_that_delivers_its_notices(office: Office) -> None:
    row = office.approved(EMAIL, MOBILE)
    report = office.deliver()
    assert (report.closed_accounts, report.failed) == (1, 0)
    assert office.row(row.account).cancelled_on == office.desk.today()
    assert closing.settle(office.desk) == []
