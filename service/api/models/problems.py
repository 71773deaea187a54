"""Refusals, as the OpenAPI document shows them. `service.api.problems` writes them without going through these."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Reason(BaseModel):
    """One of several things that stand in the way."""

    code: str
    detail: str
    what_to_do: str


class Problem(BaseModel):
    """Every refusal and every failure (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(examples=["urn:clipkeep:problem:plan_lapsed"])]
    title: Annotated[str, Field(examples=["Plan lapsed"])]
    status: int
    detail: Annotated[str, Field(description="what happened and what to do, for people")]
    error: Annotated[str, Field(description="stable code, for programs", examples=["plan_lapsed"])]


class Blocked(Problem):
    """A refusal for several reasons, all of them named at once; one that is for none of them has no `reasons`."""

    reasons: Annotated[list[Reason], Field(default_factory=list)]


class NotReady(Problem):
    problems: Annotated[dict[str, str], Field(description="by component")]


class Status(BaseModel):
    status: str


class Ready(Status):
    survives: Annotated[
        dict[str, str],
        Field(
            description="what an acknowledged chunk survives, by what holds it: nothing, server_crash,"
            " machine_crash or primary_loss",
            examples=[{"catalog": "machine_crash"}],
        ),
    ]
