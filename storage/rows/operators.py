"""Rows of those who run the service: operators, and the tokens that they show over HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from storage.rows.accounts import OPERATOR_ACCOUNT


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """A person or a program that runs the service. Rows are never removed, and a name is never another's: histories
    name it.

    Args:
        name: sealed; unique among operators, ended ones included.
        ended_ms: since when it may do nothing any more; None: it still may.
    """

    operator: int  # 0 for a row that is not stored yet
    name: str
    role: str
    added_ms: int
    ended_ms: int | None = None
    account: int = OPERATOR_ACCOUNT  # whose key seals the name


@dataclass(frozen=True, slots=True)
class OperatorTokenRow:
    """A token of an operator. Only its hash is kept, and only while it is good."""

    token_id: int  # 0 for a row that is not stored yet
    token_hash: bytes  # 32 bytes, unique
    operator: int | None  # None: of the built-in operator
    created_ms: int
    expires_ms: int
