"""Long lists in pages: `after` is the number behind which a page begins, `limit` how many there are in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from service.api.models.base import MAX_ROW, Page
from service.api.numbers import DIGITS

MAX_PAGE_ROWS = 1000
DEFAULT_PAGE_ROWS = 100

After = Annotated[int, DIGITS, Query(ge=0, le=MAX_ROW, description="`next` of the page before")]
Rows = Annotated[int, DIGITS, Query(alias="limit", ge=1, le=MAX_PAGE_ROWS, description="most in a page")]

R = TypeVar("R")
T = TypeVar("T")


def page_of(found: Sequence[R], limit: int, number: Callable[[R], int], view: Callable[[R], T]) -> Page[T]:
    """A page of rows in order of number, of which one more than `limit` was asked for: so that `next` is never a
    page without anything in it."""
    rows = found[:limit]
    following = number(rows[-1]) if len(found) > limit else None
    return Page(items=[view(row) for row in rows], next=following)
