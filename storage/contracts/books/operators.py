"""What the account books promise of operators and their tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of
from storage.contracts.given import NOW
from storage.errors import NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, EventRow
from storage.rows.operators import OperatorRow, OperatorTokenRow


class OperatorsContract(OnBooks):
    """See the module docstring."""

    def test_operators_are_kept_with_their_names(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            eve = books.add_operator(OperatorRow(0, "Eve Müller", "support", NOW))
            max_ = books.add_operator(OperatorRow(0, "max", "admin", NOW + 1))
            assert (eve.operator, max_.operator) == (1, 2)
            books.put_operator(replace(eve, role="auditor", ended_ms=NOW + 2))
            with pytest.raises(NotFound):
                books.put_operator(replace(eve, operator=3))
        with catalog.books() as books:
            ended = replace(eve, role="auditor", ended_ms=NOW + 2)
            assert ended.account == OPERATOR_ACCOUNT
            assert books.operators() == [ended, max_]
            assert books.operators(limit=1) == [ended]
            assert books.operator(2) == max_
            with pytest.raises(NotFound):
                books.operator(3)

    def test_tokens_are_ended_one_by_one(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            eve = books.add_operator(OperatorRow(0, "eve", "support", NOW)).operator
            rows = [
                books.add_operator_token(
                    OperatorTokenRow(0, bytes([n]) * 32, None if n else eve, NOW, NOW + n)
                )
                for n in range(3)
            ]
            assert [row.token_id for row in rows] == [1, 2, 3]
            same = replace(rows[0], token_id=0)
            assert code_of(lambda: books.add_operator_token(same)) == "exists"
            nobodys = replace(same, token_hash=b"z" * 32, operator=99)
            with pytest.raises(NotFound):
                books.add_operator_token(nobodys)
        with write() as books:
            assert (books.end_operator_token(2), books.end_operator_token(2)) == (True, False)
            assert [books.operator_token(row.token_hash) for row in rows] == [rows[0], None, rows[2]]
            assert books.operator_tokens() == [rows[0], rows[2]]
            assert books.operator_tokens(limit=1) == [rows[0]]
            assert books.operator_tokens(limit=1, good_ms=NOW) == [rows[2]]
            assert books.drop_stale(before_ms=NOW + 1) == 1
            assert books.operator_tokens() == [rows[2]]

    def test_an_event_names_who_did_it(self, catalog: Catalog, write: Any, ann: int) -> None:
        with write() as books:
            told = books.add_event(
                EventRow(0, ann, None, "suspended", "operator", "why", {}, NOW, "Eve Müller")
            )
        with catalog.books() as books:
            assert books.events_of(ann)[-1] == told
            assert told.operator == "Eve Müller"
