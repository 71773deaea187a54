"""What is not owed: advertisements (agreement 2.6), and data given to partners (2.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from service.agreement import announcing, closing, consents, registration, sharing, standing
from service.agreement.desk import OPERATOR, Desk
from service.agreement.errors import Forbidden, Unprocessable
from service.agreement.notices import deliver_due
from service.agreement.senders import FileSender, message
from service.config_text import load_config
from service.partners import parse_partners
from storage.errors import CallerError, NotFound
from storage.rows.accounts import NoticeRow
from tests.retention.world import fast_folder
from tests.service.agreement.office import Office, owner, refused

URL = "https://clips.a-rather-long-name-of-a-company.example"
PARTNERS = "weather: account email devices; insurer: name"


@pytest.fixture
def office() -> Iterator[Office]:
    settings, notices = {"partners": PARTNERS}, {"public_url": URL}
    with fast_folder() as folder, Office(folder, settings=settings, notices=notices) as made:
        yield made


def yes(office: Office, account: int, subject: str = "advertisements") -> None:
    consents.say(office.desk, owner(office.row(account)), account, subject, True)


def advertise(desk: Desk, reference: str = "r") -> int:
    return announcing.advertise(desk, OPERATOR, "For less", "Thirty days.", reference=reference).accounts


def token_of(office: Office, account: int) -> str:
    return consents.unsubscribe_url(office.desk, account).partition("token=")[2]


def test_advertisements_go_to_those_who_want_them(office: Office) -> None:
    wants, silent, never, asleep = (office.active(f"a{n}@example.org", client=f"c{n}") for n in range(4))
    for one in (wants, asleep):
        yes(office, one.account)
    consents.say(office.desk, OPERATOR, never.account, "advertisements", False)
    standing.suspend(office.desk, OPERATOR, asleep.account, "x")
    assert advertise(office.desk) == 1
    assert advertise(office.desk) == 0, "once"
    [sent] = [n for n in office.notices() if n.purpose == "advertisement:r"]
    assert (sent.account, sent.subject, sent.bulk) == (wants.account, "For less", 1)
    assert consents.unsubscribe_url(office.desk, wants.account) in sent.body
    unasked = office.parts(settings=replace(office.desk.settings, advertise_unasked=True))
    assert advertise(unasked, "second") == 2
    told = {n.account for n in office.notices() if n.purpose == "advertisement:second"}
    assert told == {wants.account, silent.account}


def test_one_link_ends_them_without_a_log_in(office: Office) -> None:
    row = office.active()
    yes(office, row.account)
    assert consents.account_of_link(office.desk, token_of(office, row.account)) == row.account
    for _ in range(3):
        consents.unsubscribe(office.desk, token_of(office, row.account))
    assert advertise(office.desk) == 0
    [said, *_] = consents.said(office.desk, owner(row), row.account)
    assert (said.given, said.how) == (False, "link")
    assert [what for what in office.told(row.account) if "consent" in what] == [
        "consented",
        "consent_withdrawn",
    ], "the same again is no event"


def test_who_said_nothing_can_end_them_too(office: Office) -> None:
    row = office.active()
    consents.unsubscribe(office.desk, token_of(office, row.account))
    unasked = office.parts(settings=replace(office.desk.settings, advertise_unasked=True))
    assert advertise(unasked) == 0


def test_a_link_that_was_made_up_changes_nothing(office: Office) -> None:
    row, other = office.active("a@example.org"), office.active("b@example.org")
    yes(office, row.account)
    good = token_of(office, row.account)
    swapped = token_of(office, other.account)[:11] + good[11:]
    for token in (
        swapped,
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        "x" * 32,
        "",
        "ü" * 32,
        good + "AAAA",
    ):
        with refused(NotFound, "unknown_link"):
            consents.unsubscribe(office.desk, token)
    assert advertise(office.desk) == 1


def test_the_link_of_an_account_that_ended_says_nothing(office: Office) -> None:
    gone = office.approved()
    token = token_of(office, gone.account)
    office.deliver()
    consents.unsubscribe(office.desk, token)
    assert consents.account_of_link(office.desk, token) == gone.account


def test_mail_programs_are_told_how_in_one_line(office: Office) -> None:
    row = office.active()
    yes(office, row.account)
    advertise(office.desk)
    [notice] = [n for n in office.notices() if n.purpose == "advertisement:r"]

    def link(account: int) -> str:
        return consents.unsubscribe_url(office.desk, account)

    sent = bytes(message(notice, "clipkeep@example.org", link))
    assert f"List-Unsubscribe: <{link(row.account)}>\r\n".encode() in sent, "no encoded word, not folded"
    assert message_from_bytes(sent, policy=default)["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    [other] = [n for n in office.notices() if n.purpose == "activate"]
    assert b"List-Unsubscribe" not in bytes(message(other, "clipkeep@example.org", link))


def test_an_advertisement_needs_a_link(office: Office) -> None:
    with refused(Forbidden, "operators_only"):
        announcing.advertise(office.desk, owner(office.active()), "s", "b")
    without = office.parts(notices=replace(office.desk.notices, public_url=""))
    with refused(Unprocessable, "no_public_url"):
        advertise(without)


def test_push_goes_to_the_hook_and_holds_no_cancellation_back(office: Office) -> None:
    pushing = office.parts(notices=replace(office.desk.notices, push="https://push.example/"))
    row = office.old_enough()
    standing.suspend(pushing, OPERATOR, row.account, "x")
    [pushed] = [n for n in office.notices(row.account) if n.channel == "push"]
    assert (pushed.address, pushed.purpose) == (str(row.account), "suspended")
    sent: list[NoticeRow] = []

    class Hook:
        def send(self, notice: NoticeRow) -> None:
            sent.append(notice)

    deliver_due(pushing, {"email": FileSender(office.folder / "n", "x@example.org"), "push": Hook()})
    assert [n.notice_id for n in sent] == [pushed.notice_id]
    closing.close_by_operator(pushing, OPERATOR, row.account, "x")
    assert [n.channel for n in office.notices(row.account, "closing")] == ["email"]


# --- partners -----------------------------------------------------------------------------------------------------


def given(office: Office, partner: str = "weather") -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    sharing.share(office.desk, OPERATOR, partner, "monthly delivery", rows.extend)
    return rows


def test_nothing_is_given_to_partners_by_itself(office: Office) -> None:
    row = office.active()
    assert given(office) == given(office, "insurer") == []
    nobody = office.parts(settings=replace(office.desk.settings, partners=""))
    with refused(NotFound, "unknown_partner"):
        sharing.share(nobody, OPERATOR, "weather", "x", lambda rows: None)
    assert [one.subject for one in consents.said(nobody, owner(row), row.account)] == ["advertisements"]


def test_what_a_partner_is_given_is_noted_with_each_account(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "PAGE_ACCOUNTS", 2)
    rows = [office.active(f"a{n}@example.org", client=f"c{n}") for n in range(5)]
    device = office.device(rows[0].account)
    for row in rows[:4]:
        yes(office, row.account, "partner:weather")
    consents.say(office.desk, owner(rows[1]), rows[1].account, "partner:weather", False)
    standing.suspend(office.desk, OPERATOR, rows[2].account, "x")
    assert given(office) == [
        {"account": str(rows[0].account), "email": "a0@example.org", "devices": str(device)},
        {"account": str(rows[3].account), "email": "a3@example.org", "devices": ""},
    ]
    [shared] = [event for event in office.events(rows[0].account) if event.what == "shared"]
    assert (shared.who, shared.why) == ("operator", "monthly delivery")
    assert shared.facts == {"partner": "weather", "fields": ["account", "email", "devices"]}
    assert "shared" not in office.told(rows[1].account) + office.told(rows[2].account)
    assert given(office, "insurer") == [], "another partner is another consent"


def test_what_an_owner_is_called_is_no_formula_at_a_partners(office: Office) -> None:
    row = office.active()
    yes(office, row.account, "partner:insurer")
    registration.update(office.desk, owner(row), row.account, name="\uff1dcmd|' /C calc'!A1")
    [line] = given(office, "insurer")
    assert line["name"] == "'\uff1dcmd|' /C calc'!A1"


def test_only_operators_share_and_owners_consent_for_themselves(office: Office) -> None:
    row, other = office.active("a@example.org"), office.active("b@example.org")
    with refused(Forbidden, "operators_only"):
        sharing.share(office.desk, owner(row), "weather", "x", lambda rows: None)
    with refused(NotFound, "not_found"):
        consents.say(office.desk, owner(other), row.account, "advertisements", True)
    with refused(NotFound, "unknown_consent"):
        yes(office, row.account, "partner:unknown")
    with refused(NotFound, "unknown_consent"):
        consents.say(office.desk, owner(row), row.account, "partner:unknown", False)


def test_a_partner_that_is_gone_can_still_be_refused(office: Office) -> None:
    row = office.active()
    yes(office, row.account, "partner:weather")
    nobody = office.parts(settings=replace(office.desk.settings, partners=""))
    consents.say(nobody, owner(row), row.account, "partner:weather", False)
    assert given(office) == []


@pytest.mark.parametrize(
    "text", ["weather", "weather:", "Weather: email", "w: password", "w: email; w: name"]
)
def test_partners_that_cannot_be_are_refused_at_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"partner|given|twice"):
        parse_partners(text)
    config = tmp_path / "config.toml"
    config.write_text(f'[agreement]\npartners = "{text}"\n')
    with refused(CallerError, "bad_config"):
        load_config(config, {})


@pytest.mark.parametrize("url", ["clips.example", "https://clips.example/path", "ftp://x"])
def test_an_address_that_no_link_can_have(tmp_path: Path, url: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[notices]\npublic_url = "{url}"\n')
    with refused(CallerError, "bad_config"):
        load_config(config, {})
