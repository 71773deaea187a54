"""A mail server and an HTTP hook of our own, on real sockets, which refuse what they are told to refuse."""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.servers.certificates import Authority, server_context


@dataclass
class MailServer:
    """What a mail server does, and what it got.

    Args:
        answers: what it says instead of yes, by the first word of a command; "." is the end of a message.
        tls: its side of STARTTLS; None: not offered.
    """

    answers: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    log_ins: int = 0
    secure: list[bool] = field(default_factory=list)  # of each mail, whether it came over TLS


@contextmanager
def mail_server(server: MailServer) -> Iterator[MailServer]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            dialogue = _Dialogue(server, self.request, self.rfile)
            try:
                dialogue.run()
            except (ssl.SSLError, OSError):
                pass  # the client went away, or does not trust us
            finally:
                dialogue.close()

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        server.port = port
        yield server


class _Dialogue:
    """One connection of SMTP (RFC 5321)."""

    def __init__(self, server: MailServer, connection: Any, lines: Any) -> None:
        self._server, self._connection, self._lines = server, connection, lines
        self._is_secure = False

    def run(self) -> None:
        self._say(self._server.answers.get("CONNECT", "220 here"))
        while line := self._lines.readline():
            text = line.decode().strip()
            word = text.split(" ")[0].split(":")[0].upper()
            if word in self._server.answers:
                if self._server.answers[word] == "":
                    return  # hangs up
                self._say(self._server.answers[word])
                continue
            if word == "QUIT":
                self._say("221 bye")
                return
            getattr(self, f"_on_{word.lower()}", self._on_other)(text)

    def close(self) -> None:
        self._lines.close()
        self._connection.close()  # TLS has taken the socket from the handler

    def _say(self, text: str) -> None:
        self._connection.sendall(text.encode() + b"\r\n")

    def _on_ehlo(self, text: str) -> None:
        lines = ["here", "AUTH PLAIN"]
        if self._server.tls is not None and not self._is_secure:
            lines.append("STARTTLS")
        self._say("\r\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines))

    def _on_starttls(self, text: str) -> None:
        assert self._server.tls is not None
        self._say("220 go on")
        self._connection = self._server.tls.wrap_socket(self._connection, server_side=True)
        self._lines.close()
        self._lines = self._connection.makefile("rb")
        self._is_secure = True

    def _on_auth(self, text: str) -> None:
        self._server.log_ins += 1
        self._say("235 welcome")

    def _on_mail(self, text: str) -> None:
        self._server.senders.append(text)
        self._say("250 fine")

    def _on_rcpt(self, text: str) -> None:
        self._server.recipients.append(text)
        self._say("250 fine")

    def _on_data(self, text: str) -> None:
        self._say("354 go on")
        lines: list[bytes] = []
        while (line := self._lines.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        mail = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self._server.mails.append(mail)
        self._server.secure.append(self._is_secure)
        self._say(self._server.answers.get(".", "250 taken"))

    def _on_other(self, text: str) -> None:
        self._say("250 fine" if text.upper() in ("RSET", "NOOP") else "502 unknown")


@dataclass
class Hook:
    """What an SMS hook answers, and what it got.

    Args:
        statuses: of the requests in their order; 200 afterwards. 0 hangs up.
    """

    statuses: list[int] = field(default_factory=list)
    port: int = 0
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/sms?key=1"


@contextmanager
def hook_server(hook: Hook) -> Iterator[Hook]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.requests.append((self.path, dict(self.headers), body))
            status = hook.statuses.pop(0) if hook.statuses else 200
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        hook.port = port
        yield hook


@contextmanager
def _serving(server: socketserver.ThreadingMixIn | Any) -> Iterator[int]:
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server at 127.0.0.1, and for a client which trusts that one alone."""
    authority = Authority(folder / "authority")
    return server_context(authority.issue("127.0.0.1")), authority.client()
