"""Log-in, tokens, slow-down and new passwords: agreement 1.2, 2.2, and 11.2 for what a log-in accepts."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from argon2 import Type, extract_parameters
from argon2.profiles import CHEAPEST

from retention.tokens import check_device_token
from service.agreement import devices, registration, sessions, standing, versions
from service.agreement.desk import OPERATOR, Actor
from service.agreement.errors import Forbidden, TooMany, Unauthorized, Unprocessable
from service.playback import Gate, Refused, Viewer
from service.playback.used import Used
from storage.errors import CallerError, NotFound
from tests.retention.world import HOUR, TODAY
from tests.service.agreement.office import CLIENT, EMAIL, MOBILE, PASSWORD, Office, owner, refused

ELSEWHERE = "198.51.100.7"
WRONG = "wrong horse battery"


def test_a_log_in_by_number_email_or_mobile_gives_a_token(office: Office) -> None:
    row = office.active(EMAIL, MOBILE)
    for login in (str(row.account), "ADA@example.org", "+49 171 234 56 78"):
        token, session = sessions.log_in(office.desk, login, PASSWORD, CLIENT)
        assert token.startswith("cka_")
        assert len(token) == 47
        assert sessions.who(office.desk, token) == Actor("owner", row.account)
        assert session.expires_ms == office.clock.ms + 720 * HOUR
        assert token.encode() not in session.token_hash


def test_a_token_ends_with_its_time_with_log_out_and_with_a_new_password(office: Office) -> None:
    row = office.active()
    first, second = office.log_in(), office.log_in()
    sessions.log_out(office.desk, first)
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, first)
    with refused(Unauthorized, "session_ended"):
        sessions.log_out(office.desk, first)
    assert sessions.who(office.desk, second) == owner(row)
    office.later(hours=720)
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, second)
    third = office.log_in()
    sessions.change_password(office.desk, owner(row), row.account, PASSWORD, "another password", CLIENT)
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, third)
    with refused(Unauthorized, "bad_credentials"):
        office.log_in()
    office.log_in(password="another password")
    assert office.told(row.account)[-1] == "password_changed"
    assert office.notices(row.account, "password_changed")


def test_viewer_tokens_end_with_a_new_password_and_cameras_tokens_do_not(office: Office) -> None:
    row = office.active()
    gate = Gate(office.bitmap, office.clock, office.vault.token_secret, Used())
    mine, others = office.device(row.account), office.device(office.active("bob@example.org").account)
    camera = devices.token(office.desk, owner(row), mine)

    def tokens() -> list[Viewer]:
        by_owner = devices.viewer_token(office.desk, owner(row), mine, hours=8760)[0]
        by_operator = devices.viewer_token(office.desk, OPERATOR, mine, hours=8760)[0]
        return [Viewer(mine, by_owner), Viewer(mine, by_operator)]

    def let_in(viewer: Viewer) -> bool:
        with suppress(Refused):
            return gate.ask(viewer).device == viewer.device
        return False

    neighbour = Viewer(others, devices.viewer_token(office.desk, OPERATOR, others)[0])
    first = tokens()
    sessions.change_password(office.desk, owner(row), row.account, PASSWORD, "another password", CLIENT)
    second = tokens()
    assert [*map(let_in, (*first, *second, neighbour))] == [False, False, True, True, True]
    sessions.request_reset(office.desk, EMAIL, CLIENT)
    code = office.code(row.account, "password")
    with refused(Unprocessable, "wrong_code"):
        sessions.reset_password(office.desk, EMAIL, "00000000", PASSWORD, CLIENT)
    assert [*map(let_in, second)] == [True, True]
    sessions.reset_password(office.desk, EMAIL, code, PASSWORD, CLIENT)
    assert [*map(let_in, (*first, *second, *tokens(), neighbour))] == [*[False] * 4, *[True] * 3]
    assert devices.token(office.desk, owner(row), mine) == camera
    generation = office.bitmap.probe(mine, TODAY, TODAY)[2]
    assert check_device_token(office.vault.token_secret, mine, generation, camera)


def test_viewer_generations_come_round(office: Office) -> None:
    row = office.active()
    device = office.device(row.account)
    office.entitlements.change(device, lambda f: replace(f, viewer_generation=2**16 - 1), what="test")
    office.desk.change(lambda books: devices.end_viewer_tokens(books, row.account))
    assert office.catalog.device(device).viewer_generation == office.bitmap.viewer_generation(device) == 0


@pytest.mark.parametrize(
    "token", ["", "cka_", "cka_" + "A" * 43, "cko_" + "A" * 43, "cka_" + "é" * 43, "x" * 10**5]
)
def test_a_token_that_never_was(office: Office, token: str) -> None:
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, token)


@pytest.mark.parametrize(
    "login", ["", "1", "0", "999", "b@example.org", "+4915100000", "\ud800", "9" * 10_000, "@"]
)
def test_who_has_no_account_is_told_the_same_as_who_has_a_wrong_password(office: Office, login: str) -> None:
    office.active()
    with refused(Unauthorized, "bad_credentials") as unknown:
        office.log_in(login)
    with refused(Unauthorized, "bad_credentials") as wrong:
        office.log_in(password=WRONG)
    assert str(unknown.value) == str(wrong.value)


def test_an_unknown_account_costs_as_much_hashing_as_a_known_one(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted instead of timed: one Argon2 run each, with the same parameters."""
    runs: list[str] = []
    from argon2 import PasswordHasher

    for name in ("hash", "verify"):
        real = getattr(PasswordHasher, name)

        def counted(self: PasswordHasher, *args: object, real: object = real, name: str = name) -> object:
            runs.append(name)
            return real(self, *args)  # type: ignore[operator]

        monkeypatch.setattr(PasswordHasher, name, counted)
    office.active()
    runs.clear()
    with refused(Unauthorized, "bad_credentials"):
        office.log_in(password=WRONG)
    with refused(Unauthorized, "bad_credentials"):
        office.log_in("nobody@example.org")
    assert runs == ["verify", "hash"]


