"""Day numbers: days since 1970-01-01, UTC. All day arithmetic of the project is in these (invariant 12)."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

from storage.errors import CallerError

MS_PER_DAY = 86_400_000
MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, Unix ms: no playlist and no date can name a later one."""
_EPOCH = date(1970, 1, 1)


def day_of_ms(ms: int) -> int:
    """The UTC day number of a Unix time in milliseconds."""
    return ms // MS_PER_DAY


def ms_of_day(day: int) -> int:
    """Unix milliseconds at 00:00 UTC of a day number."""
    return day * MS_PER_DAY


def expiry_day(day: int, class_days: int) -> int:
    """The first day on which what was recorded on `day` may no longer be served: the day itself, then as many whole
    days as its retention class says. The one home of this rule (docs/design.md §5)."""
    return day + class_days + 1


def recorded_day(expires_on: int, class_days: int) -> int:
    """The day whose recordings of a class expire on `expires_on`: the inverse of `expiry_day`."""
    return expires_on - class_days - 1


def class_between(day: int, expires_on: int) -> int:
    """The retention class, in days, by which what was recorded on `day` expires on `expires_on`."""
    return expires_on - day - 1


def to_date(day: int) -> date:
    return _EPOCH + timedelta(days=day)


def to_day(value: date) -> int:
    return (value - _EPOCH).days


@lru_cache(maxsize=1024)
def month_of_day(day: int) -> int:
    """yyyymm of a day number, the month in which data keys are named."""
    value = to_date(day)
    return value.year * 100 + value.month


def month_after(month: int) -> int:
    """The month (yyyymm) after this one."""
    return month + 1 if month % 100 < 12 else month + 89


def month_before(month: int) -> int:
    """The month (yyyymm) before this one."""
    return month - 1 if month % 100 > 1 else month - 89


def parse_date(text: str, *, field: str) -> date:
    """An ISO date (YYYY-MM-DD).

    Raises:
        CallerError: it is not one.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CallerError(f"{field}: {text!r} is not a date; write YYYY-MM-DD", code="bad_date") from None
