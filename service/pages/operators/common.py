"""What the pages of operators share: words in addresses, what a role is offered."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from retention.operators import MAY, Act
from service.pages.site import Person


def one_of(request: Request, name: str, choices: Sequence[str]) -> str:
    """A word in the address, if it is one of these; else ""."""
    text = request.query_params.get(name, "")
    return text if text in choices else ""


def offered(person: Person) -> frozenset[Act]:
    """What the operator may do: what is offered on a page. The handlers ask again."""
    return MAY[person.actor.operator_role]
