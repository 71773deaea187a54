"""Kept clips of a device."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.texts import MAX_NAME_CHARS
from service.api.asking import Moment
from service.api.models.base import Asked, Ms, fields_of
from storage.days import MAX_TIME_MS
from storage.rows.clips import ClipRow


class ClipAsked(Asked):
    from_ms: Annotated[Moment, Field(alias="from", ge=0, le=MAX_TIME_MS, description="the first included")]
    to_ms: Annotated[Moment, Field(alias="to", ge=0, le=MAX_TIME_MS, description="the first left out")]
    name: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = ""


class ClipView(BaseModel):
    clip: int
    device: int
    name: str
    from_ms: Ms
    to_ms: Ms
    created_ms: Ms
    state: Annotated[
        Literal["copying", "ready"],
        Field(description="what is copied of one that is copying can be watched already"),
    ]
    chunks: int
    bytes: Annotated[
        int, Field(description="what it counts for; of one that is copying, what it may come to")
    ]

    @classmethod
    def of(cls, row: ClipRow) -> Self:
        names = ("device", "name", "from_ms", "to_ms", "created_ms", "chunks", "bytes")
        return cls(clip=row.clip_id, state=row.state.value, **fields_of(row, *names))
