"""What operators do on an account's page: what a role may not do is refused and not offered, and money moves once."""

from __future__ import annotations

from threading import Thread

import pytest

from retention.operators import MAY, Act, OperatorRole
from service.agreement import closing, records
from service.agreement.desk import OPERATOR
from storage.days import MS_PER_DAY
from storage.rows.accounts import AccountState, ClosingState, PaymentKind, PaymentRow, PaymentState
from tests.service.api.office import Person, add_owner
from tests.service.api.server import Server
from tests.service.pages import people
from tests.service.pages.operators.test_pages import as_role
from tests.service.pages.visitor import Visitor
from tests.service.world import World


def home(person: Person) -> str:
    return f"/operator/accounts/{person.account}"


def events(server: Server, account: int) -> list[tuple[str, str, str]]:
    return [(e.what, e.operator, e.why) for e in records.events(server.desk, OPERATOR, account)]


@pytest.fixture
def asking(server: Server, world: World) -> Person:
    """An owner who has asked for the end of his account."""
    owner = add_owner(server)
    world.clock.ms += 40 * MS_PER_DAY
    owner = Person(server, owner.account, people.owner_token(server, "ada"))
    assert owner.ask("POST", f"{owner.home}/cancellation", {"reason": "moving"}).status == 202
    return owner


def test_an_end_is_approved_with_a_reason(server: Server, asking: Person) -> None:
    visitor = as_role(server, OperatorRole.SUPPORT, "sue")
    page = visitor.get(home(asking))
    assert "asked for the end" in page.html.text
    refused = visitor.fill(page, f"{home(asking)}/approve")
    assert refused.status == 422
    assert "Say why" in refused.html.text
    done = visitor.fill(page, f"{home(asking)}/approve", reason="he showed his passport")
    assert "The end was approved" in visitor.follow(done).html.text
    row = records.account(server.desk, OPERATOR, asking.account)
    assert row.closing is ClosingState.APPROVED
    assert ("closing_approved", "sue", "he showed his passport") in events(server, asking.account)


def test_an_end_is_rejected_and_the_owner_told(server: Server, asking: Person) -> None:
    visitor = as_role(server, OperatorRole.SUPPORT)
    done = visitor.fill(visitor.get(home(asking)), f"{home(asking)}/reject", reason="a dispute")
    assert "Nobody has asked for it" in visitor.follow(done).html.text
    assert records.account(server.desk, OPERATOR, asking.account).closing is ClosingState.NONE


def test_a_suspension_is_made_and_lifted(server: Server) -> None:
    owner = add_owner(server)
    visitor = as_role(server, OperatorRole.SUPPORT)
    done = visitor.fill(visitor.get(home(owner)), f"{home(owner)}/suspend", reason="false data")
    shown = visitor.follow(done)
    assert "Suspended" in shown.html.text
    assert "false data" in shown.html.text
    assert owner.ask("GET", owner.home).status == 403
    again = visitor.post(f"{home(owner)}/suspend", shown.form(f"{home(owner)}/lift").fields | {"reason": "x"})
    assert again.status == 409
    assert "already" in again.html.text.lower()
    visitor.fill(shown, f"{home(owner)}/lift", reason="it was right")
    assert owner.ask("GET", owner.home).status == 200


def test_an_account_is_closed_whatever_stands_in_its_way(server: Server) -> None:
    owner = add_owner(server)
    visitor = as_role(server, OperatorRole.ADMIN)
    page = visitor.get(home(owner))
    assert visitor.fill(page, f"{home(owner)}/close", reason="fraud").status == 422, "the box is not ticked"
    visitor.fill(page, f"{home(owner)}/close", reason="fraud", sure="1")
    assert records.account(server.desk, OPERATOR, owner.account).closing is ClosingState.APPROVED
    assert records.account(server.desk, OPERATOR, owner.account).state is AccountState.ACTIVE


def test_a_block_is_set_and_lifted(server: Server) -> None:
    owner = add_owner(server)
    visitor = as_role(server, OperatorRole.SUPPORT)
    done = visitor.fill(visitor.get(home(owner)), f"{home(owner)}/block", reason="court", kind="dispute")
    shown = visitor.follow(done)
    [block] = records.blocks(server.desk, OPERATOR, owner.account)
    lift = f"{home(owner)}/blocks/{block.block_id}/lift"
    other = add_owner(server, "bob")
    wrong = f"{home(other)}/blocks/{block.block_id}/lift"
    assert visitor.post(wrong, shown.form(lift).fields | {"reason": "x"}).status == 404
    visitor.fill(shown, lift, reason="settled")
    assert records.blocks(server.desk, OPERATOR, owner.account)[0].lifted_ms is not None


