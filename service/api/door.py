"""Who asks: owners and operators by their bearer tokens, viewers by tokens of a device, anyone by an address.

These are the dependencies of the handlers. They run before anything else of a request is looked at, so who is not
known learns nothing, and what is somebody else's is answered like what does not exist.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from ingest.requests import MAX_DEVICE
from retention.tokens import mint_viewer_token
from service.agreement.desk import Actor, device_of
from service.agreement.errors import Unauthorized
from service.agreement.sessions import who
from service.api.calls import client_of
from service.api.models.base import MAX_ROW
from service.api.numbers import DIGITS
from service.api.services import Api, api_of
from service.playback import Viewer
from storage.days import ms_of_day

ACCOUNT_PREFIXES = ("cka_", "cko_")
"""Of owners' and operators' tokens."""
WATCHING_DAYS = 2
"""A token with which an owner or operator watches is over at the end of tomorrow (UTC): a whole evening at least. It
changes once a day, so that the numbering of a live playlist, which hangs on it, stays the same over reloads."""

_account_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="Account",
    description="a token of an owner (`POST /v1/sessions`) or operator",
)
_device_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="HTTPBearer",
    description="a viewer token of the device, or an account's token",
)
_query = APIKeyQuery(name="token", auto_error=False, description="a viewer token, for players")

Device = Annotated[int, DIGITS, Path(alias="n", ge=0, le=MAX_DEVICE, description="device number")]
Account = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="account number")]
_Bearer = HTTPAuthorizationCredentials | None


async def token(bearer: Annotated[_Bearer, Security(_account_bearer)]) -> str:
    """What was sent as Bearer; "" without one."""
    return bearer.credentials if bearer else ""


async def actor(request: Request, token: Annotated[str, Depends(token)]) -> Actor:
    """An owner or an operator."""
    return await _actor(api_of(request), token)


async def _actor(api: Api, token: str) -> Actor:
    if not token.startswith(ACCOUNT_PREFIXES):
        raise Unauthorized("send the token of a log-in as Bearer; POST /v1/sessions gives one")
    found = await api.calls.run(who, api.desk, token)
    if not found.may_see_all:
        api.services.used_accounts.note(found.account, api.desk.today())
    return found


async def operator(actor: Annotated[Actor, Depends(actor)]) -> Actor:
    actor.require_operator()
    return actor


async def viewer(
    request: Request,
    device: Device,
    bearer: Annotated[_Bearer, Security(_device_bearer)],
    token: Annotated[str | None, Security(_query)],
) -> Viewer:
    """Who watches. The header goes before the query, which takes no account's token: addresses end up in logs."""
    if bearer is None or not bearer.credentials.startswith(ACCOUNT_PREFIXES):
        return Viewer(device, bearer.credentials if bearer else token or "")
    api = api_of(request)
    found = await _actor(api, bearer.credentials)
    return Viewer(device, await api.calls.run(_watch, api, found, device))


def _watch(api: Api, actor: Actor, device: int) -> str:
    """A viewer token for who may see this device."""
    with api.desk.reading() as books:
        facts = device_of(books, actor, device)
    expires_s = ms_of_day(api.desk.today() + WATCHING_DAYS) // 1000
    return mint_viewer_token(
        api.services.token_secret, device, facts.token_generation, expires_s, facts.viewer_generation
    )


async def client(request: Request) -> str:
    """The address by which attempts are counted."""
    return client_of(request.scope)


Caller = Annotated[Actor, Depends(actor)]
Operator = Annotated[Actor, Depends(operator)]
Asks = Annotated[Viewer, Depends(viewer)]
Client = Annotated[str, Depends(client)]
