"""Owners and operators with a browser."""

from __future__ import annotations

from tests.service.api.office import PASSWORD, Person, add_operator, add_owner, log_in
from tests.service.api.server import Server
from tests.service.pages.visitor import Visitor


def owner(server: Server, name: str = "ada", **headers: str) -> tuple[Visitor, Person]:
    """Somebody who has logged in to an account of his own."""
    person = add_owner(server, name)
    visitor = Visitor(server, **headers)
    page = visitor.get("/log-in")
    done = visitor.fill(page, "/log-in", login=f"{name}@example.org", password=PASSWORD)
    assert done.goes_to == "/cameras", done.html.text
    return visitor, person


def operator(server: Server) -> tuple[Visitor, Person]:
    person = add_operator(server)
    visitor = Visitor(server)
    page = visitor.get("/log-in/operator")
    done = visitor.fill(page, "/log-in/operator", token=person.token)
    assert done.goes_to == "/operator", done.html.text
    return visitor, person


def owner_token(server: Server, name: str = "ada") -> str:
    """Of a new log-in."""
    return log_in(server, f"{name}@example.org").token
