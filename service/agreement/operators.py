"""Operators: who runs the service, by name and role; their tokens; and what each may do and must give a reason for.

What they do is in the history of the account that it is done to, with name and reason; what is of no owner's account
(operators, packages, the agreement, announcements) is in that of the operators' own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retention import operators as rules
from retention.operators import BUILT_IN, MAY, Act, OperatorRole, roles_for
from service.agreement.bearer import OPERATOR_PREFIX, new_token, token_hash
from service.agreement.desk import OPERATOR, Actor, Desk
from service.agreement.errors import Conflict, Forbidden, NotFound, Unauthorized, Unprocessable
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.operators import OperatorRow, OperatorTokenRow

MAX_NAME_CHARS = 60
MAX_HOURS = 24 * 366
MAX_TOKENS = 1000
"""Good at the same time, of all operators: so many fit into one look at all of them."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An operator and the tokens that are good now; `row` is None for the built-in one."""

    name: str
    role: OperatorRole
    row: OperatorRow | None
    tokens: tuple[OperatorTokenRow, ...]


def listed(desk: Desk, *, ended: bool = False) -> list[Listed]:
    """All operators, the built-in one first. `ended`: those too who may do nothing any more."""
    with desk.reading() as books:
        rows, good = books.operators(limit=rules.MAX_OPERATORS), _good(desk, books)

    def of(number: int | None) -> tuple[OperatorTokenRow, ...]:
        return tuple(token for token in good if token.operator == number)

    return [
        Listed(BUILT_IN, OperatorRole.ADMIN, None, of(None)),
        *(
            Listed(row.name, OperatorRole(row.role), row, of(row.operator))
            for row in rows
            if ended or row.ended_ms is None
        ),
    ]


def add(desk: Desk, actor: Actor, name: str, role: OperatorRole) -> OperatorRow:
    """A new operator, without a token.

    Raises:
        Conflict: `operator_exists`, `too_many_operators`; Unprocessable: `bad_text`.
    """
    actor.require_operator()
    name = one_line(name, "the name", MAX_NAME_CHARS)

    def work(books: Books) -> OperatorRow:
        there = books.operators(limit=rules.MAX_OPERATORS)
        row = books.add_operator(rules.added(there, name, role, now_ms=desk.now_ms()))
        _record(desk, books, actor, "operator_added", name, role=str(role))
        return row

    return desk.write(work)


def give_role(desk: Desk, actor: Actor, name: str, role: OperatorRole) -> OperatorRow:
    """Another role, from now on, for tokens that there are too. Raises NotFound; Conflict: `operator_ended`."""
    actor.require_operator()

    def work(books: Books) -> OperatorRow:
        row = _going_on(books, name)
        changed = replace(row, role=str(role))
        books.put_operator(changed)
        _record(desk, books, actor, "operator_role", name, role=str(role), before=row.role)
        return changed

    return desk.write(work)


def end(desk: Desk, actor: Actor, name: str) -> OperatorRow:
    """The operator may do nothing any more, and all tokens are void. The name stays taken: histories have it.

    Raises:
        NotFound; Conflict: `operator_ended`, `built_in_operator`.
    """
    actor.require_operator()
    if name == BUILT_IN:
        raise Conflict(
            "the built-in operator can't be ended: whoever may run commands on the data folder acts as it. Its"
            " tokens are ended by `clipkeep operator-token --revoke-all`",
            code="built_in_operator",
        )

    def work(books: Books) -> OperatorRow:
        row = rules.named(books.operators(limit=rules.MAX_OPERATORS), name)
        changed = rules.ended(row, now_ms=desk.now_ms())
        books.put_operator(changed)
        _end_tokens(desk, books, row.operator)
        _record(desk, books, actor, "operator_ended", name)
        return changed

    return desk.write(work)


def token(desk: Desk, actor: Actor, name: str, hours: float) -> tuple[str, OperatorTokenRow]:
    """A bearer token of an operator. Only its hash is kept.

    Raises:
        NotFound; Conflict: `operator_ended`, `too_many_tokens`; Unprocessable: `bad_hours`.
    """
    actor.require_operator()
    if not 0 < hours <= MAX_HOURS:
        raise Unprocessable(f"a token lasts up to {MAX_HOURS} hours", code="bad_hours")
    made = new_token(desk, OPERATOR_PREFIX)
    now_ms = desk.now_ms()

    def work(books: Books) -> OperatorTokenRow:
        number = None if name == BUILT_IN else _going_on(books, name).operator
        if len(_good(desk, books)) >= MAX_TOKENS:
            raise Conflict(
                f"{MAX_TOKENS} tokens are good already: `clipkeep operator revoke` ends one",
                code="too_many_tokens",
            )
        row = books.add_operator_token(
            OperatorTokenRow(0, token_hash(made), number, now_ms, now_ms + round(hours * 3_600_000))
        )
        _record(desk, books, actor, "operator_token", name, token=row.token_id, hours=hours)
        return row

    return made, desk.write(work)


