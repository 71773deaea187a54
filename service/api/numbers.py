"""Numbers as they stand in a path or a query: digits. Pure."""

from __future__ import annotations

import re

from pydantic import BeforeValidator

_DIGITS = re.compile(r"-?[0-9]{1,20}")


def only_digits(value: object) -> object:
    """Refuse what Python's `int` would take beside digits (`1_0`, `+1`, ` 1`, other scripts' digits, `1.0`), and
    another program on the way would not: both are to read the same number.

    Raises:
        ValueError: text that is no decimal number.
    """
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("write a whole number in digits, 0 to 9")
    return value


DIGITS = BeforeValidator(only_digits, json_schema_input_type=int)
"""Put beside the type of each number in a path or a query; a test finds those without it."""
