"""How templates write times, days, money and sizes. Pure.

Times are written in UTC, and marked: the script of the pages writes them again in the viewer's zone. Where a right ends
the UTC instant stays beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime

from markupsafe import Markup, escape

from retention.money import EXPONENTS, Money

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def moment(ms: int | None) -> Markup:
    """When something was or will be."""
    if ms is None:
        return Markup("–")
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return Markup('<time datetime="{}" data-local="moment">{} UTC</time>').format(
        _iso(at), f"{at:%Y-%m-%d %H:%M}"
    )


def clock(ms: int) -> Markup:
    """A time of a day that is said elsewhere, to the second."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return Markup('<time datetime="{}" data-local="clock">{} UTC</time>').format(_iso(at), f"{at:%H:%M:%S}")


def instant(ms: int | None) -> Markup:
    """When a right ends: to the second, and in UTC whatever the viewer's zone."""
    if ms is None:
        return Markup("no end is set")
    at = datetime.fromtimestamp(ms / 1000, UTC)
    text = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return Markup(
        '<span class="instant"><time datetime="{}" data-local="instant" hidden></time>'
        '<span class="utc">{}</span></span>'
    ).format(_iso(at), text)


def day(value: date | int | None) -> Markup:
    """A UTC day, of a plan: not moved to any zone, for that is what it is called."""
    if value is None:
        return Markup("–")
    if isinstance(value, int):
        value = date.fromordinal(date(1970, 1, 1).toordinal() + value)
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), f"{value.day} {value:%B %Y}")


def money(amount: Money | None) -> Markup:
    """With its currency behind it, and a minus that is one."""
    if amount is None:
        return Markup("–")
    digits = EXPONENTS.get(amount.currency, 2)
    whole, part = divmod(abs(amount.minor), 10**digits)
    text = f"{whole:,}".replace(",", "\u202f") + (f".{part:0{digits}d}" if digits else "")
    return Markup('<span class="money">{}{}\u00a0{}</span>').format(
        "\u2212" if amount.minor < 0 else "", text, amount.currency
    )


def size(count: int) -> str:
    """Bytes, as people read them: powers of ten."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} bytes" if not unit else f"{value:.3g} {_UNITS[unit]}"


def span(ms: int) -> str:
    """How long something lasts."""
    seconds = ms // 1000
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def words(code: str) -> str:
    """A code as text, where there is nothing better."""
    return str(code).replace("_", " ")


FILTERS: Mapping[str, object] = {
    "moment": moment,
    "clock": clock,
    "instant": instant,
    "day": day,
    "money": money,
    "size": size,
    "span": span,
    "words": words,
    "e": escape,
}


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
