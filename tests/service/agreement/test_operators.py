"""Operators and their tokens: who was ended, or whose token was, may do nothing, however many there are."""

from __future__ import annotations

import pytest

from retention.operators import OperatorRole
from service.agreement import operators, sessions
from service.agreement.bearer import OPERATOR_PREFIX, new_token, token_hash
from service.agreement.desk import OPERATOR
from service.agreement.errors import NotFound, Unauthorized
from storage.catalog.books import Books
from storage.rows.operators import OperatorTokenRow
from tests.service.agreement.office import Office, refused


@pytest.fixture
def busy(office: Office) -> Office:
    """A tool had a token every ten minutes, for an hour each: a week of those that ran out is kept."""

    def work(books: Books) -> None:
        for _ in range(operators.MAX_TOKENS + 1):
            made = token_hash(new_token(office.desk, OPERATOR_PREFIX))
            books.add_operator_token(
                OperatorTokenRow(0, made, None, office.clock.ms - 9, office.clock.ms - 1)
            )

    office.desk.write(work)
    operators.add(office.desk, OPERATOR, "eve", OperatorRole.ADMIN)
    return office


def test_an_ended_operator_has_no_token_left(busy: Office) -> None:
    token, _ = operators.token(busy.desk, OPERATOR, "eve", 1)
    assert sessions.who(busy.desk, token).operator == "eve"
    assert [len(one.tokens) for one in operators.listed(busy.desk)] == [0, 1]
    operators.end(busy.desk, OPERATOR, "eve")
    with refused(Unauthorized, "session_ended"):
        sessions.who(busy.desk, token)


def test_one_token_is_revoked_and_all_are(busy: Office) -> None:
    (first, row), (second, _) = (operators.token(busy.desk, OPERATOR, "eve", 1) for _ in range(2))
    operators.revoke(busy.desk, OPERATOR, row.token_id)
    with refused(Unauthorized, "session_ended"):
        sessions.who(busy.desk, first)
    with refused(NotFound, "not_found"):
        operators.revoke(busy.desk, OPERATOR, row.token_id)
    assert sessions.who(busy.desk, second)
    assert operators.revoke_all(busy.desk, OPERATOR) == 1
    with refused(Unauthorized, "session_ended"):
        sessions.who(busy.desk, second)


def test_a_row_that_says_ended_is_enough(office: Office) -> None:
    """Whatever tokens there are: a token that was made at that moment, or one that a backup brought back."""
    operators.add(office.desk, OPERATOR, "eve", OperatorRole.ADMIN)
    operators.end(office.desk, OPERATOR, "eve")
    token = new_token(office.desk, OPERATOR_PREFIX)
    now_ms = office.clock.ms
    row = OperatorTokenRow(0, token_hash(token), 1, now_ms, now_ms + 1000)
    office.desk.write(lambda books: books.add_operator_token(row))
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, token)
