"""Registering, activating and updating an account: agreement 1.2, 2.1, 6.2.1, 6.5.2."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.agreement import closing, registration, standing, versions
from service.agreement.codes import ALPHABET, CODE_CHARS
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict, Forbidden, TooMany, Unprocessable
from service.agreement.proving import NEWCOMERS
from storage.errors import NotFound
from storage.rows.accounts import AccountState
from tests.service.agreement.office import CLIENT, EMAIL, MINUTE, MOBILE, Office, owner, refused


def test_an_account_is_registered_and_activated_with_the_code_sent_to_it(office: Office) -> None:
    row = office.register("Ada@Example.ORG", "+49 171 2345678")
    assert (row.state, row.email, row.mobile, row.kind) == (AccountState.NEW, None, None, "owner")
    assert {(n.channel, n.address) for n in office.notices(row.account)} == {
        ("email", EMAIL),
        ("mobile", MOBILE),
    }
    assert len({n.body for n in office.notices(row.account)}) == 2, "each its own code"
    active = registration.activate(
        office.desk, row.account, f" {office.code(row.account, channel='email')}\n"
    )
    assert (active.state, active.activated_ms) == (AccountState.ACTIVE, office.clock.ms)
    assert (active.email, active.mobile) == (EMAIL, None), "nobody has proved the mobile number yet"
    assert office.told(row.account) == ["registered", "activated"]
    with office.catalog.books() as books:
        assert [(a.version, a.how) for a in books.acceptances_of(row.account)] == [(1, "registered")]
        assert [code.address for code in books.codes(row.account)] == [MOBILE]
    code = office.code(row.account, channel="mobile")
    assert registration.confirm_address(office.desk, row.account, "mobile", code).mobile == MOBILE


def test_a_password_is_kept_as_argon2id_only(office: Office) -> None:
    row = office.row(office.register().account)
    assert row.password_hash.startswith("$argon2id$")


def test_the_parameters_of_a_real_desk_are_those_of_rfc_9106(office: Office) -> None:
    from argon2.profiles import RFC_9106_LOW_MEMORY

    fields = type(office.desk).__dataclass_fields__
    assert fields["hashing"].default_factory() == RFC_9106_LOW_MEMORY  # type: ignore[misc]
    assert (RFC_9106_LOW_MEMORY.memory_cost, RFC_9106_LOW_MEMORY.time_cost) == (65_536, 3)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"email": None}, "no_address"),
        ({"email": "ada"}, "bad_email"),
        ({"email": "a\x00da@example.org"}, "bad_email"),
        ({"mobile": "0171 2345678"}, "bad_mobile"),
        ({"password": "too short"}, "bad_password"),
        ({"password": "x" * 1025}, "bad_password"),
        ({"password": "lone \ud800 surrogate"}, "bad_password"),
        ({"name": "Ada\nLovelace"}, "bad_text"),
        ({"name": "A" * 201}, "bad_text"),
        ({"accepts_version": 0}, "agreement_not_accepted"),
        ({"accepts_version": 2}, "agreement_not_accepted"),
    ],
)
def test_what_cannot_be_registered_is_refused_and_leaves_nothing(
    office: Office, fields: dict[str, object], code: str
) -> None:
    with refused(Unprocessable, code):
        office.register(**fields)  # type: ignore[arg-type]
    with office.catalog.books() as books:
        assert [row.account for row in books.accounts()] == [1]
        assert not books.notices()


def test_the_current_version_must_be_accepted(office: Office) -> None:
    versions.publish(office.desk, OPERATOR, "Another text.")
    with refused(Unprocessable, "agreement_not_accepted"):
        office.register()
    office.register(accepts_version=2)


@pytest.mark.parametrize("same", [{"email": "ADA@example.org"}, {"email": None, "mobile": MOBILE}])
def test_an_address_belongs_to_one_account(office: Office, same: dict[str, str | None]) -> None:
    office.active(EMAIL, MOBILE)
    with refused(Conflict, "address_taken"):
        office.register(**same, client=None)  # type: ignore[arg-type]


def test_registrations_of_a_client_are_limited_by_the_hour(office: Office) -> None:
    for number in range(office.desk.settings.registrations_per_h):
        office.register(f"a{number}@example.org")
    with refused(TooMany, "slow_down") as caught:
        office.register("one-more@example.org")
    assert caught.value.retry_after_s == 3600  # type: ignore[attr-defined]
    office.register("one-more@example.org", client="198.51.100.1")
    office.later(hours=1)
    office.register("and-another@example.org")


def test_refused_registrations_count_too(office: Office) -> None:
    for _ in range(office.desk.settings.registrations_per_h):
        with refused(Unprocessable, "agreement_not_accepted"):
            office.register(accepts_version=2)
    with refused(TooMany, "slow_down"):
        office.register()


# --- codes --------------------------------------------------------------------------------------------------------


def test_wrong_guesses_of_strangers_void_no_code(office: Office) -> None:
    """Five wrong ones used up a code, whoever sent them: a stranger could keep any chosen customer out."""
    account = office.register().account
    code = office.code(account)
    for number in range(100):
        with refused(Unprocessable, "wrong_code"):
            registration.activate(office.desk, account, "K7QM-2X9R-TBD4", f"198.51.100.{number}")
    registration.activate(office.desk, account, code, CLIENT)


def test_a_client_that_guesses_is_slowed_down_and_who_shares_its_address_is_not(office: Office) -> None:
    account = office.register().account
    for _ in range(office.desk.settings.login_failures_per_client + 1):
        with refused(Unprocessable, "wrong_code"):
            registration.activate(office.desk, account, "x", CLIENT)
    with refused(TooMany, "slow_down"):
        registration.activate(office.desk, account, "x", CLIENT)
    registration.activate(office.desk, account, office.code(account), CLIENT)


def test_a_code_has_sixty_bits(office: Office) -> None:
    assert len(ALPHABET) ** CODE_CHARS == 2**60
    accounts = [office.register(f"a{n}@example.org", client=f"198.51.100.{n}").account for n in range(50)]
    codes = [office.code(account).replace("-", "") for account in accounts]
    assert len(set(codes)) == 50
    assert {len(code) for code in codes} == {CODE_CHARS}
    assert set("".join(codes)) == set(ALPHABET)


@pytest.mark.parametrize(
    "change", [str.lower, lambda code: code.replace("-", " "), lambda code: f"\n{code}\t"]
)
def test_a_code_is_read_as_people_write_it(office: Office, change: Callable[[str], str]) -> None:
    account = office.register().account
    code = office.code(account).replace("1", "l").replace("0", "O")
    registration.activate(office.desk, account, change(code), CLIENT)


def test_activations_that_end_well_do_not_count(office: Office) -> None:
    for number in range(office.desk.settings.login_failures_per_client + 1):
        account = office.register(f"a{number}@example.org", client=f"198.51.100.{number}").account
        registration.activate(office.desk, account, office.code(account), CLIENT)


@pytest.mark.parametrize("text", ["", "a" * 100_000, "\ud800", "１２３４５６７８"])
def test_whatever_is_sent_as_a_code_is_just_wrong(office: Office, text: str) -> None:
    account = office.register().account
    with refused(Unprocessable, "wrong_code"):
        registration.activate(office.desk, account, text)


def test_a_code_is_good_for_half_an_hour(office: Office) -> None:
    account = office.register().account
    code = office.code(account)
    office.clock.ms += 30 * MINUTE
    with refused(Unprocessable, "wrong_code"):
        registration.activate(office.desk, account, code)
    office.clock.ms -= 1
    registration.activate(office.desk, account, code)


def test_asking_again_sends_the_same_code_while_it_is_good(office: Office) -> None:
    """A new one would void the one that its owner is just typing, and a stranger can ask."""
    account = office.register().account
    first = office.code(account)
    office.clock.ms += 29 * MINUTE
    registration.resend_code(office.desk, account, CLIENT)
    assert office.code(account) == first
    assert len(office.notices(account)) == 2
    office.clock.ms += 29 * MINUTE  # good for half an hour from the last notice on
    registration.activate(office.desk, account, first)


def test_a_code_that_has_ended_is_not_sent_again(office: Office) -> None:
    account = office.register().account
    first = office.code(account)
    office.clock.ms += 30 * MINUTE
    registration.resend_code(office.desk, account, CLIENT)
    assert office.code(account) != first
    with refused(Unprocessable, "wrong_code"):
        registration.activate(office.desk, account, first)
    registration.activate(office.desk, account, office.code(account))


def test_strangers_who_ask_for_codes_keep_none_from_their_owner(office: Office) -> None:
    """Six resends used up an hour's, and its owner was refused."""
    account = office.register(client="198.51.100.1").account
    for minute in range(180):
        for number in range(3):
            registration.resend_code(office.desk, account, f"198.51.100.{number + minute % 80 * 3}")
        if minute % 10 == 7:
            registration.resend_code(office.desk, account, CLIENT)
            newest = office.notices(account)[-1]
            assert office.clock.ms - newest.created_ms < 10 * MINUTE, "its owner has one that is good"
        office.clock.ms += MINUTE
    assert len(office.notices(account)) <= 18, "six an hour"
    registration.activate(office.desk, account, office.code(account), CLIENT)


