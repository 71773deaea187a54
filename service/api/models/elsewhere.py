"""Log-in from elsewhere."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field

from service.agreement.openid.sealed import MAX_CHARS
from service.api.models.accounts import AccountView, Email, Mobile, Name, Session, Version
from service.api.models.base import Asked, Ms, fields_of
from storage.rows.identities import IdentityRow

MAX_CODE_CHARS = 4096
"""Providers give up to some 2 KB."""
ProviderName = Annotated[str, Field(min_length=1, max_length=32, examples=["google"])]
Sealed = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]


class ProviderView(BaseModel):
    provider: ProviderName
    issuer: str


class LogInAsked(Asked):
    provider: ProviderName
    redirect_uri: Annotated[
        str | None,
        Field(min_length=1, max_length=2000, description="one of the configuration; default: its first"),
    ] = None


class LogInBegun(BaseModel):
    url: Annotated[str, Field(description="where the browser goes")]
    log_in: Annotated[str, Field(description="keep it, in this browser alone: it ends the log-in")]
    expires_ms: Ms


class ProviderAnswer(Asked):
    """What came back to `redirect_uri`, and what was kept."""

    log_in: Sealed
    state: Annotated[str, Field(min_length=1, max_length=200)]
    code: Annotated[str, Field(min_length=1, max_length=MAX_CODE_CHARS)]
    iss: Annotated[str | None, Field(max_length=2000, description="where the answer has it (RFC 9207)")] = (
        None
    )


class NewcomerView(BaseModel):
    """Somebody without an account here."""

    newcomer: Annotated[str, Field(description="to register with, at /v1/log-ins/registration")]
    email: Annotated[str, Field(description="that the provider tells; empty without one")]
    proved: Annotated[bool, Field(description="no code is needed for it")]
    expires_ms: Ms


class LoggedIn(BaseModel):
    """One of the two."""

    session: Session | None
    newcomer: NewcomerView | None


class NewcomerAsked(Asked):
    """The current version of the agreement has to be accepted (11.4). Without an address it is the one that the
    provider tells."""

    newcomer: Sealed
    accepts_version: Version
    name: Name = ""
    email: Email | None = None
    mobile: Mobile | None = None


class Registered(BaseModel):
    account: AccountView
    session: Annotated[Session | None, Field(description="null: activate it with the code that was sent")]


class Identity(BaseModel):
    """A log-in from elsewhere that is linked."""

    provider: str
    linked_ms: Ms

    @classmethod
    def of(cls, row: IdentityRow) -> Self:
        return cls(**fields_of(row, "provider", "linked_ms"))
