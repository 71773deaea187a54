"""Listings of recordings. They are written without going through these models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class RecordedChunk(BaseModel):
    capture_ms: Annotated[int, Field(description="Unix ms")]
    duration_ms: int
    length_bytes: int
    content_type: Annotated[str, Field(examples=["video/mp2t", "video/mp4"])]
    expires_on: Annotated[str, Field(description="UTC date of the first day on which it is no longer served")]
    url: Annotated[str, Field(description="relative to this listing; without a token")]


class RecordedSpan(BaseModel):
    """A stretch of recording without a gap."""

    from_ms: Annotated[int, Field(description="Unix ms")]
    to_ms: Annotated[int, Field(description="Unix ms, the first moment after it")]
    length_bytes: int
    chunks: list[RecordedChunk]


class Recordings(BaseModel):
    device: int
    spans: list[RecordedSpan]
    next: Annotated[
        int | None,
        Field(description="`from` of the next page, null after the last"),
    ]


class DeletedRange(BaseModel):
    """What a deletion has taken from the listings. What is uploaded into the range later is refused."""

    device: int
    deleted_chunks: int
    bytes: int
