"""Who asks: owners and operators by their bearer tokens, viewers by tokens of a device, anyone by an address.

These are the dependencies of the handlers. They run before anything else of a request is looked at, so who is not
known learns nothing, and what is somebody else's is answered like what does not exist.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header, Path, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from ingest.requests import MAX_DEVICE
from service.agreement.bearer import PREFIXES
from service.agreement.desk import Actor
from service.agreement.errors import Unauthorized
from service.agreement.operators import for_act
from service.agreement.sessions import who
from service.agreement.texts import MAX_REASON_CHARS
from service.api.calls import client_of
from service.api.models.base import MAX_ROW
from service.api.numbers import DIGITS
from service.api.services import api_of
from service.playback import Viewer
from service.rights import act_of_page

_account_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="Account",
    description="a token of an owner (`POST /v1/sessions`) or operator",
)
_device_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="HTTPBearer",
    description="a viewer token of the device, the token of a share link, or an account's token",
)
_query = APIKeyQuery(
    name="token", auto_error=False, description="a viewer token, or that of a share link: for players"
)

Reason = Annotated[
    str,
    Header(
        alias="Clipkeep-Reason",
        description=f"why an operator does this, percent-encoded UTF-8, at most {MAX_REASON_CHARS} characters; kept in"
        " the account's history. Needed of operators with a name wherever something is changed or watched, and has no"
        " reason of its own",
    ),
]
"""Its length is looked at once it is known who asks (`for_act`); until then the limit of a head is what holds it."""
Device = Annotated[int, DIGITS, Path(alias="n", ge=0, le=MAX_DEVICE, description="device number")]
Account = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="account number")]
Clip = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="number of the kept clip")]
_Bearer = HTTPAuthorizationCredentials | None


async def token(bearer: Annotated[_Bearer, Security(_account_bearer)]) -> str:
    """What was sent as Bearer; "" without one."""
    return bearer.credentials if bearer else ""


async def actor(request: Request, token: Annotated[str, Depends(token)], reason: Reason = "") -> Actor:
    """An owner; or an operator whose role allows this page, and who has said why."""
    return await actor_of(request, token, reason)


async def actor_of(request: Request, token: str, reason: str = "") -> Actor:
    """`actor`, for a page that asks by itself."""
    api = api_of(request)
    if not token.startswith(PREFIXES):
        raise Unauthorized("send the token of a log-in as Bearer; POST /v1/sessions gives one")
    found = await api.calls.run(who, api.desk, token)
    if not found.may_see_all:
        api.services.used_accounts.note(found.account, api.desk.today())
        return found
    route = request.scope["route"]
    act = act_of_page(request.method, route.path)
    return for_act(found, act, unquote(reason, errors="replace"), says_why=_says_why(route))


def _says_why(route: APIRoute) -> bool:
    """Whether a request for the page has a reason of its own, and must have it."""
    fields = [param for param in route.dependant.query_params if param.alias == "reason"]
    body = route.body_field.field_info.annotation if route.body_field else None
    model = getattr(body, "model_fields", {}).get("reason")
    return any(field.field_info.is_required() for field in fields) or (
        model is not None and model.is_required()
    )


async def operator(actor: Annotated[Actor, Depends(actor)]) -> Actor:
    actor.require_operator()
    return actor


async def viewer(
    request: Request,
    device: Device,
    bearer: Annotated[_Bearer, Security(_device_bearer)],
    token: Annotated[str | None, Security(_query)],
    reason: Reason = "",
) -> Viewer:
    """Who watches. The header goes before the query, which takes no account's token: addresses end up in logs."""
    api = api_of(request)
    if bearer is None or not bearer.credentials.startswith(PREFIXES):
        return await api.playback.admit(Viewer(device, bearer.credentials if bearer else token or ""))
    found = await actor_of(request, bearer.credentials, reason)
    return Viewer(device, await api.calls.run(api.watching.token, found, device))


async def clip_viewer(viewer: Annotated[Viewer, Depends(viewer)], clip: Clip) -> Viewer:
    """Who watches a kept clip."""
    return replace(viewer, clip=clip)


async def client(request: Request) -> str:
    """The address by which attempts are counted."""
    return client_of(request.scope)


Caller = Annotated[Actor, Depends(actor)]
Operator = Annotated[Actor, Depends(operator)]
Asks = Annotated[Viewer, Depends(viewer)]
AsksClip = Annotated[Viewer, Depends(clip_viewer)]
Client = Annotated[str, Depends(client)]
