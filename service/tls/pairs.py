"""Which files `[tls]` names. Reads none of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.config import TlsSettings

TLS_VERSIONS = ("1.2", "1.3")
MAX_PAIRS = 100
"""A server of more names has a proxy before it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of one certificate, with its chain, and of its key. They may be one."""

    certificate: Path
    key: Path


def parse_pairs(settings: TlsSettings) -> tuple[Pair, ...]:
    """The files that are configured. Empty: no TLS.

    Raises:
        ValueError: they are not pairs, or not named by whole paths.
    """
    certificates, keys = _paths(settings.certificate), _paths(settings.key)
    if keys and len(keys) != len(certificates):
        raise ValueError(
            f"names {len(certificates)} files and tls.key {len(keys)}: name as many keys, in the same order"
        )
    if len(certificates) > MAX_PAIRS:
        raise ValueError(f"names more than {MAX_PAIRS} files")
    if wrong := [path for path in certificates + keys if not path.is_absolute()]:
        raise ValueError(f"{str(wrong[0])!r} is no whole path, from / on")
    return tuple(Pair(*each) for each in zip(certificates, keys or certificates, strict=True))


def _paths(text: str) -> list[Path]:
    return [Path(part.strip()) for part in text.split(",") if part.strip()]
