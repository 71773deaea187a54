"""Which act each page of the API and each command is, for an operator: what a role must allow (`retention.operators`).

A page or command that is not here is refused to every operator who asks for it by name, so what is new is written down
here first; tests go through all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from retention.operators import Act

_ACCOUNT, _DEVICE, _PLAN = "/v1/accounts/{account}", "/v1/devices/{n}", "/v1/subscriptions/{subscription}"

PAGES: Mapping[tuple[str, str], Act] = MappingProxyType(
    {
        ("DELETE", "/v1/sessions/current"): Act.LOOK,
        ("GET", "/metrics"): Act.LOOK,
        ("GET", "/v1/accounts"): Act.LOOK,
        ("GET", _ACCOUNT): Act.LOOK,
        ("PATCH", _ACCOUNT): Act.CARE,
        ("POST", f"{_ACCOUNT}/addresses/{{kind}}"): Act.CARE,
        ("PUT", f"{_ACCOUNT}/password"): Act.CARE,
        ("GET", f"{_ACCOUNT}/events"): Act.LOOK,
        ("GET", f"{_ACCOUNT}/payments"): Act.LOOK,
        ("GET", f"{_ACCOUNT}/identities"): Act.LOOK,
        ("DELETE", f"{_ACCOUNT}/identities/{{provider}}"): Act.CARE,
        ("GET", f"{_ACCOUNT}/devices"): Act.LOOK,
        ("POST", f"{_ACCOUNT}/devices"): Act.CARE,
        ("GET", f"{_ACCOUNT}/cancellation"): Act.LOOK,
        ("POST", f"{_ACCOUNT}/cancellation"): Act.DECIDE,
        ("DELETE", f"{_ACCOUNT}/cancellation"): Act.DECIDE,
        ("POST", f"{_ACCOUNT}/cancellation/approval"): Act.DECIDE,
        ("POST", f"{_ACCOUNT}/cancellation/rejection"): Act.DECIDE,
        ("POST", f"{_ACCOUNT}/closure"): Act.DESTROY,
        ("GET", "/v1/corrections"): Act.LOOK,
        ("GET", f"{_ACCOUNT}/corrections"): Act.LOOK,
        ("POST", f"{_ACCOUNT}/corrections"): Act.DECIDE,
        ("DELETE", f"{_ACCOUNT}/corrections"): Act.DECIDE,
        ("GET", f"{_ACCOUNT}/blocks"): Act.LOOK,
        ("POST", f"{_ACCOUNT}/blocks"): Act.DECIDE,
        ("DELETE", f"{_ACCOUNT}/blocks/{{block}}"): Act.DECIDE,
        ("POST", f"{_ACCOUNT}/suspension"): Act.DECIDE,
        ("DELETE", f"{_ACCOUNT}/suspension"): Act.DECIDE,
        ("GET", _DEVICE): Act.LOOK,
        ("PATCH", _DEVICE): Act.CARE,
        ("GET", f"{_DEVICE}/token"): Act.CARE,
        ("POST", f"{_DEVICE}/token"): Act.CARE,
        ("POST", f"{_DEVICE}/viewer-tokens"): Act.WATCH,
        ("POST", f"{_DEVICE}/termination"): Act.DESTROY,
        ("GET", f"{_DEVICE}/subscriptions"): Act.LOOK,
        ("GET", f"{_DEVICE}/quote"): Act.LOOK,
        ("POST", f"{_DEVICE}/trial"): Act.MONEY,
        ("POST", f"{_DEVICE}/subscriptions"): Act.MONEY,
        ("DELETE", f"{_DEVICE}/purchase"): Act.MONEY,
        ("GET", f"{_ACCOUNT}/purchases"): Act.LOOK,
        ("GET", f"{_ACCOUNT}/methods"): Act.LOOK,
        ("POST", f"{_ACCOUNT}/methods"): Act.MONEY,
        ("GET", f"{_ACCOUNT}/methods/{{method}}"): Act.LOOK,
        ("DELETE", f"{_ACCOUNT}/methods/{{method}}"): Act.MONEY,
        ("POST", f"{_ACCOUNT}/methods/{{method}}/use"): Act.MONEY,
        ("GET", f"{_ACCOUNT}/consents"): Act.LOOK,
        ("PUT", f"{_ACCOUNT}/consents/{{subject}}"): Act.CARE,
        ("GET", f"{_ACCOUNT}/exports"): Act.LOOK,
        ("POST", f"{_ACCOUNT}/exports"): Act.CARE,
        ("GET", f"{_ACCOUNT}/exports/{{export}}/file"): Act.CARE,
        ("POST", f"{_DEVICE}/grants"): Act.MONEY,
        ("GET", f"{_PLAN}/cancellation"): Act.LOOK,
        ("POST", f"{_PLAN}/cancellation"): Act.MONEY,
        ("POST", f"{_PLAN}/credits"): Act.MONEY,
        ("POST", f"{_PLAN}/refunds"): Act.MONEY,
        ("GET", "/v1/payments"): Act.LOOK,
        ("POST", "/v1/payments/{reference}/paid"): Act.MONEY,
        ("POST", "/v1/payments/{reference}/retry"): Act.MONEY,
        ("POST", "/v1/payments/{reference}/counter-entry"): Act.MONEY,
        ("GET", f"{_DEVICE}/recordings"): Act.WATCH,
        ("DELETE", f"{_DEVICE}/recordings"): Act.DESTROY,
        ("GET", f"{_DEVICE}/playlist.m3u8"): Act.WATCH,
        ("GET", f"{_DEVICE}/chunks/{{capture_ms}}.ts"): Act.WATCH,
        ("GET", f"{_DEVICE}/chunks/{{capture_ms}}"): Act.WATCH,
        ("GET", f"{_DEVICE}/clip.ts"): Act.WATCH,
        ("GET", "/v1/notices"): Act.LOOK,
        ("POST", "/v1/notices/{notice}/confirmation"): Act.CARE,
        ("POST", "/v1/announcements"): Act.PUBLISH,
        ("DELETE", "/v1/announcements/{reference}"): Act.PUBLISH,
    }
)
"""Pages of the API, by method and path. HEAD is as GET."""

OF_OWNERS_ALONE = frozenset((("POST", f"{_ACCOUNT}/log-ins"), ("POST", f"{_ACCOUNT}/identities")))
"""Pages for who is logged in to the account, and for no operator."""

COMMANDS: Mapping[str, Act] = MappingProxyType(
    {
        "account add": Act.CARE,
        "account list": Act.LOOK,
        "account show": Act.LOOK,
        "account update": Act.CARE,
        "account confirm": Act.CARE,
        "account activate": Act.CARE,
        "account send-code": Act.CARE,
        "account password-reset": Act.CARE,
        "account events": Act.LOOK,
        "account payments": Act.LOOK,
        "account consent": Act.CARE,
        "account consents": Act.LOOK,
        "account suspend": Act.DECIDE,
        "account resume": Act.DECIDE,
        "account request": Act.DECIDE,
        "account withdraw": Act.DECIDE,
        "account approve": Act.DECIDE,
        "account reject": Act.DECIDE,
        "account cancel": Act.DESTROY,
        "account block": Act.DECIDE,
        "account unblock": Act.DECIDE,
        "accounts dormant": Act.LOOK,
        "agreement publish": Act.PUBLISH,
        "corrections ask": Act.DECIDE,
        "corrections list": Act.LOOK,
        "corrections withdraw": Act.DECIDE,
        "device add": Act.CARE,
        "device list": Act.LOOK,
        "device rename": Act.CARE,
        "device show": Act.LOOK,
        "device suspend": Act.DECIDE,
        "device resume": Act.DECIDE,
        "device new-token": Act.CARE,
        "device terminate": Act.DESTROY,
        "recordings delete": Act.DESTROY,
        "viewer-token": Act.WATCH,
        "method add": Act.MONEY,
        "method list": Act.LOOK,
        "method remove": Act.MONEY,
        "method use": Act.MONEY,
        "notices advertise": Act.PUBLISH,
        "notices confirm": Act.CARE,
        "notices list": Act.LOOK,
        "notices announce": Act.PUBLISH,
        "notices withdraw": Act.PUBLISH,
        "operator add": Act.APPOINT,
        "operator list": Act.LOOK,
        "operator role": Act.APPOINT,
        "operator token": Act.APPOINT,
        "operator revoke": Act.APPOINT,
        "operator end": Act.APPOINT,
        "operator-token": Act.APPOINT,
        "package add": Act.PUBLISH,
        "package price": Act.PUBLISH,
        "package end": Act.PUBLISH,
        "package apply": Act.PUBLISH,
        "partners export": Act.PUBLISH,
        "payments abandon": Act.MONEY,
        "payments export": Act.LOOK,
        "payments list": Act.LOOK,
        "plan start": Act.MONEY,
        "plan cancel": Act.MONEY,
        "plan list": Act.LOOK,
        "privacy publish": Act.PUBLISH,
        "refund quote": Act.LOOK,
        "refund give": Act.MONEY,
        "refund retry": Act.MONEY,
        "refund take-back": Act.MONEY,
        "refund paid": Act.MONEY,
        "refund credit": Act.MONEY,
    }
)
"""Commands that take `--as`. The others are those of whoever runs the host: they show, or keep the service going."""


def act_of_page(method: str, path: str) -> Act | None:
    """What an operator does who asks for a page; None: nothing that an operator may."""
    return PAGES.get(("GET" if method == "HEAD" else method, path))
