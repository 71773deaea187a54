"""How the desk refuses: by class, which becomes a status, and by code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.agreement.errors import (
    Conflict,
    Forbidden,
    PaymentRefused,
    Unprocessable,
)
from storage.errors import ClipkeepError, NotFound, WorldError

KINDS: dict[int, type[ClipkeepError]] = {
    402: PaymentRefused,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Unprocessable,
    503: WorldError,
}


@contextmanager
def refused(status: int, code: str) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Inside, the desk refuses with an error of the class that becomes this status."""
    with pytest.raises(KINDS[status]) as caught:
        yield caught
    error = caught.value
    assert isinstance(error, ClipkeepError)
    assert error.code == code, error
    assert len(error.detail) > 15, "says what to do"
