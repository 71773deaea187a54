"""Owners and operators of a running API, as HTTP sees them."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from retention.operators import BUILT_IN
from service.agreement import operators
from service.agreement.desk import OPERATOR
from storage.rows.accounts import OPERATOR_ACCOUNT
from tests.service.api.server import Reply, Server

PASSWORD = "correct horse battery"
METHOD = "card-1"


@dataclass(frozen=True)
class Person:
    """Somebody with a token."""

    server: Server
    account: int
    token: str

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        return self.server.ask(method, path, body, token=self.token, **headers)

    def get(self, path: str) -> Any:
        """What a page says, which it must."""
        reply = self.ask("GET", path)
        assert reply.status == 200, reply
        return reply.json

    def once(self, path: str, body: object = None, key: str = "") -> Reply:
        """A POST under an idempotency key, a new one when none is given."""
        return self.ask("POST", path, body, Idempotency_Key=key or uuid.uuid4().hex)

    @property
    def home(self) -> str:
        return f"/v1/accounts/{self.account}"

    def add_device(self) -> int:
        reply = self.ask("POST", f"{self.home}/devices")
        assert reply.status == 201, reply
        return int(reply.json["device"])

    def buy(self, device: int, plan: str = "monthly", method: str = METHOD) -> Any:
        reply = self.once(f"/v1/devices/{device}/subscriptions", {"plan": plan, "method": method})
        assert reply.status == 201, reply
        return reply.json


def registration(email: str | None = "ada@example.org", **fields: object) -> dict[str, object]:
    """The body of a registration that is taken."""
    body: dict[str, object] = {"email": email, "password": PASSWORD, "name": "Ada", "accepts_version": 1}
    return {name: value for name, value in (body | fields).items() if value is not None}


def code_of(server: Server, account: int, purpose: str = "activate") -> str:
    """The code of the newest notice of this purpose, as the owner reads it."""
    return codes_of(server, account, purpose)[-1]


def codes_of(server: Server, account: int, purpose: str = "activate") -> list[str]:
    """The codes of all notices of this purpose, in the order in which they were queued."""
    with server.desk.reading() as books:
        bodies = [n.body for n in books.notices(account=account, purpose=purpose)]
    return [re.findall(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{4}){2}\b", body)[0] for body in bodies]


def log_in(server: Server, login: str, password: str = PASSWORD) -> Person:
    reply = server.ask("POST", "/v1/sessions", {"login": login, "password": password})
    assert reply.status == 201, reply
    return Person(server, reply.json["account"], reply.json["token"])


def add_owner(server: Server, name: str = "ada") -> Person:
    """Somebody who has registered, activated and logged in."""
    email = f"{name}@example.org"
    reply = server.ask("POST", "/v1/accounts", registration(email, name=name))
    assert reply.status == 201, reply
    account = reply.json["account"]
    code = code_of(server, account)
    assert server.ask("POST", f"/v1/accounts/{account}/activation", {"code": code}).status == 200
    return log_in(server, email)


def add_operator(server: Server) -> Person:
    token, _ = operators.token(server.desk, OPERATOR, BUILT_IN, 700.0)
    return Person(server, OPERATOR_ACCOUNT, token)
