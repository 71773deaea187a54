"""What all models share: strict when read, and words for times, days and money."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from storage.days import ms_of_day, to_date

T = TypeVar("T")
MAX_ROW = 2**63 - 1
"""The largest number that a row can have."""
MAX_MINOR = 10**12
"""Most minor units in a request: far above any fee, far below what would overflow."""

Ms = Annotated[int, Field(description="Unix ms")]
Day = Annotated[str, Field(description="UTC date", json_schema_extra={"format": "date"})]


class Asked(BaseModel):
    """Of a request: no unknown members, and no text taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Money(BaseModel):
    minor: Annotated[int, Field(description="in minor units of the currency, as cents")]
    currency: Annotated[str, Field(description="ISO 4217", examples=["USD"])]


class AskedMoney(Asked):
    minor: Annotated[int, Field(ge=1, le=MAX_MINOR, description="in minor units of the currency, as cents")]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217", examples=["USD"])]


class Page(BaseModel, Generic[T]):
    """Part of a list, in order of number."""

    items: list[T]
    next: Annotated[int | None, Field(description="`after` of the next page, null after the last")]


def day(number: int) -> str:
    return to_date(number).isoformat()


def maybe_day(number: int | None) -> str | None:
    return None if number is None else day(number)


def denied_from_ms(last_day: int | None) -> int | None:
    """The instant from which access is denied when that day is the last: 00:00 UTC after it."""
    return None if last_day is None else ms_of_day(last_day + 1)


def fields_of(row: Any, *names: str) -> dict[str, Any]:
    """These attributes, by name: for a model whose members are those of a row."""
    return {name: getattr(row, name) for name in names}
