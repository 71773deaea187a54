"""Customers and operators of a running service, over HTTP, on a clock that the test moves."""

from __future__ import annotations

import email
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.policy import default
from http.client import HTTPConnection
from json import dumps, loads
from typing import Any
from urllib.parse import quote

from retention.operators import BUILT_IN
from service.agreement import operators
from service.agreement.desk import OPERATOR
from service.folder import OffsetClock, open_folder
from storage.rows.accounts import OPERATOR_ACCOUNT
from tests.e2e.load import chunk_body
from tests.e2e.service import SOON_S, Device, Service, until

PASSWORD = "correct horse battery"
METHOD = "card-1"
PACKETS = 20


@dataclass(frozen=True)
class Said:
    """An answer of the API port."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return loads(self.body)

    def is_refusal(self, status: int, code: str) -> bool:
        assert (self.status, self.json["error"]) == (status, code), self
        return True


def asked(
    api: tuple[str, int],
    timeout_s: float,
    method: str,
    path: str,
    body: object,
    token: str | None,
    key: str,
    reason: str,
) -> Said:
    """One request of its own connection."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if reason:
        headers["Clipkeep-Reason"] = quote(reason)
    if key:
        headers["Idempotency-Key"] = key
    if body is not None:
        headers["Content-Type"] = "application/json"
    with closing(HTTPConnection(*api, timeout=timeout_s)) as connection:
        connection.request(method, path, None if body is None else dumps(body).encode(), headers)
        answer = connection.getresponse()
        return Said(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


class Town:
    """A service, the time there, and its notices.

    Args:
        service: initialised with a test clock, not started yet.
    """

    def __init__(self, service: Service, today: date) -> None:
        self.service = service
        service.configure(agreement_housekeeping_s=0.2, segments_linger_ms=20)
        self.move_to(today)
        service.start()

    def move_to(self, day: date, hour: float = 12.0) -> None:
        """Let it be that time (UTC), for all processes at once: what `clipkeep clock` does, at a tenth of the time."""
        moment_s = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + hour * 3600
        with open_folder(self.service.data, environ=self.service.environ) as opened:
            assert isinstance(opened.clock, OffsetClock)
            self._offset_ms = round((moment_s - time.time()) * 1000)
            opened.clock.set_offset_ms(self._offset_ms)
            opened.witness.note(accept=True)  # the first day may lie before the folder was made
            opened.entitlements.roll()

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self._offset_ms

    def renew(self) -> int:
        """The scheduled run. Returns how many periods it renewed."""
        return int(self.service.command("renew")["renewed"])

    def operator(self) -> Customer:
        """Somebody with an operator's token."""
        with open_folder(self.service.data, environ=self.service.environ) as opened:
            token, _ = operators.token(opened.desk, OPERATOR, BUILT_IN, 24.0 * 60)
        return Customer(self, OPERATOR_ACCOUNT, token)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = None,
        key: str = "",
        reason: str = "",
    ) -> Said:
        return asked(self.service.api, SOON_S, method, path, body, token, key, reason)

    def mail(self, address: str) -> Iterator[tuple[str, str]]:
        """(subject, text) of all mail to an address that has gone out, the oldest first."""
        for path in sorted((self.service.data / "notices").glob("[0-9]*.eml")):
            message = email.message_from_bytes(path.read_bytes(), policy=default)
            if message["To"] == address:
                yield message["Subject"], message.get_content()

    def read_mail(self, address: str, subject: str) -> str:
        """Wait for mail with such a subject, and read the newest."""

        def find() -> list[str]:
            return [text for found, text in self.mail(address) if subject in found]

        return str(until(find, f"mail to {address} about {subject!r}", every_s=0.05)[-1])

    def register(self, address: str) -> Said:
        version = self.ask("GET", "/v1/agreement").json["version"]
        body = {"email": address, "password": PASSWORD, "name": "Ada", "accepts_version": version}
        return self.ask("POST", "/v1/accounts", body)

    def log_in(self, address: str) -> Customer:
        said = self.ask("POST", "/v1/sessions", {"login": address, "password": PASSWORD})
        assert said.status == 201, said
        return Customer(self, said.json["account"], said.json["token"])

    def move_in(self, address: str) -> Customer:
        """Register, activate with the code from the mail, and log in."""
        account = self.register(address).json["account"]
        self.activate(account, address)
        return self.log_in(address)

    def activate(self, account: int, address: str) -> None:
        code = re.search(
            r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b", self.read_mail(address, "activation code")
        )
        assert code is not None
        said = self.ask("POST", f"/v1/accounts/{account}/activation", {"code": code[0]})
        assert said.json["state"] == "active", said


@dataclass(frozen=True)
class Customer:
    """Somebody with a token."""

    town: Town
    account: int
    token: str

    @property
    def home(self) -> str:
        return f"/v1/accounts/{self.account}"

    def ask(self, method: str, path: str, body: object = None, key: str = "", reason: str = "") -> Said:
        return self.town.ask(method, path, body, self.token, key, reason)

    def get(self, path: str) -> Any:
        said = self.ask("GET", path)
        assert said.status == 200, said
        return said.json

    def once(self, path: str, body: object = None) -> Any:
        """A POST with an idempotency key of its own, which must succeed."""
        said = self.ask("POST", path, body, uuid.uuid4().hex)
        assert said.status == 201, said
        return said.json

    def add_camera(self) -> Camera:
        said = self.ask("POST", f"{self.home}/devices")
        assert said.status == 201, said
        return Camera(self.town, Device(said.json["device"], said.json["token"]))

    def buy(self, camera: Camera, plan: str) -> Any:
        body = {"plan": plan, "method": METHOD}
        return self.once(f"/v1/devices/{camera.number}/subscriptions", body)["subscription"]

    def payments(self) -> list[tuple[str, int, str]]:
        items = self.get(f"{self.home}/payments")["items"]
        return [(item["kind"], item["amount"]["minor"], item["state"]) for item in items]

    def watch(self, camera: Camera, capture_ms: int, reason: str = "") -> Said:
        return self.ask("GET", f"/v1/devices/{camera.number}/chunks/{capture_ms}", reason=reason)

    def events(self) -> list[tuple[str, str, str]]:
        """(what, operator's name, why) of the account's history."""
        items = self.get(f"{self.home}/events?limit=1000")["items"]
        return [(item["what"], item["operator"], item["why"]) for item in items]


@dataclass(frozen=True)
class Camera:
    """A device that records."""

    town: Town
    device: Device

    @property
    def number(self) -> int:
        return self.device.number

    def upload(self) -> tuple[int, int]:
        """A chunk of now. Returns the status and its capture time."""
        capture_ms = self.town.now_ms()
        reply = self.town.service.put(self.device, capture_ms, self.body(capture_ms))
        return reply.status, capture_ms

    def record(self) -> int:
        """A chunk of now, which must be stored. Returns its capture time."""
        status, capture_ms = self.upload()
        assert status == 201
        return capture_ms

    def refused(self) -> str:
        """The code with which a chunk of now is refused."""
        capture_ms = self.town.now_ms()
        reply = self.town.service.put(self.device, capture_ms, self.body(capture_ms))
        assert reply.status == 403, reply
        return reply.code

    def body(self, capture_ms: int) -> bytes:
        return chunk_body(self.number, capture_ms, PACKETS)