def test_who_is_not_activated_or_suspended_is_told_so_for_the_right_password_only(office: Office) -> None:
    account = office.register().account
    with refused(Forbidden, "not_activated"):
        office.log_in(str(account))
    with refused(Unauthorized, "bad_credentials"):  # the address is not its own yet: see proving
        office.log_in()
    registration.activate(office.desk, account, office.code(account))
    token = office.log_in()
    standing.suspend(office.desk, OPERATOR, account, "false data")
    for _ in range(10):  # the right password never slows anybody down
        with refused(Forbidden, "account_suspended"):
            office.log_in()
    with refused(Unauthorized, "bad_credentials"):
        office.log_in(password=WRONG)
    with refused(Forbidden, "account_suspended"):
        sessions.who(office.desk, token)
    standing.resume(office.desk, OPERATOR, account, "corrected")
    assert sessions.who(office.desk, token).account == account


def test_a_log_in_is_use_of_the_account_and_acceptance_of_what_is_current(office: Office) -> None:
    row = office.active()
    office.later(days=3)
    versions.publish(office.desk, OPERATOR, "Version two.")
    office.log_in()
    office.log_in()
    with office.catalog.books() as books:
        assert books.last_used_on(row.account) == office.desk.today()
        accepted = [(a.version, a.how, a.at_ms) for a in books.acceptances_of(row.account)]
    assert accepted == [
        (1, "registered", row.created_ms),
        (2, "deemed", office.clock.ms),
    ]


def test_a_hash_of_other_parameters_is_made_anew(office: Office) -> None:
    row = office.active()
    stronger = office.parts(hashing=replace(CHEAPEST, time_cost=2))
    sessions.log_in(stronger, EMAIL, PASSWORD, CLIENT)
    parameters = extract_parameters(office.row(row.account).password_hash)
    assert (parameters.time_cost, parameters.type) == (2, Type.ID)
    sessions.log_in(stronger, EMAIL, PASSWORD, CLIENT)


# --- slowing down -------------------------------------------------------------------------------------------------


def fail(office: Office, login: str = EMAIL, client: str = CLIENT) -> int:
    """Try a wrong password; the seconds to wait when it was not even looked at, else 0."""
    try:
        office.log_in(login, WRONG, client)
    except TooMany as error:
        return error.retry_after_s
    except Unauthorized:
        return 0
    raise AssertionError("a wrong password was taken")


