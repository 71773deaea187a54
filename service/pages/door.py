"""Who opens a page: an owner or an operator by the cookie of the log-in. The dependencies of the handlers."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from retention.operators import Act
from service.agreement.bearer import PREFIXES
from service.agreement.desk import Actor
from service.agreement.operators import for_act
from service.agreement.sessions import who
from service.pages.site import LogInFirst, Person, Site
from storage.errors import NotFound


def site_of(request: Request) -> Site:
    return cast(Site, request.app.state.site)


async def person(request: Request) -> Person:
    """Whoever is logged in.

    Raises:
        LogInFirst; Unauthorized `session_ended`; Forbidden `account_suspended`.
    """
    site = site_of(request)
    token = site.token(request)
    if not token.startswith(PREFIXES):
        raise LogInFirst("log in")
    found = await site.calls.run(who, site.desk, token)
    if not found.may_see_all:
        site.api.services.used_accounts.note(found.account, site.desk.today())
    return Person(token, found)


async def owner(person: Annotated[Person, Depends(person)]) -> Person:
    """An owner. Raises LogInFirst: an operator has pages of his own."""
    if person.actor.may_see_all:
        raise LogInFirst("log in as the owner of an account")
    return person


async def operator(person: Annotated[Person, Depends(person)]) -> Person:
    """An operator, who may look: `allowed` says what else. Raises NotFound for an owner; Forbidden `role_lacks`."""
    if not person.actor.may_see_all:
        raise NotFound("there is no such page")
    for_act(person.actor, Act.LOOK, "")
    return person


def allowed(person: Person, act: Act, reason: str = "") -> Actor:
    """The operator about to do something, with the reason that the form has.

    Raises:
        Forbidden: `role_lacks`; Unprocessable: `reason_needed`, `bad_text`.
    """
    return for_act(person.actor, act, reason)


Owner = Annotated[Person, Depends(owner)]
Operator = Annotated[Person, Depends(operator)]
