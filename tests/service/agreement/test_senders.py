"""Senders against a real mail server, a real HTTP hook and a real folder."""

from __future__ import annotations

import socket
import ssl
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.agreement.senders import (
    FileSender,
    HookSender,
    SendLater,
    SendRefused,
    SmtpSender,
    open_senders,
)
from service.config import NoticeSettings
from storage.errors import CallerError, ClipkeepError
from storage.rows.accounts import NoticeRow
from tests.retention.world import NOON
from tests.service.agreement.office import refused
from tests.service.agreement.servers import Hook, MailServer, certificate, hook_server, mail_server

NOTICE = NoticeRow(
    7, 2, "email", "ada@example.org", "closing", "Grüße: an end", "Line one.\n.dot\nÄnde.\n", NOON
)
SMS = NoticeRow(8, 2, "mobile", "+491712345678", "activate", "Your code", "Your code: 1", NOON)
FROM = "Clipkeep <clipkeep@example.org>"


def smtp(server: MailServer, tls: ssl.SSLContext | None = None, user: str = "") -> SmtpSender:
    return SmtpSender("127.0.0.1", server.port, FROM, 5.0, tls, user, "secret")


# --- files --------------------------------------------------------------------------------------------------------


def test_notices_become_files_that_a_repetition_overwrites(tmp_path: Path) -> None:
    sender = FileSender(tmp_path / "notices", FROM)
    for _ in range(2):
        sender.send(NOTICE)
        sender.send(SMS)
    mail, text = sorted((tmp_path / "notices").iterdir())
    assert (mail.name, text.name) == ("000000000007.eml", "000000000008.txt")
    message = message_from_bytes(mail.read_bytes(), policy=policy.default)
    assert (message["To"], message["Subject"]) == ("ada@example.org", NOTICE.subject)
    assert message["Message-ID"] == f"<notice-7-{NOON}@example.org>"
    assert message.get_content().replace("\r\n", "\n") == NOTICE.body  # type: ignore[attr-defined]
    assert text.read_text() == "To: +491712345678\n\nYour code: 1\n"
    assert oct(mail.stat().st_mode)[-3:] == "600"


def test_a_folder_that_cannot_be_written_is_a_matter_of_time(tmp_path: Path) -> None:
    (tmp_path / "notices").write_text("a file where the folder should be")
    with pytest.raises(SendLater):
        FileSender(tmp_path / "notices", FROM).send(NOTICE)


# --- mail ---------------------------------------------------------------------------------------------------------


def test_mail_goes_out_over_tls_with_a_log_in(tmp_path: Path) -> None:
    theirs, ours = certificate(tmp_path)
    with mail_server(MailServer(tls=theirs)) as server:
        smtp(server, ours, "clipkeep").send(NOTICE)
    [mail] = server.mails
    assert (mail["To"], mail["From"], mail["Subject"]) == ("ada@example.org", FROM, NOTICE.subject)
    assert mail.get_content().replace("\r\n", "\n") == NOTICE.body
    assert (server.secure, server.log_ins) == ([True], 1)


def test_a_repetition_is_the_same_message(tmp_path: Path) -> None:
    with mail_server(MailServer()) as server:
        smtp(server).send(NOTICE)
        smtp(server).send(NOTICE)
    first, second = (mail["Message-ID"] for mail in server.mails)
    assert first == second


def test_without_tls_offered_nothing_is_said(tmp_path: Path) -> None:
    _, ours = certificate(tmp_path)
    with mail_server(MailServer()) as server:
        for _ in range(2):
            with refused_by(SendLater, "STARTTLS"):
                smtp(server, ours, "clipkeep").send(NOTICE)
    assert (server.mails, server.recipients, server.log_ins) == ([], [], 0)


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    theirs, _ = certificate(tmp_path)
    with mail_server(MailServer(tls=theirs)) as server, refused_by(SendLater, "certificate"):
        smtp(server, ssl.create_default_context()).send(NOTICE)
    assert (server.mails, server.recipients) == ([], [])


@pytest.mark.parametrize(
    ("word", "answer", "kind"),
    [
        ("RCPT", "550 no such mailbox", SendRefused),
        ("RCPT", "450 greylisted", SendLater),
        ("MAIL", "553 not you", SendRefused),
        ("MAIL", "452 full", SendLater),
        ("DATA", "554 no", SendRefused),
        (".", "554 spam", SendRefused),
        (".", "451 later", SendLater),
        (".", "", SendLater),
        ("RCPT", "", SendLater),
        ("CONNECT", "554 go away", SendLater),
        ("CONNECT", "421 busy", SendLater),
        ("AUTH", "535 wrong password", SendLater),
        ("AUTH", "454 later", SendLater),
    ],
)
def test_what_a_mail_server_refuses_is_for_good_or_for_now(
    word: str, answer: str, kind: type[ClipkeepError]
) -> None:
    server = MailServer(answers={word: answer})
    if (word, answer) == (".", ""):
        server.answers = {"DATA": ""}
    with mail_server(server), refused_by(kind, answer):
        smtp(server, user="clipkeep").send(NOTICE)