@pytest.mark.parametrize("login", [EMAIL, "nobody@example.org"])
def test_failures_slow_down_per_account_from_whatever_client(office: Office, login: str) -> None:
    office.active()
    for number in range(6):  # 5 are free, the next begins a pause
        assert fail(office, login, f"198.51.100.{number}") == 0
    assert fail(office, login, ELSEWHERE) == 30
    office.later(seconds=29)
    assert fail(office, login, ELSEWHERE) == 1
    office.later(seconds=1)
    assert fail(office, login, ELSEWHERE) == 0, "the clock moved on"
    assert fail(office, login, ELSEWHERE) == 60, "twice as long"
    for _ in range(12):
        office.later(hours=1)
        fail(office, login, ELSEWHERE)
    assert fail(office, login, ELSEWHERE) == 3600, "never longer"


def test_the_right_password_waits_too_and_then_forgets(office: Office) -> None:
    office.active(EMAIL, MOBILE)
    for login in (EMAIL, MOBILE, "2") * 2:
        assert fail(office, login) == 0, "one count for all logins of an account"
    with refused(TooMany, "slow_down"):
        office.log_in()
    office.later(seconds=30)
    office.log_in()
    for _ in range(6):
        assert fail(office) == 0


def test_failures_slow_down_per_client_at_whatever_accounts(office: Office) -> None:
    office.active()
    for number in range(51):  # 50 are free
        assert fail(office, f"nobody{number}@example.org") == 0
    with refused(TooMany, "slow_down"):
        office.log_in()
    office.log_in(client=ELSEWHERE)
    office.later(seconds=30)
    office.log_in()
    assert fail(office, "nobody@example.org") == 0
    assert fail(office, "nobody2@example.org") == 60, "a success forgives itself, not the failures before"


def test_old_failures_are_forgotten_by_and_by(office: Office) -> None:
    office.active()
    for _ in range(6):
        fail(office)
    office.later(days=1)
    assert [fail(office) for _ in range(4)] == [0, 0, 0, 30], "half of six were left"


def test_many_at_once_are_no_way_around(office: Office) -> None:
    office.active()
    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(lambda number: fail(office, EMAIL, f"198.51.100.{number}"), range(40)))
    assert waits.count(0) == 6


def test_changing_the_password_is_slowed_down_as_a_log_in(office: Office) -> None:
    row = office.active()
    for _ in range(6):
        with refused(Unauthorized, "bad_credentials"):
            sessions.change_password(office.desk, owner(row), row.account, WRONG, "new password", CLIENT)
    with refused(TooMany, "slow_down"):
        sessions.change_password(office.desk, owner(row), row.account, PASSWORD, "new password", CLIENT)
    with refused(TooMany, "slow_down"):
        office.log_in()


def test_a_new_password_follows_the_rules_and_is_of_the_own_account(office: Office) -> None:
    row, other = office.active(), office.active("b@example.org")
    with refused(Unprocessable, "bad_password"):
        sessions.change_password(office.desk, owner(row), row.account, PASSWORD, "short", CLIENT)
    with refused(NotFound, "not_found"):
        sessions.change_password(office.desk, owner(row), other.account, PASSWORD, "a new password", CLIENT)
    office.log_in()


# --- a forgotten password -----------------------------------------------------------------------------------------


def test_a_forgotten_password_is_replaced_with_a_code(office: Office) -> None:
    row = office.active(EMAIL, MOBILE)
    token = office.log_in()
    for _ in range(6):
        fail(office)
    sessions.request_reset(office.desk, EMAIL, CLIENT)
    assert [n.address for n in office.notices(row.account, "password")] == [EMAIL]
    code = office.code(row.account, "password")
    sessions.reset_password(office.desk, EMAIL, code, "another password", CLIENT)
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, token)
    office.log_in(password="another password")  # and the failures before are forgotten
    with refused(Unprocessable, "wrong_code"):
        sessions.reset_password(office.desk, EMAIL, code, "a third password", CLIENT)
    assert office.told(row.account)[-1] == "password_changed"


