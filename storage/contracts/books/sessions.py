"""What the account books promise of log-ins, codes, attempts and answers under an idempotency key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, answer, code_of
from storage.contracts.given import NOW
from storage.errors import NotFound
from storage.rows.accounts import AttemptsRow, CodeRow, SessionRow


class SessionsContract(OnBooks):
    """See the module docstring."""

    def test_sessions(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        rows = [SessionRow(bytes([i]) * 32, ann if i < 3 else bob, NOW, NOW + i) for i in range(4)]
        with write() as books:
            for row in rows:
                books.add_session(row)
            assert code_of(lambda: books.add_session(rows[0])) == "exists"
            with pytest.raises(NotFound):
                books.add_session(SessionRow(b"z" * 32, 99, NOW, NOW))
        with write() as books:
            assert [books.session(row.token_hash) for row in rows] == rows
            assert books.session(b"z" * 32) is None
            assert books.sessions_of(bob) == rows[3:]
            assert (books.sessions_of(ann), books.sessions_of(ann, limit=1)) == (rows[:3], rows[:1])
            assert (books.end_session(rows[0].token_hash), books.end_session(rows[0].token_hash)) == (
                True,
                False,
            )
            assert (books.end_sessions(ann), books.end_sessions(ann)) == (2, 0)
            assert [books.session(row.token_hash) for row in rows] == [None, None, None, rows[3]]

    def test_codes(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        """One per account and purpose: a new one replaces the old one."""
        first = CodeRow(ann, "activate", "ann@example.com", b"1" * 32, NOW)
        second = replace(first, address="+15550100", code_hash=b"2" * 32, attempts=3)
        email, others = replace(first, purpose="email"), replace(first, account=bob)
        with write() as books:
            for row in (first, second, email, others):
                books.put_code(row)
            with pytest.raises(NotFound):
                books.put_code(replace(first, account=99))
        with write() as books:
            assert books.code(ann, "activate") == second
            assert books.codes(ann) == [second, email]
            assert books.code(ann, "password") is None
            books.drop_code(ann, "activate")
            books.drop_code(ann, "activate")
            assert (books.codes(ann), books.codes(bob)) == ([email], [others])

    def test_attempts(self, catalog: Catalog, write: Any) -> None:
        row = AttemptsRow("login:client:203.0.113.9", 1, NOW, NOW)
        more = replace(row, count=5, last_ms=NOW + 1, locked_until_ms=NOW + 2)
        with write() as books:
            books.put_attempts(row)
            books.put_attempts(more)
            books.put_attempts(replace(row, subject="login:account:5"))
        with write() as books:
            assert books.attempts(row.subject) == more
            assert books.attempts("login:client:203.0.113.10") is None
            books.drop_attempts(row.subject)
            books.drop_attempts(row.subject)
            assert books.attempts(row.subject) is None
            assert books.attempts("login:account:5") == replace(row, subject="login:account:5")

    def test_what_is_stale_is_forgotten(self, catalog: Catalog, write: Any, ann: int) -> None:
        """Ended, last counted or given before that time; at it is not before it."""
        with write() as books:
            for i, ms in enumerate((NOW - 1, NOW)):
                books.add_session(SessionRow(bytes([i]) * 32, ann, 0, ms))
                books.put_code(CodeRow(ann, str(i), "", b"", ms))
                books.put_attempts(AttemptsRow(str(i), 1, 0, ms))
                books.put_answer(answer(ann, str(i), at_ms=ms))
            books.put_attempts(AttemptsRow("locked", 1, 0, NOW - 1, locked_until_ms=NOW))
            assert books.drop_stale(before_ms=NOW) == 4
            assert books.drop_stale(before_ms=NOW) == 0
            assert [books.session(bytes([i]) * 32) is None for i in (0, 1)] == [True, False]
            assert [c.purpose for c in books.codes(ann)] == ["1"]
            assert [books.attempts(s) is None for s in ("0", "1", "locked")] == [True, False, False]
            assert [books.answer(ann, k) is None for k in ("0", "1")] == [True, False]

    def test_answers(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            books.put_answer(answer(ann, "k"))
            done = answer(ann, "k", request_sha256=b"r" * 32, status=201, body='{"plan": 1}', at_ms=NOW + 1)
            books.put_answer(done)
            with pytest.raises(NotFound):
                books.put_answer(answer(99, "k"))
        with catalog.books() as books:
            assert books.answer(ann, "k") == done
            assert books.answer(bob, "k") is None
            assert books.answer(ann, "K") is None