def test_a_farewell_that_goes_wrong_does_not_undo_a_delivery() -> None:
    for farewell in ("500 what?", ""):
        with mail_server(MailServer(answers={"QUIT": farewell})) as server:
            smtp(server).send(NOTICE)
        assert len(server.mails) == 1


def test_a_mail_server_that_is_not_there_or_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with refused_by(SendLater, "timed out"):
            SmtpSender("127.0.0.1", port, FROM, 0.1, None).send(NOTICE)
    with refused_by(SendLater, "refused"):
        SmtpSender("127.0.0.1", port, FROM, 5, None).send(NOTICE)


# --- hook ---------------------------------------------------------------------------------------------------------


def test_a_text_message_is_posted_to_the_hook() -> None:
    with hook_server(Hook()) as hook:
        HookSender(urlsplit(hook.url), 5.0).send(SMS)
    [(path, headers, body)] = hook.requests
    assert path == "/sms?key=1"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == f"notice-8-{NOON}"
    assert body == {
        "notice": 8,
        "channel": "mobile",
        "to": "+491712345678",
        "subject": "Your code",
        "text": "Your code: 1",
    }


def test_the_log_in_of_a_hooks_address_goes_along() -> None:
    with hook_server(Hook()) as hook:
        HookSender(urlsplit(hook.url.replace("http://", "http://ada:p%40ss@")), 5.0).send(SMS)
    [(_, headers, _)] = hook.requests
    assert headers["Authorization"] == "Basic YWRhOnBAc3M="


@pytest.mark.parametrize("hook", ["https://hook.example/Hunter2 x", "ftp://hook.example/Hunter2", "Hunter2"])
@pytest.mark.parametrize("mail", ["files", "smtp://ada:Hunter2@mail"])
def test_no_refusal_and_no_repr_has_a_secret(tmp_path: Path, hook: str, mail: str) -> None:
    with pytest.raises(CallerError) as caught:
        open_senders(NoticeSettings(mail=mail, mobile=hook), tmp_path)
    assert "Hunter2" not in str(caught.value)
    sender = open_senders(NoticeSettings(mail="smtp://m", smtp_user="a", smtp_password="Hunter2"), tmp_path)
    assert "Hunter2" not in repr(sender)
    assert "Hunter2" not in repr(HookSender(urlsplit("https://h/Hunter2"), 1.0))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, SendRefused) for status in (400, 404, 410, 422)),
        *((status, SendLater) for status in (302, 408, 429, 500, 502, 503)),
    ],
)
def test_what_a_hook_refuses_is_for_good_or_for_now(status: int, kind: type[ClipkeepError]) -> None:
    with hook_server(Hook([status])) as hook, refused_by(kind, str(status)):
        HookSender(urlsplit(hook.url), 5.0).send(SMS)
    assert len(hook.requests) == 1


def test_a_hook_that_hangs_up_is_silent_or_not_there() -> None:
    with hook_server(Hook([0])) as hook, refused_by(SendLater, ""):
        HookSender(urlsplit(hook.url), 5.0).send(SMS)
    with refused_by(SendLater, "refused"):
        HookSender(urlsplit(hook.url), 5.0).send(SMS)
    with socket.create_server(("127.0.0.1", 0)) as silent, refused_by(SendLater, "timed out"):
        HookSender(urlsplit(f"http://127.0.0.1:{silent.getsockname()[1]}"), 0.1).send(SMS)


# --- configuration ------------------------------------------------------------------------------------------------


def test_senders_are_what_the_configuration_says(tmp_path: Path) -> None:
    files = open_senders(NoticeSettings(), tmp_path)
    assert {channel: type(sender) for channel, sender in files.items()} == {
        "email": FileSender,
        "mobile": FileSender,
    }
    settings = NoticeSettings(mail="smtp://mail.example.org:587", mobile="https://sms.example.org/send")
    mail = open_senders(settings, tmp_path)["email"]
    assert isinstance(mail, SmtpSender)
    assert (mail.host, mail.port, mail.tls is not None) == ("mail.example.org", 587, True)
    assert isinstance(open_senders(settings, tmp_path)["mobile"], HookSender)


@pytest.mark.parametrize(
    "settings",
    [
        NoticeSettings(mail="mail.example.org"),
        NoticeSettings(mail="smtp://"),
        NoticeSettings(mail="smtp://a:99999"),
        NoticeSettings(mail="imap://a"),
        NoticeSettings(mobile="sms.example.org"),
        NoticeSettings(mobile="ftp://a"),
        NoticeSettings(mobile="http://[::1"),
    ],
)
def test_a_configuration_that_makes_no_sender(tmp_path: Path, settings: NoticeSettings) -> None:
    with refused(CallerError, "bad_config"):
        open_senders(settings, tmp_path)


def refused_by(kind: type[ClipkeepError], text: str) -> pytest.RaisesExc[ClipkeepError]:
    return pytest.raises(kind, check=lambda error: text.lower() in error.detail.lower())
