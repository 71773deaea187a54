"""How notices go out: to files (the default), by SMTP, or to an HTTP hook (for text messages).

A sender delivers one notice and returns, or raises. It may be asked to deliver the same notice twice, after a crash:
files are overwritten, mail carries the same Message-ID, a hook gets the same Idempotency-Key.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import smtplib
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from service.config import NoticeSettings
from storage.disk import is_full, make_room
from storage.errors import CallerError, ClipkeepError, WorldError
from storage.rows.accounts import NoticeRow
from storage.urls import masked_url, without_user

MAX_ANSWER_CHARS = 200
"""Kept of what a server said when it refused."""


class SendLater(WorldError):
    """Not delivered; the same notice may be later. Also what the operator must mend: a password, a name, TLS."""

    code = "notice_delayed"


class SendRefused(ClipkeepError):
    """Not delivered, and never to be: no such address, a message that is not taken."""

    code = "notice_refused"


class Sender(Protocol):
    def send(self, notice: NoticeRow) -> None:
        """Deliver one notice; returns when it is out of our hands.

        Raises:
            SendLater, SendRefused: with what was said.
        """
        ...


Link = Callable[[int], str]
"""The address that ends the advertisements to an account."""
ADVERTISEMENT = "advertisement:"
"""Begins the purpose of what has such a link."""

Senders = Mapping[str, Sender]
"""Channel ("email", "mobile") to its sender."""


@dataclass(frozen=True, slots=True)
class FileSender:
    """One file per notice, which appears whole: mail as .eml, text messages as .txt. Somebody takes them from there."""

    folder: Path
    mail_from: str
    link: Link | None = None

    def send(self, notice: NoticeRow) -> None:
        mail = notice.channel == "email"
        path = self.folder / f"{notice.notice_id:012d}.{'eml' if mail else 'txt'}"
        content = bytes(message(notice, self.mail_from, self.link)) if mail else _text(notice).encode()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(path, content)
        except OSError as error:
            said = make_room(path) if is_full(error) else f"the file system refused: {error.strerror}"
            raise SendLater(said, subject=str(path)) from error


def _write_whole(path: Path, content: bytes) -> None:
    # The name of the draft is ours alone, so that two processes with the same notice do not write into one.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # half of it would keep its space on a full disk
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(notice: NoticeRow) -> str:
    return f"To: {notice.address}\n\n{notice.body}\n"


def message(notice: NoticeRow, mail_from: str, link: Link | None = None) -> EmailMessage:
    """The notice as mail. Sent again it is the same message, by its Message-ID. An advertisement says in its head
    how it is unsubscribed by one request (RFC 8058)."""
    advertises = link is not None and notice.purpose.startswith(ADVERTISEMENT)
    # A long address would be folded as an encoded word, which no mail program takes for one.
    mail = EmailMessage(policy=SMTP.clone(max_line_length=990) if advertises else SMTP)
    mail["From"] = mail_from
    mail["To"] = notice.address
    mail["Subject"] = notice.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.created_ms / 1000, UTC))
    domain = mail_from.rpartition("@")[2].rstrip(">") or "localhost"
    mail["Message-ID"] = f"<notice-{notice.notice_id}-{notice.created_ms}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if advertises and link is not None:
        mail["List-Unsubscribe"] = f"<{link(notice.account)}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(notice.body)
    return mail


@dataclass(frozen=True, slots=True)
class SmtpSender:
    """Mail through one server, a connection per message.

    Args:
        tls: for STARTTLS; None: in the clear, for a server on this host.
    """

    host: str
    port: int
    mail_from: str
    timeout_s: float
    tls: ssl.SSLContext | None
    user: str = ""
    password: str = field(default="", repr=False)
    link: Link | None = None

    def send(self, notice: NoticeRow) -> None:
        try:
            server = smtplib.SMTP(self.host, self.port, timeout=self.timeout_s)
            try:
                if self.tls is not None:
                    server.starttls(context=self.tls)
                if self.user:
                    server.login(self.user, self.password)
                server.send_message(message(notice, self.mail_from, self.link))
                # The message is taken: a farewell that goes wrong must not make it look refused.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise _smtp_refused(code, said) from error
        except smtplib.SMTPNotSupportedError as error:
            raise SendLater(f"the mail server can't do what is needed: {error}") from error
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPConnectError, smtplib.SMTPHeloError) as error:
            # Of the server and the log-in, not of this message: it is for the operator to mend.
            raise SendLater(f"the mail server answered {_said(error.smtp_code, error.smtp_error)}") from error
        except smtplib.SMTPResponseException as error:
            raise _smtp_refused(error.smtp_code, error.smtp_error) from error
        except (smtplib.SMTPException, OSError) as error:
            raise SendLater(f"the mail server could not be used: {_reason(error)}") from error


def _smtp_refused(code: int, said: bytes | str) -> ClipkeepError:
    kind = SendRefused if 500 <= code <= 599 else SendLater
    return kind(f"the mail server answered {_said(code, said)}")


def _said(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return f"{code} {text}"[:MAX_ANSWER_CHARS]


def _reason(error: Exception) -> str:
    return str(error)[:MAX_ANSWER_CHARS] or type(error).__name__


@dataclass(frozen=True, slots=True)
class HookSender:
    """A POST of JSON for each notice: {"notice", "channel", "to", "subject", "text"}. Redirects are not followed.

    A user and a password in the address go along as Basic.
    """

    url: SplitResult = field(repr=False)
    timeout_s: float

    def send(self, notice: NoticeRow) -> None:
        body = json.dumps(
            {
                "notice": notice.notice_id,
                "channel": notice.channel,
                "to": notice.address,
                "subject": notice.subject,
                "text": notice.body,
            }
        )
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f"notice-{notice.notice_id}-{notice.created_ms}",
        }
        if self.url.username is not None:
            pair = f"{unquote(self.url.username)}:{unquote(self.url.password or '')}"
            headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        https = self.url.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(self.url.hostname or "", self.url.port, timeout=self.timeout_s)
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (http.client.HTTPException, OSError) as error:
            raise SendLater(f"the hook could not be used: {_reason(error)}") from error
        finally:
            connection.close()
        if 200 <= status <= 299:
            return
        permanent = 400 <= status <= 499 and status not in (408, 429)
        kind_of = SendRefused if permanent else SendLater
        raise kind_of(f"the hook answered {status}")


def open_senders(settings: NoticeSettings, folder: Path, link: Link | None = None) -> dict[str, Sender]:
    """The senders that the configuration names.

    Args:
        folder: for notices that go to files.
        link: of advertisements.

    Raises:
        CallerError: `bad_config`: [notices] mail or mobile is neither "files" nor an address of the right kind.
    """
    files = FileSender(folder, settings.mail_from, link)
    senders: dict[str, Sender] = {"email": files, "mobile": files}
    if settings.mail != "files":
        host, port = _smtp_address(settings.mail)
        tls = ssl.create_default_context() if settings.smtp_starttls else None
        user, password = settings.smtp_user, settings.smtp_password
        senders["email"] = SmtpSender(
            host, port, settings.mail_from, settings.send_timeout_s, tls, user, password, link
        )
    if settings.mobile != "files":
        senders["mobile"] = HookSender(_hook_address(settings.mobile), settings.send_timeout_s)
    if settings.push:
        senders["push"] = HookSender(_hook_address(settings.push, "push"), settings.send_timeout_s)
    return senders


def _smtp_address(text: str) -> tuple[str, int]:
    try:
        url = urlsplit(text)
        if url.scheme == "smtp" and url.hostname and not url.username:
            return url.hostname, url.port or 25
    except ValueError:
        pass
    raise CallerError(
        f"mail: {without_user(text)[:100]!r} is neither files nor smtp://host:port; who logs in is smtp_user",
        code="bad_config",
    )


_SENDABLE = re.compile(r"[!-~]+")
"""What http.client sends as it is. It refuses the rest with an error that has the whole path in it, secrets too."""


def _hook_address(text: str, key: str = "mobile") -> SplitResult:
    try:
        url = urlsplit(text)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0 and _SENDABLE.fullmatch(text):
            return url
    except ValueError:
        pass
    raise CallerError(
        f"{key}: {masked_url(text)[:100]!r} is neither files nor an http:// or https:// address (in ASCII, without"
        " spaces)",
        code="bad_config",
    )