def test_a_camera_is_suspended_and_lifted(server: Server) -> None:
    owner = add_owner(server)
    device = owner.add_device()
    owner.buy(device)
    visitor = as_role(server, OperatorRole.SUPPORT)
    suspend, lift = (f"{home(owner)}/cameras/{device}/{what}" for what in ("suspend", "lift"))
    shown = visitor.follow(visitor.fill(visitor.get(home(owner)), suspend, reason="it films a neighbour"))
    assert owner.get(f"/v1/devices/{device}")["state"] == "suspended"
    other = add_owner(server, "bob")
    elsewhere = f"{home(other)}/cameras/{device}/lift"
    assert visitor.post(elsewhere, shown.form(lift).fields | {"reason": "x"}).status == 404
    visitor.fill(shown, lift, reason="turned away")
    assert owner.get(f"/v1/devices/{device}")["state"] == "recording"


def test_a_notice_that_failed_is_confirmed(server: Server, asking: Person) -> None:
    from dataclasses import replace

    from storage.rows.accounts import NoticeState

    closing.approve(server.desk, OPERATOR, asking.account)
    with server.desk.reading() as books:
        [notice] = books.notices(account=asking.account, purpose=closing.PURPOSE)
    failed = replace(notice, state=NoticeState.FAILED, error="no such box", settled_ms=server.desk.now_ms())
    server.desk.write(lambda books: books.put_notice(failed))
    visitor = as_role(server, OperatorRole.SUPPORT)
    listed = visitor.get("/operator/notices")
    assert "no such box" in listed.html.text
    assert f"{home(asking)}#notices" in listed.html.links
    form = f"{home(asking)}/notices/{notice.notice_id}/confirm"
    visitor.fill(visitor.get(home(asking)), form, reason="told by telephone")
    assert records.account(server.desk, OPERATOR, asking.account).state is AccountState.CANCELLED
    assert "nothing but its number is left" in visitor.get(home(asking)).html.text


# --- money ------------------------------------------------------------------------------------------------------------


def refunds(server: Server, account: int) -> list[PaymentRow]:
    found = records.payments(server.desk, OPERATOR, account)
    return [row for row in found if row.kind is not PaymentKind.CHARGE]


@pytest.fixture
def paying(server: Server) -> tuple[Person, str]:
    """An owner with a plan, and the address of its forms."""
    owner = add_owner(server)
    plan = owner.buy(owner.add_device())["subscription"]["subscription"]
    return owner, f"{home(owner)}/plans/{plan}"


