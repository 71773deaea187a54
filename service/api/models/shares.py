"""Links to a range of one device."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.api.asking import Moment
from service.api.models.base import Asked, Ms, fields_of
from storage.days import MAX_TIME_MS
from storage.rows.shares import ShareRow

MAX_SHARE_HOURS = 24 * 3660
"""No setting allows more; the desk says how many it is."""


class ShareAsked(Asked):
    from_ms: Annotated[Moment, Field(alias="from", ge=0, le=MAX_TIME_MS, description="the first included")]
    to_ms: Annotated[Moment, Field(alias="to", ge=0, le=MAX_TIME_MS, description="the first left out")]
    hours: Annotated[int, Field(ge=1, le=MAX_SHARE_HOURS, description="how long it may be used")] = 168


class ShareView(BaseModel):
    share: int
    device: int
    from_ms: Ms
    to_ms: Ms
    created_ms: Ms
    expires_ms: Ms
    state: Annotated[
        Literal["live", "expired", "void"],
        Field(description="void: the device's token or the account's password was renewed since"),
    ]
    opens: Annotated[int, Field(description="playlists and exports that were asked for by it")]
    opened_ms: Annotated[int | None, Field(description="when the last one was, Unix ms")]

    @classmethod
    def of(cls, row: ShareRow, state: str) -> Self:
        names = ("device", "from_ms", "to_ms", "created_ms", "expires_ms", "opens", "opened_ms")
        return cls(share=row.share_id, state=state, **fields_of(row, *names))  # type: ignore[arg-type]


class NewShare(ShareView):
    token: Annotated[str, Field(description="of the link; told this once")]


class Shares(BaseModel):
    items: list[ShareView]
