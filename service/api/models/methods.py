"""Payment methods of an account."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.api.models.base import MAX_ROW, Asked, Ms, fields_of
from storage.rows.accounts import MethodRow


class MethodView(BaseModel):
    """What an account pays with. The gateway keeps it; here is never a card's number."""

    method: Annotated[str, Field(description="what a purchase names")]
    state: Annotated[
        Literal["pending", "usable", "failed"],
        Field(description="pending: its owner is to enter it at `url`; failed: set up another one"),
    ]
    label: Annotated[str, Field(description="what its owner knows it by", examples=["Visa 4242"])]
    url: Annotated[str | None, Field(description="where its owner enters it, while that is to be done")]
    expires_ms: Annotated[int | None, Field(description="Unix ms until which `url` holds")]
    made_ms: Ms

    @classmethod
    def of(cls, row: MethodRow) -> Self:
        return cls(
            method=row.reference,
            state=row.state.value,
            url=row.url or None,
            expires_ms=row.until_ms,
            **fields_of(row, "label", "made_ms"),
        )


class MethodUse(Asked):
    """What is to be charged to it from now on."""

    subscription: Annotated[
        int | None, Field(ge=1, le=MAX_ROW, description="one that renews itself; null: all of the account")
    ] = None


class MethodUsed(BaseModel):
    subscriptions: Annotated[list[int], Field(description="that are charged to it from now on")]


class ReportTaken(BaseModel):
    """The same for every report that is signed, whatever it is about."""

    status: Literal["taken"] = "taken"
