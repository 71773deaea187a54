"""Devices and their tokens."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.devices import MAX_VIEWER_HOURS, Standing
from service.agreement.kept_counts import Kept as KeptSums
from service.agreement.naming import MAX_DEVICE_NAME_CHARS, MAX_LABEL_CHARS
from service.agreement.refused import WHY
from service.agreement.serials import MAX_SERIAL_CHARS
from service.api.models.accounts import WithReason
from service.api.models.base import Asked, Day, Ms, day, fields_of
from service.api.models.subscriptions import SubscriptionView, iso


class DeviceAsked(Asked):
    serial: Annotated[
        str | None,
        Field(min_length=1, max_length=MAX_SERIAL_CHARS, description="what stands on the device"),
    ] = None


class DeviceNaming(Asked):
    name: Annotated[
        str | None, Field(max_length=MAX_DEVICE_NAME_CHARS, description="null leaves it, empty takes it away")
    ] = None
    label: Annotated[
        str | None,
        Field(
            max_length=MAX_LABEL_CHARS, description="where it is, say; null leaves it, empty takes it away"
        ),
    ] = None


class ViewerTokenAsked(Asked):
    hours: Annotated[int, Field(ge=1, le=MAX_VIEWER_HOURS, description="how long it may be used")] = 24


class Termination(WithReason):
    erase: Annotated[bool, Field(description="destroy its keys at once")] = False


class Refusal(BaseModel):
    code: Annotated[str, Field(description="of the ingest port")]
    why: Annotated[str, Field(description="a sentence for its owner; may be empty")]
    count: Annotated[int, Field(description="requests refused for this since the device was added")]
    last_ms: Annotated[Ms, Field(description="of the newest one")]


class DeviceView(BaseModel):
    device: int
    account: int
    name: Annotated[str, Field(description="what its owner calls it; may be empty")]
    label: str
    state: Literal["terminated", "suspended", "recording", "not started", "lapsed", "no plan"]
    entitled_through: Annotated[
        str | None, Field(description="UTC date, the last day on which it may record as things stand")
    ]
    retention_days: Annotated[int | None, Field(description="for which what it records today is kept")]
    terminated_ms: Ms | None
    seen_ms: Annotated[
        Ms | None, Field(description="when its newest upload was acknowledged, known within about a minute")
    ]
    refusals: Annotated[
        list[Refusal],
        Field(description="of uploads that came with its token, one for each code, the newest first"),
    ]
    subscriptions: list[SubscriptionView]

    @classmethod
    def of(cls, standing: Standing) -> Self:
        facts = standing.facts
        return cls(
            **fields_of(facts, "device", "account", "terminated_ms"),
            **fields_of(standing, "state", "retention_days"),
            **fields_of(standing.name, "name", "label"),
            seen_ms=standing.seen.seen_ms,
            refusals=[
                Refusal(code=one.code, why=WHY.get(one.code, ""), count=one.count, last_ms=one.last_ms)
                for one in standing.seen.refused
            ],
            entitled_through=iso(standing.entitled_through),
            subscriptions=[SubscriptionView.of(facts.device, sub) for sub in standing.subscriptions],
        )


class Amount(BaseModel):
    chunks: int
    length_bytes: int
    duration_ms: Annotated[int, Field(description="what they play, as their media says")]


class KeptOfDay(Amount):
    day: Annotated[Day, Field(description="UTC date on which it was recorded")]


class KeptOfDevice(Amount):
    device: int


class _Counted(BaseModel):
    days: Annotated[list[KeptOfDay], Field(description="in order")]
    complete: Annotated[
        bool, Field(description="every day was counted; else ask again, and more of them are")
    ]


class KeptView(_Counted, KeptOfDevice):
    @classmethod
    def of(cls, device: int, kept: KeptSums) -> Self:
        whole = kept.devices[device]
        return cls(
            device=device,
            days=_days(kept),
            complete=kept.is_complete,
            **fields_of(whole, *Amount.model_fields),
        )


class AccountKept(_Counted):
    devices: list[KeptOfDevice]
    next: Annotated[int | None, Field(description="`after` of the next page of devices, null after the last")]

    @classmethod
    def of(cls, kept: KeptSums, limit: int) -> Self:
        amounts = Amount.model_fields
        return cls(
            days=_days(kept),
            devices=[
                KeptOfDevice(device=device, **fields_of(kept.devices[device], *amounts))
                for device in sorted(kept.devices)
            ],
            complete=kept.is_complete,
            next=max(kept.devices) if len(kept.devices) == limit else None,
        )


def _days(kept: KeptSums) -> list[KeptOfDay]:
    return [KeptOfDay(day=day(one.day), **fields_of(one, *Amount.model_fields)) for one in kept.days]


class NewDevice(BaseModel):
    device: int
    token: Annotated[str, Field(description="what the camera sends when it uploads")]


class DeviceToken(BaseModel):
    device: int
    token: str


class ViewerToken(BaseModel):
    device: int
    token: str
    expires_s: Annotated[int, Field(description="Unix seconds")]
