"""Rows of a list, a page of them at a time. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")
PAGE_ROWS = 50
_NUMBER = re.compile("[0-9]{1,18}")


def number_in(request: Request, name: str) -> int:
    """A number in the address; 0 when there is none."""
    text = request.query_params.get(name, "").strip()
    return int(text) if _NUMBER.fullmatch(text) else 0


def paged(
    rows: Sequence[T], number: Callable[[T], int], most: int = PAGE_ROWS
) -> tuple[Sequence[T], int | None]:
    """Of one row more than a page has: the page, and what the next one is after."""
    return rows[:most], number(rows[most - 1]) if len(rows) > most else None