def revoke(desk: Desk, actor: Actor, token_id: int) -> None:
    """End one token. Raises NotFound."""
    actor.require_operator()

    def work(books: Books) -> None:
        found = [row for row in _good(desk, books) if row.token_id == token_id]
        if not found or not books.end_operator_token(token_id):
            raise NotFound(
                "there is no such token; `clipkeep operator list` lists them", subject=f"token {token_id}"
            )
        number = found[0].operator
        name = BUILT_IN if number is None else books.operator(number).name
        _record(desk, books, actor, "operator_token_revoked", name, token=token_id)

    desk.write(work)


def revoke_all(desk: Desk, actor: Actor) -> int:
    """End all tokens of all operators. Returns how many."""
    actor.require_operator()

    def work(books: Books) -> int:
        count = _end_tokens(desk, books)
        _record(desk, books, actor, "operator_tokens_revoked", "", tokens=count)
        return count

    return desk.write(work)


def bearer_of(desk: Desk, books: Books, token: str) -> Actor:
    """The operator whose token it is.

    Raises:
        Unauthorized: `session_ended`.
    """
    row = books.operator_token(token_hash(token))
    if row is None or row.expires_ms <= desk.now_ms():
        raise Unauthorized(
            "this token has ended, was revoked or never was: `clipkeep operator token` makes another",
            code="session_ended",
        )
    if row.operator is None:
        return OPERATOR
    operator = books.operator(row.operator)
    if operator.ended_ms is not None:
        raise Unauthorized("this operator was ended, for good", code="session_ended")
    return _actor(operator)


def called(desk: Desk, name: str) -> Actor:
    """Whoever acts under a name at the command line.

    Raises:
        NotFound; Conflict: `operator_ended`.
    """
    if name == BUILT_IN:
        return OPERATOR
    with desk.reading() as books:
        return _actor(_going_on(books, name))


def for_act(actor: Actor, act: Act | None, reason: str, *, says_why: bool = False) -> Actor:
    """The operator, about to do something of this kind, with the reason that was given.

    The built-in operator may leave the reason out, as before operators had names.

    Args:
        act: None: something that no operator does.
        says_why: whether what is asked has a reason of its own.

    Raises:
        Forbidden: `role_lacks`.
        Unprocessable: `reason_needed`, `bad_text`.
    """
    if act is None or act not in MAY[actor.operator_role]:
        able = "no operator" if act is None else f"only {' and '.join(roles_for(act))}"
        raise Forbidden(f"the role {actor.operator_role} does not do this; {able} may", code="role_lacks")
    if act is Act.LOOK:
        return actor
    reason = one_line(reason, "the reason", least=0)
    if not reason and not says_why and actor.operator != BUILT_IN:
        raise Unprocessable(
            "say why: it is kept in the account's history with your name (over HTTP as the header"
            " Clipkeep-Reason, percent-encoded; of a command as --reason)",
            code="reason_needed",
        )
    return replace(actor, reason=reason)


def _actor(row: OperatorRow) -> Actor:
    return Actor("operator", operator=row.name, operator_role=OperatorRole(row.role))


def _going_on(books: Books, name: str) -> OperatorRow:
    row = rules.named(books.operators(limit=rules.MAX_OPERATORS), name)
    rules.require_going_on(row)
    return row


def _good(desk: Desk, books: Books) -> list[OperatorTokenRow]:
    """All tokens that are good now. Those that ran out stay for some days, any number of them."""
    return books.operator_tokens(limit=MAX_TOKENS, good_ms=desk.now_ms())


def _end_tokens(desk: Desk, books: Books, operator: int | None = None) -> int:
    """Those of one operator, or all. Returns how many."""
    found = _good(desk, books)
    ended = [row for row in found if operator is None or row.operator == operator]
    return sum(books.end_operator_token(row.token_id) for row in ended)


def _record(desk: Desk, books: Books, actor: Actor, what: str, name: str, **facts: object) -> None:
    about = {"operator": name} if name else {}
    desk.record(books, actor, OPERATOR_ACCOUNT, what, facts={**about, **facts})
