"""A host that serves, as home knows it."""

from __future__ import annotations

from typing import NamedTuple


class HostRow(NamedTuple):
    """One host of the list. Its own words are `name`, `release`, `applied`, `load_pct`, `lag_ms`, `offset_ms` and
    `max_stale_ms`; the moments are by home's clock, Unix milliseconds."""

    host: str
    """Random, new with each start of `clipkeep serve`."""
    name: str
    release: str
    registered_ms: int
    asked_ms: int
    """When home last heard its feed."""
    applied: int
    """Number of the last change of which its entitlement bitmap has the rows."""
    load_pct: int
    """Of its cores: the load average of a minute."""
    lag_ms: int
    """Between the two last times that its feed asked."""
    offset_ms: int
    """By how much its clock is ahead of home's."""
    max_stale_ms: int
    """For how long it acts by what it has asked."""


class Beat(NamedTuple):
    """What home says to a host's feed."""

    now_ms: int
    """Its clock when it heard this, Unix milliseconds."""
    closed_through: int
    """Last expiry day that was swept, a day number."""
    newest_change: int
    """Number of the newest change that was committed when home heard this."""
