"""Partners that may be given data of owners who consented (agreement 2.7): read from the configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

FIELDS = ("account", "name", "email", "mobile", "devices")
"""What can be given: the account's number, its name and addresses, and the numbers of its devices."""
_PARTNER = re.compile(r"([a-z0-9][a-z0-9-]{0,31})\s*:\s*([a-z ]+)")


def parse_partners(text: str) -> Mapping[str, tuple[str, ...]]:
    """`weather: account email; insurer: account name` as fields by partner; nobody for the empty text.

    Raises:
        ValueError: with what is wrong.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in (part.strip() for part in text.split(";")):
        if not part:
            continue
        match = _PARTNER.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no partner: write `name: account email`, several separated by ;")
        name, fields = match[1], tuple(match[2].split())
        if unknown := [field for field in fields if field not in FIELDS]:
            raise ValueError(f"{name}: {unknown[0]} can't be given; there are {', '.join(FIELDS)}")
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = tuple(field for field in FIELDS if field in fields)
    return found