def test_by_its_number_all_addresses_get_the_code(office: Office) -> None:
    row = office.active(EMAIL, MOBILE)
    sessions.request_reset(office.desk, str(row.account), CLIENT)
    assert {n.address for n in office.notices(row.account, "password")} == {EMAIL, MOBILE}


def test_nobody_learns_whether_there_is_an_account(office: Office) -> None:
    office.active()
    sessions.request_reset(office.desk, "nobody@example.org", CLIENT)
    with refused(Unprocessable, "wrong_code") as unknown:
        sessions.reset_password(office.desk, "nobody@example.org", "12345678", "another password", CLIENT)
    with refused(Unprocessable, "wrong_code") as known:
        sessions.reset_password(office.desk, EMAIL, "12345678", "another password", CLIENT)
    assert str(unknown.value) == str(known.value)


def test_a_suspended_owner_gets_no_new_password(office: Office) -> None:
    row = office.active()
    standing.suspend(office.desk, OPERATOR, row.account, "rules")
    sessions.request_reset(office.desk, EMAIL, CLIENT)
    assert not office.notices(row.account, "password")


def test_asking_for_password_codes_locks_nobody_out(office: Office) -> None:
    """A stranger's requests made the owner's wait for up to an hour, and voided the code that he had."""
    row = office.active(EMAIL, MOBILE)
    sessions.request_reset(office.desk, EMAIL, CLIENT)
    code = office.code(row.account, "password")
    for number in range(200):
        sessions.request_reset(office.desk, MOBILE, f"198.51.100.{number}")
        sessions.request_reset(office.desk, EMAIL, f"198.51.100.{number}")
        office.later(seconds=6)
    by_channel = Counter(n.channel for n in office.notices(row.account, "password"))
    assert by_channel == {"email": 2, "mobile": 2}, "one in ten minutes, each"
    sessions.reset_password(office.desk, EMAIL, code, "another password", CLIENT)


@pytest.mark.parametrize("login", [EMAIL, "nobody@example.org"])
def test_a_client_asks_for_few_password_codes(office: Office, login: str) -> None:
    office.active()
    for _ in range(office.desk.settings.login_failures_per_client + 1):
        sessions.request_reset(office.desk, login, CLIENT)
    with refused(TooMany, "slow_down"):
        sessions.request_reset(office.desk, login, CLIENT)


def test_strangers_who_guess_passwords_keep_the_owner_out_nowhere_he_was_before(office: Office) -> None:
    office.active()
    office.log_in()
    for number in range(50):
        office.clock.ms += 3_600_000
        with suppress(TooMany), pytest.raises(Unauthorized):
            office.log_in(password="a guess", client=f"198.51.100.{number}")
    with refused(TooMany, "slow_down"):
        office.log_in(client="198.51.100.250")  # unknown there: waits, or has a code sent
    office.log_in()


def test_guesses_from_where_the_owner_was_are_slowed_down_too(office: Office) -> None:
    office.active()
    office.log_in()
    for _ in range(office.desk.settings.login_failures + 1):
        with refused(Unauthorized, "bad_credentials"):
            office.log_in(password="a guess")
    with refused(TooMany, "slow_down"):
        office.log_in()


def test_a_wrong_password_code_costs_no_hash(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.active()
    sessions.request_reset(office.desk, EMAIL, CLIENT)
    monkeypatch.setattr(sessions, "hashed", lambda *args: pytest.fail("hashed"))
    with refused(Unprocessable, "wrong_code"):
        sessions.reset_password(office.desk, EMAIL, "1", PASSWORD, CLIENT)


def test_guessing_codes_is_slowed_down_per_client(office: Office) -> None:
    office.active()
    for number in range(51):
        with refused(Unprocessable, "wrong_code"):
            sessions.reset_password(office.desk, f"a{number}@example.org", "1", PASSWORD, CLIENT)
    with refused(TooMany, "slow_down"):
        sessions.reset_password(office.desk, EMAIL, "1", PASSWORD, CLIENT)


# --- operators ----------------------------------------------------------------------------------------------------


def test_nobody_logs_in_to_the_operators_account(office: Office) -> None:
    for password in ("", PASSWORD):
        with pytest.raises(CallerError):
            office.log_in("1", password)