def test_a_double_click_gives_money_back_once(server: Server, paying: tuple[Person, str]) -> None:
    owner, plan = paying
    visitor = as_role(server, OperatorRole.MONEY)
    form = visitor.get(home(owner)).form(f"{plan}/refund")
    fields = form.fields | {"amount": "1.50", "reason": "goodwill"}
    fields.pop("otherwise", None)
    clicks: list[int] = []
    threads = [
        Thread(target=lambda: clicks.append(visitor.post(form.action, fields).status)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 303 in clicks
    [refund] = refunds(server, owner.account)
    assert (refund.minor, refund.state, refund.why) == (150, PaymentState.DONE, "goodwill")
    other = visitor.post(form.action, fields | {"amount": "2"})
    assert other.status == 409, "one key is one refund"
    fresh = visitor.get(home(owner)).form(f"{plan}/refund").fields
    assert fresh["key"] != fields["key"]
    assert visitor.post(form.action, fields | {"key": fresh["key"]}).status == 303
    assert len(refunds(server, owner.account)) == 2


def test_a_credit_is_noted_once_and_taken_back(server: Server, paying: tuple[Person, str]) -> None:
    owner, plan = paying
    visitor = as_role(server, OperatorRole.MONEY)
    form = visitor.get(home(owner)).form(f"{plan}/credit")
    for _ in range(2):
        assert visitor.post(form.action, form.fields | {"amount": "1", "reason": "an outage"}).status == 303
    [credit] = refunds(server, owner.account)
    assert (credit.kind, credit.minor) == (PaymentKind.CREDIT, 100)
    back = f"{home(owner)}/payments/{credit.reference}/take-back"
    visitor.fill(visitor.get(home(owner)), back, reason="a typing error")
    assert refunds(server, owner.account)[0].state is PaymentState.TAKEN_BACK


@pytest.mark.parametrize("amount", ["", "0", "-1", "1.234", "1e3", "9" * 16, "100000", "ten", "1.5.0", "٣"])
def test_an_amount_that_is_none_moves_nothing(
    server: Server, paying: tuple[Person, str], amount: str
) -> None:
    owner, plan = paying
    visitor = as_role(server, OperatorRole.MONEY)
    refused = visitor.fill(visitor.get(home(owner)), f"{plan}/refund", amount=amount, reason="x")
    assert refused.status == 422, refused.html.text
    assert refunds(server, owner.account) == []


def test_a_plan_of_another_account_is_not_paid_back_here(server: Server, paying: tuple[Person, str]) -> None:
    owner, plan = paying
    other = add_owner(server, "bob")
    visitor = as_role(server, OperatorRole.MONEY)
    fields = visitor.get(home(owner)).form(f"{plan}/refund").fields | {"amount": "1", "reason": "x"}
    wrong = plan.replace(home(owner), home(other))
    assert visitor.post(f"{wrong}/refund", fields).status == 404
    assert visitor.post(f"{plan}/refund", fields | {"key": ""}).status == 422
    assert refunds(server, owner.account) == []


# --- roles ------------------------------------------------------------------------------------------------------------

DEEDS: dict[str, Act] = {
    "approve": Act.DECIDE,
    "reject": Act.DECIDE,
    "suspend": Act.DECIDE,
    "lift": Act.DECIDE,
    "close": Act.DESTROY,
    "block": Act.DECIDE,
    "blocks/1/lift": Act.DECIDE,
    "cameras/{device}/suspend": Act.DECIDE,
    "cameras/{device}/lift": Act.DECIDE,
    "notices/1/confirm": Act.CARE,
    "plans/{plan}/credit": Act.MONEY,
    "plans/{plan}/refund": Act.MONEY,
    "payments/x/retry": Act.MONEY,
    "payments/x/paid": Act.MONEY,
    "payments/x/take-back": Act.MONEY,
}
ELSEWHERE = {
    "/operator/sweep/run": Act.DESTROY,
    "/operator/errand/stop": Act.DESTROY,
    "/operator/erasures/1/verify": Act.DESTROY,
}


def forms(server: Server, owner: Person) -> dict[str, Act]:
    device = owner.add_device()
    plan = owner.buy(device)["subscription"]["subscription"]
    own = {f"{home(owner)}/{path.format(device=device, plan=plan)}": act for path, act in DEEDS.items()}
    return own | ELSEWHERE


def test_every_form_asks_for_the_role_and_is_offered_to_no_other(server: Server) -> None:
    owner = add_owner(server)
    addresses = forms(server, owner)
    for role in OperatorRole:
        visitor = as_role(server, role)
        page = visitor.get(home(owner))
        token = page.form("/log-out").fields["form"]
        lacking = {path for path, act in addresses.items() if act not in MAY[role]}
        assert lacking or role is OperatorRole.ADMIN
        offered = {form.action for form in page.html.forms}
        assert not offered & lacking, role
        assert offered & (set(addresses) - lacking) or role is OperatorRole.AUDITOR
        for path in lacking:
            refused = visitor.post(
                path, {"form": token, "reason": "x", "sure": "1", "amount": "1", "key": "k"}
            )
            assert refused.status == 403, (role, path)
            assert "Your role does not allow this" in refused.html.text
    assert refunds(server, owner.account) == []
    assert records.account(server.desk, OPERATOR, owner.account).suspended_ms is None


def test_every_form_needs_its_token_and_an_operator(server: Server) -> None:
    owner = add_owner(server)
    addresses = [*forms(server, owner), "/operator/sweep/plan"]
    visitor = as_role(server, OperatorRole.ADMIN)
    other, _ = people.owner(server, "bob")
    own_token = other.get("/agreement").form("/log-out").fields["form"]
    for path in addresses:
        assert visitor.post(path, {"reason": "x", "form": own_token}).status == 403, path
        assert other.post(path, {"reason": "x", "form": own_token}).status == 404, path
        assert Visitor(server).post(path, {"reason": "x"}).goes_to.startswith("/log-in")
    assert records.account(server.desk, OPERATOR, owner.account).suspended_ms is None
    assert server.api.errands.current is None