def test_an_operator_has_a_code_sent_at_once(office: Office) -> None:
    account = office.register().account
    registration.resend_code(office.desk, account, CLIENT)
    assert len(office.notices(account)) == 1, "it was sent just now"
    registration.resend_code(office.desk, account, None)
    assert len(office.notices(account)) == 2


def test_a_client_has_half_of_what_an_address_is_sent(office: Office) -> None:
    """By many accounts: one client could keep the owner of an address from registering."""
    for _ in range(office.desk.settings.codes_per_address_h // 2):
        office.register()
    with refused(TooMany, "slow_down"):
        office.register()
    office.register(client="198.51.100.1")


def test_an_address_is_sent_a_bounded_number_of_codes(office: Office) -> None:
    bound = office.desk.settings.codes_per_address_h * NEWCOMERS
    for number in range(bound):
        office.register(client=f"198.51.100.{number}")
    with refused(TooMany, "slow_down"):
        office.register(client="198.51.100.99")
    assert len(office.notices(None, "activate")) == bound
    row = office.active("b@example.org")
    with refused(TooMany, "slow_down"):
        registration.update(office.desk, owner(row), row.account, email=EMAIL, name="x")
    assert office.row(row.account).name == "Ada", "a refused update changes nothing"
    office.later(hours=1)
    office.register()


def test_an_owner_gets_no_end_of_codes_to_ever_other_addresses(office: Office) -> None:
    row = office.active()
    for number in range(office.desk.settings.registrations_per_h):
        registration.update(office.desk, owner(row), row.account, email=f"n{number}@example.org")
    with refused(TooMany, "slow_down"):
        registration.update(office.desk, owner(row), row.account, email="one-more@example.org")


def test_a_code_of_one_account_opens_no_other(office: Office) -> None:
    mine, other = office.register().account, office.register("b@example.org").account
    with refused(Unprocessable, "wrong_code"):
        registration.activate(office.desk, other, office.code(mine))


def test_an_active_account_is_not_activated_again(office: Office) -> None:
    account = office.active().account
    with refused(Conflict, "already_activated"):
        registration.activate(office.desk, account, "12345678")
    with refused(Conflict, "already_activated"):
        registration.resend_code(office.desk, account, CLIENT)


@pytest.mark.parametrize("account", [0, 999])
def test_an_account_that_is_not_there(office: Office, account: int) -> None:
    with refused(NotFound, "not_found"):
        registration.activate(office.desk, account, "12345678")


# --- updates ------------------------------------------------------------------------------------------------------


def test_a_new_address_is_bound_when_its_code_comes_back(office: Office) -> None:
    row = office.active()
    registration.update(office.desk, owner(row), row.account, email="New@example.org", name="Ada L.")
    assert office.row(row.account).email == EMAIL, "not yet"
    assert office.notices(row.account, "email")[0].address == "new@example.org"
    code = office.code(row.account, "email")
    bound = registration.confirm_address(office.desk, row.account, "email", code)
    assert (bound.email, bound.name) == ("new@example.org", "Ada L.")
    assert office.notices(row.account, "address_changed")[0].address == EMAIL, "the old one is told"
    changes = [event.facts for event in office.events(row.account) if event.what == "updated"]
    assert changes == [{"changed": "name"}, {"changed": "email"}]
    assert "example.org" not in str(office.events(row.account)), "history has no address"
    office.register(EMAIL)  # the old one is free


def test_an_address_is_removed_when_another_one_stays(office: Office) -> None:
    row = office.active(EMAIL, MOBILE)
    assert registration.update(office.desk, owner(row), row.account, mobile="").mobile is None
    with refused(Unprocessable, "no_address"):
        registration.update(office.desk, owner(row), row.account, email="")
    assert office.row(row.account).email == EMAIL


def test_an_update_that_changes_nothing_tells_nothing(office: Office) -> None:
    row = office.active()
    told = office.told(row.account)
    registration.update(office.desk, owner(row), row.account, email=EMAIL, name="Ada", mobile="")
    assert office.told(row.account) == told


def test_an_address_that_was_taken_meanwhile_is_not_bound(office: Office) -> None:
    row, other = office.active(), office.register("new@example.org")
    registration.update(office.desk, owner(row), row.account, email="new@example.org")
    registration.activate(office.desk, other.account, office.code(other.account))
    with refused(Conflict, "address_taken"):  # told to who has proved it
        registration.confirm_address(office.desk, row.account, "email", office.code(row.account, "email"))
    assert office.row(row.account).email == EMAIL


def test_an_address_of_another_account_is_refused_and_only_an_operator_told(office: Office) -> None:
    office.active("b@example.org")
    row = office.active()
    with refused(Conflict, "address_taken"):
        registration.update(office.desk, OPERATOR, row.account, email="b@example.org")
    assert registration.update(office.desk, owner(row), row.account, email="b@example.org").email == EMAIL
    assert not office.notices(row.account, "email"), "no code"


@pytest.mark.parametrize("kind", ["fax", "", "mobile"])
def test_a_code_of_no_such_address(office: Office, kind: str) -> None:
    row = office.active()
    with refused(Unprocessable, "wrong_code" if kind == "mobile" else "bad_address_kind"):
        registration.confirm_address(office.desk, row.account, kind, "12345678")


def test_other_peoples_accounts_are_not_found(office: Office) -> None:
    mine, other = office.active(), office.active("b@example.org")
    for account in (other.account, 1, 999):
        with refused(NotFound, "not_found"):
            registration.update(office.desk, owner(mine), account, name="x")


def test_the_operators_account_is_not_updated(office: Office) -> None:
    with refused(NotFound, "not_found"):
        registration.update(office.desk, OPERATOR, 1, email=EMAIL)


def test_addresses_stay_while_a_cancellation_is_requested(office: Office) -> None:
    row = office.old_enough()
    closing.request(office.desk, owner(row), row.account, "")
    for actor in (owner(row), OPERATOR):
        with refused(Conflict, "account_closing"):
            registration.update(office.desk, actor, row.account, mobile=MOBILE)
    assert registration.update(office.desk, owner(row), row.account, name="Ada K.").name == "Ada K."


def test_operators_correct_what_a_suspended_owner_cannot(office: Office) -> None:
    row = office.active()
    standing.suspend(office.desk, OPERATOR, row.account, "the address is false")
    with refused(Forbidden, "account_suspended"):
        registration.update(office.desk, owner(row), row.account, mobile=MOBILE)
    registration.update(office.desk, OPERATOR, row.account, mobile=MOBILE)
    code = office.code(row.account, "mobile")
    bound = registration.confirm_address(office.desk, row.account, "mobile", code, actor=OPERATOR)
    assert bound.mobile == MOBILE
