"""The commands for those who run accounts: account, accounts, notices, agreement, operator-token; owners' devices."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.agreement import closing, sessions
from service.agreement.desk import OPERATOR
from service.folder import create_folder, open_folder
from service.metrics import render
from storage.contracts.blocks import writing_books
from storage.days import MS_PER_DAY
from storage.rows.accounts import AccountRow, AccountState, NoticeRow, NoticeState
from tests.retention.world import fast_folder
from tests.servers.catalogs import empty_address
from tests.service.test_cli import CLIPKEEP, Done, Run, data, installed, made, run

__all__ = ["data", "made", "run"]

ADA, MOBILE = "ada@example.org", "+491712345678"
Go = Callable[..., Any]


@pytest.fixture
def go(run: Run, made: Path) -> Go:
    """Run a command that must be done; its document."""

    def one(*words: object, code: int = 0) -> Any:
        done = run(*words, "--data", made, "--json")
        assert done.code == code, done
        return done.document

    return one


@pytest.fixture
def said(run: Run, made: Path) -> Callable[..., str]:
    """Run a command that must be done; what a person reads."""

    def one(*words: object) -> str:
        done = run(*words, "--data", made)
        assert done.code == 0, done
        return done.out

    return one


@pytest.fixture
def refused(run: Run, made: Path) -> Callable[..., str]:
    """Run a command that must be refused; the code."""
    return lambda *words: run(*words, "--data", made, "--json").error


def code_in(made: Path, subject: str = "code") -> str:
    """In the newest notice that has one, as its owner reads it."""
    for path in sorted((made / "notices").iterdir(), reverse=True):
        found = re.search(rf"{subject}[a-z ]*: ([0-9A-Z-]{{14}})\n", path.read_text())
        if found:
            return found[1]
    raise AssertionError("no notice with a code")


def codes_in(made: Path) -> list[str]:
    """In all notices, the oldest first."""
    texts = [path.read_text() for path in sorted((made / "notices").iterdir())]
    return [code for text in texts for code in re.findall(r"code[a-z ]*: ([0-9A-Z-]{14})\n", text)]


def registered(go: Go, made: Path, *words: object) -> int:
    """An account that was activated with the code that came; a mobile number is proved by its own."""
    account = int(go("account", "add", "--email", ADA, "--accepts", 1, *words)["account"])
    go("notices", "send")
    first, *others = codes_in(made)
    assert go("account", "activate", "--account", account, "--code", first)["state"] == "active"
    for code in others:
        confirm = ("account", "confirm", "--account", account, "--kind", "mobile", "--code", code)
        assert go(*confirm)["mobile"] == MOBILE
    return account


def many(made: Path, count: int) -> None:
    """Active accounts, made without hashing a password each."""
    with open_folder(made) as opened, writing_books(opened.catalog, now_ms=1, new_accounts=count) as books:
        for number in range(count):
            email = f"n{number}@example.org"
            books.add_account(
                AccountRow(0, "owner", "N", 1, AccountState.ACTIVE, email=email, activated_ms=1)
            )


# --- a life -------------------------------------------------------------------------------------------------------


def test_from_registration_to_the_end_and_the_address_again(
    go: Go, said: Callable[..., str], refused: Callable[..., str], run: Run, made: Path
) -> None:
    """6.2 to 6.5 by hand: the address is refused on day 9 and 10, and taken on day 11."""
    account = registered(go, made, "--mobile", MOBILE, "--name", "Ada")
    of = ("--account", account)
    assert go("device", "add", *of, "--plan", "trial")["device"] == 2
    request = ("account", "request", *of, "--reason", "letter of 3 May")

    blocked = run(*request, "--data", made, "--json").document
    assert blocked["error"] == "cancellation_blocked"
    assert [reason["code"] for reason in blocked["reasons"]] == ["too_young", "ongoing_subscription"]
    assert all(reason["what_to_do"] for reason in blocked["reasons"])
    told = run(*request, "--data", made).err.splitlines()
    assert [line[:4] for line in told] == ["clip", "  - ", "  - "]
    assert "too_young" in said("account", "show", *of)

    run("clock", "--advance", "14d", "--data", made)
    block = go("account", "block", *of, "--kind", "dispute", "--detail", "case 9")["block"]
    assert refused(*request) == "cancellation_blocked"
    assert "case 9" in said("account", "show", *of)
    assert "no other block" in said("account", "unblock", "--block", block)
    go(*request)
    assert refused("device", "add", *of) == "account_closing"
    assert [row["account"] for row in go("account", "list", "--closing", "requested")["accounts"]] == [
        account
    ]
    go("account", "withdraw", *of)
    go(*request)
    go("account", "reject", *of, "--reason", "it was not signed")
    go(*request)
    told = said("account", "approve", *of)
    assert "A notice goes to its email and its mobile" in told
    assert "1 device" in told
    assert refused("account", "withdraw", *of) == "already_approved"
    assert [row["account"] for row in go("account", "list", "--closing", "approved")["accounts"]] == [account]
    shown = go("account", "show", *of)
    assert [notice["channel"] for notice in shown["undelivered"]] == ["email", "mobile"]
    history = [event["what"] for event in go("account", "events", *of)["events"]]
    assert history[:2] == ["registered", "activated"]
    assert history[-1] == "closing_approved"

    sent = go("notices", "send")
    assert (sent["closed_accounts"], sent["failed"]) == (1, 0)
    left = go("account", "show", *of)
    assert (left["state"], left["email"], left["name"]) == ("cancelled", None, "")
    assert "Nothing else of it is left" in said("account", "show", *of)
    assert go("account", "events", *of)["events"] == go("account", "payments", *of)["payments"] == []
    assert go("device", "show", "--device", 2)["state"] == "terminated"

    add = ("account", "add", "--email", ADA, "--mobile", MOBILE, "--accepts", 1)
    for days in ("0d", "9d", "1d"):
        run("clock", "--advance", days, "--data", made)
        assert refused(*add) == "address_reserved"
    run("clock", "--advance", "1d", "--data", made)
    assert go(*add)["account"] == account + 1


def test_an_operator_cancels_and_is_told_what_happens(
    go: Go, said: Callable[..., str], refused: Callable[..., str], made: Path
) -> None:
    account = registered(go, made)
    of = ("--account", account)
    go("device", "add", *of, "--plan", "annual", "--count", 2)
    words = ("account", "cancel", *of, "--reason", "untrue data")
    ahead = go(*words, "--dry-run")
    assert ahead["closing"]["state"] == "none"
    assert (ahead["ahead"]["devices"], ahead["ahead"]["plans"]) == (2, 2)
    assert "Nothing was changed" in said(*words, "--dry-run")
    told = said(*words)
    assert "ended without a refund: 2 plans" in told
    assert "clipkeep notices send" in told
    assert refused(*words) == "already_approved"
    assert (
        "untrue data" in (made / "notices" / "placeholder").name
        or go("notices", "send")["closed_accounts"] == 1
    )
    [notice] = [p for p in (made / "notices").iterdir() if "untrue data" in p.read_text()]
    assert notice.suffix == ".eml"
    assert refused(*words) == "account_cancelled"


def test_a_failed_notice_is_seen_and_confirmed_by_hand(
    go: Go, said: Callable[..., str], refused: Callable[..., str], run: Run, made: Path
) -> None:
    """6.4: what could not be delivered keeps the cancellation waiting until an operator says that it arrived."""
    account = registered(go, made)
    go("account", "cancel", "--account", account, "--reason", "untrue data")
    with open_folder(made) as opened:
        desk = opened.desk
        [row] = closing.progress(desk, OPERATOR, account).waits_for
        said_by_server = "550 \x1b[2J no such mailbox"

        def fail(books: Any) -> None:
            books.put_notice(
                NoticeRow(
                    *(
                        row.notice_id,
                        row.account,
                        row.channel,
                        row.address,
                        row.purpose,
                        row.subject,
                        row.body,
                    ),
                    *(row.created_ms, NoticeState.FAILED, 1, 0, row.created_ms, said_by_server),
                )
            )

        desk.write(fail)
        text = render(opened.folder.run, opened.catalog, opened.clock, {}).decode()
    assert 'clipkeep_notices{state="failed"} 1.0' in text
    assert 'clipkeep_closings{state="approved"} 1.0' in text
    assert go("notices", "list", "--state", "failed")["notices"][0]["notice"] == row.notice_id
    table = said("notices", "list")
    assert "no such mailbox" in table
    assert "\x1b" not in table, "what a server says does not act on the terminal"
    assert go("notices", "list", "--state", "queued")["notices"] == []
    everything = go("notices", "list", "--state", "all", "--account", account)["notices"]
    assert {notice["state"] for notice in everything} == {"delivered", "failed"}
    assert go("notices", "list", "--state", "all", "--limit", 1, "--after", 1)["notices"] == everything[1:2]
    assert "is cancelled with it" in said("notices", "confirm", "--notice", row.notice_id)
    assert go("account", "show", "--account", account)["state"] == "cancelled"
    assert refused("notices", "confirm", "--notice", row.notice_id) == "not_found", "it went with the account"


def test_sending_fails_loudly_when_a_notice_is_refused(
    go: Go, run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPKEEP_NOTICES_MAX_ATTEMPTS", "1")
    go("account", "add", "--email", ADA, "--accepts", 1)
    (made / "notices").write_text("in the way")
    done = run("notices", "send", "--data", made, "--json")
    assert (done.code, done.document["failed"]) == (1, 1)
    assert "clipkeep notices list --state failed" in done.err


# --- people -------------------------------------------------------------------------------------------------------


def test_passwords_come_from_stdin_and_are_never_shown(
    go: Go, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("korrekt pferd ä\r\nnext line\n".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    account = registered(go, made, "--password-stdin")
    with open_folder(made) as opened:
        token, _ = sessions.log_in(opened.desk, ADA, "korrekt pferd ä", "here")
        assert sessions.who(opened.desk, token).account == account
    assert "pferd" not in str(go("account", "show", "--account", account))


@pytest.mark.parametrize(
    ("line", "code"), [(b"short\n", "bad_password"), (b"\xff\xfe not text at all\n", "bad_password")]
)
def test_bad_passwords(
    refused: Callable[..., str], go: Go, monkeypatch: pytest.MonkeyPatch, line: bytes, code: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert refused("account", "add", "--email", ADA, "--accepts", 1, "--password-stdin") == code
    assert len(go("account", "list")["accounts"]) == 1


def test_codes_are_sent_anew_and_passwords_reset(
    go: Go, said: Callable[..., str], refused: Callable[..., str], made: Path
) -> None:
    account = go("account", "add", "--email", ADA, "--accepts", 1)["account"]
    of = ("--account", account)
    go("notices", "send")
    old = code_in(made)
    assert "is on its way" in said("account", "send-code", *of)
    go("notices", "send")
    assert code_in(made) == old, "whoever has the first notice before him can use it"
    assert refused("account", "activate", *of, "--code", "1") == "wrong_code"
    go("account", "activate", *of, "--code", old)
    assert refused("account", "activate", *of, "--code", old) == "already_activated"
    assert refused("account", "send-code", *of) == "already_activated"
    go("account", "password-reset", *of)
    go("notices", "send")
    with open_folder(made) as opened:
        sessions.reset_password(opened.desk, ADA, code_in(made, "password"), "a new password", "here")
        assert sessions.log_in(opened.desk, ADA, "a new password", "here")


def test_an_operator_is_not_slowed_down(go: Go, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKEEP_AGREEMENT_REGISTRATIONS_PER_H", "1")
    for number in range(3):
        go("account", "add", "--email", f"n{number}@example.org", "--accepts", 1)
        go("account", "send-code", "--account", 2)
    events = go("account", "events", "--account", 2)["events"]
    assert [(event["what"], event["who"]) for event in events] == [
        ("registered", "operator"),
        *[("code_sent", "operator")] * 3,
    ]


def test_addresses_are_corrected_with_a_code(
    go: Go, said: Callable[..., str], refused: Callable[..., str], made: Path
) -> None:
    account = registered(go, made)
    of = ("--account", account)
    assert f"account confirm --account {account} --kind mobile" in said(
        "account", "update", *of, "--mobile", MOBILE
    )
    assert go("account", "show", *of)["mobile"] is None
    assert refused("account", "confirm", *of, "--kind", "mobile", "--code", "0") == "wrong_code"
    assert refused("account", "confirm", *of, "--kind", "fax", "--code", "0") == "bad_address_kind"
    go("notices", "send")
    code = code_in(made, "number")
    assert go("account", "confirm", *of, "--kind", "mobile", "--code", code)["mobile"] == MOBILE
    assert go("account", "update", *of, "--email", "")["email"] is None
    assert refused("account", "update", *of, "--mobile", "") == "no_address"
    assert refused("account", "update", *of) == "bad_usage"
    assert go("account", "update", *of, "--name", "Ada L.")["name"] == "Ada L."
    assert [r["account"] for r in go("account", "list", "--address", MOBILE)["accounts"]] == [account]
    assert go("account", "list", "--address", ADA)["accounts"] == []


def test_suspension_stops_the_devices_at_once(go: Go, said: Callable[..., str], made: Path) -> None:
    account = registered(go, made)
    go("device", "add", "--account", account, "--plan", "annual")
    assert "The owner is told" in said("account", "suspend", "--account", account, "--reason", "false data")
    shown = go("account", "show", "--account", account)
    assert (shown["suspend_reason"], shown["devices"][0]["state"]) == ("false data", "suspended")
    assert "suspended" in said("account", "list")
    go("account", "resume", "--account", account, "--reason", "corrected")
    assert go("account", "show", "--account", account)["devices"][0]["state"] == "recording"


def test_dormant_accounts_are_listed_and_only_on_demand_suspended(
    go: Go, said: Callable[..., str], run: Run, made: Path
) -> None:
    account = registered(go, made)
    assert go("accounts", "dormant")["accounts"] == []
    run("clock", "--advance", "366d", "--data", made)
    [found] = go("accounts", "dormant")["accounts"]
    assert (found["account"], found["suspended"]) == (account, False)
    assert "nothing was changed" in said("accounts", "dormant")
    assert go("account", "show", "--account", account)["suspended_ms"] is None
    assert go("accounts", "dormant", "--suspend")["suspended"] == [account]
    assert go("accounts", "dormant", "--suspend")["suspended"] == []
    assert "no account is dormant" in said("accounts", "dormant", "--suspend")
    assert go("accounts", "dormant")["accounts"][0]["suspended"]
    assert [n["purpose"] for n in go("notices", "list")["notices"]] == ["suspended"]


# --- devices ------------------------------------------------------------------------------------------------------


def test_devices_of_an_account_all_or_none(
    go: Go, refused: Callable[..., str], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7.1: one trial per account, ever."""
    account = registered(go, made)
    of = ("device", "add", "--account", account)
    assert refused(*of, "--count", 2, "--plan", "trial") == "trial_used"
    assert refused(*of, "--plan", "monthly", "--retention-days", 999) == "bad_retention_days"
    assert refused(*of, "--starts-on", "2020-01-01") == "bad_usage"
    assert len(go("device", "list")["devices"]) == 1, "nothing was added"
    added = go(*of, "--plan", "trial")
    assert go("device", "show", "--device", added["device"])["account"] == account
    assert refused(*of, "--plan", "trial") == "trial_used"
    monkeypatch.setenv("CLIPKEEP_AGREEMENT_MAX_DEVICES_PER_ACCOUNT", "3")
    assert refused(*of, "--count", 3) == "too_many_devices"
    assert [d["device"] for d in go(*of, "--count", 2)["devices"]] == [3, 4]
    assert refused("device", "add", "--account", 77) == "not_found"
    assert go("account", "show", "--account", account)["devices"][0]["state"] == "recording"


# --- announcements, the agreement, operators ----------------------------------------------------------------------


def test_an_announcement_reaches_each_account_once(
    go: Go, said: Callable[..., str], refused: Callable[..., str], made: Path, tmp_path: Path
) -> None:
    many(made, 250)
    text = tmp_path / "text"
    text.write_text("We are away on 3 May.\n\nSorry.")
    words = ("notices", "announce", "--subject", "Away", "--body-file", text)
    assert go(*words, "--dry-run")["active_accounts"] == 250
    assert go("notices", "list")["notices"] == []
    first = go(*words)
    assert (first["accounts"], go(*words)["accounts"]) == (250, 0)
    assert go(*words, "--reference", "another")["accounts"] == 250
    assert "500 delivered" in said("notices", "send")
    assert len(list((made / "notices").iterdir())) == 500
    text.write_bytes(b"\xff")
    assert refused(*words) == "bad_file"
    assert refused("notices", "announce", "--subject", "x", "--body-file", tmp_path / "absent") == "bad_file"


def test_progress_is_told_on_stderr(run: Run, made: Path) -> None:
    many(made, 150)
    done = run("notices", "announce", "--subject", "x", "--body", "y", "--data", made, "--json")
    assert '"phase": "accounts"' in done.err
    assert done.document["accounts"] == 150
    assert '"phase": "notices", "done": 150, "of": 150' in run("notices", "send", "--data", made).err
    assert run("notices", "send", "--limit", 5, "--data", made, "--json").document["delivered"] == 0


def test_ctrl_c_while_notices_go_out(go: Go, made: Path) -> None:
    """What was sent is noted, and the rest goes out later."""
    many(made, 400)
    go("notices", "announce", "--subject", "x", "--body", "y")
    folder = made / "notices"
    with subprocess.Popen(
        [CLIPKEEP, "notices", "send", "--data", made],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not (folder.exists() and any(folder.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (-signal.SIGINT, 130)
    written = len(list(folder.iterdir()))
    assert 0 < written < 400
    # One that was claimed is due again when the claim has run out.
    go("notices", "send")
    with open_folder(made) as opened:
        opened.clock.set_offset_ms(MS_PER_DAY)  # type: ignore[attr-defined]
    go("notices", "send")
    assert len(list(folder.glob("*.eml"))) == 400
    assert go("notices", "list")["notices"] == []


def test_versions_of_the_agreement(
    go: Go, said: Callable[..., str], refused: Callable[..., str], run: Run, made: Path, tmp_path: Path
) -> None:
    assert "Service Agreement" in said("agreement", "show")
    text = tmp_path / "new.txt"
    text.write_text("Another agreement.")
    publish = ("agreement", "publish", "--file", text)
    assert go(*publish)["version"] == 2
    assert not go(*publish)["new"]
    assert "in force already" in said(*publish)
    assert [row["version"] for row in go("agreement", "list")["versions"]] == [1, 2]
    assert "Service Agreement" in go("agreement", "show", "--version", 1)["text"]
    assert refused("agreement", "show", "--version", 3) == "not_found"
    done = run("account", "add", "--email", ADA, "--accepts", 1, "--data", made, "--json")
    assert done.error == "agreement_not_accepted"
    assert "clipkeep agreement show" in done.document["detail"]
    text.write_text(" \n")
    assert refused(*publish) == "bad_text"
    text.write_bytes(b"\xff\xfe")
    assert refused(*publish) == "bad_file"
    assert refused("agreement", "publish", "--file", tmp_path) == "bad_file"
    text.write_bytes(b"x" * 4_000_001)
    assert refused(*publish) == "bad_file"


def test_a_text_from_stdin(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Neue Bedingungen: ä".encode())))
    assert go("agreement", "publish", "--file", "-")["version"] == 2
    assert go("agreement", "show")["text"] == "Neue Bedingungen: ä"


def test_operators_tokens(go: Go, run: Run, made: Path) -> None:
    document = go("operator-token", "--hours", 2)
    done = run("operator-token", "--data", made)
    tokens = [document["token"], done.out.strip()]
    assert "not shown again" in done.err
    with open_folder(made) as opened:
        assert [sessions.who(opened.desk, token) for token in tokens] == [OPERATOR, OPERATOR]
        assert abs(document["expires_ms"] - opened.clock.now_ms() - 2 * 3_600_000) < 120_000
    assert go("operator-token", "--revoke-all") == {"revoked": 2}
    with open_folder(made) as opened, pytest.raises(sessions.Unauthorized):
        sessions.who(opened.desk, tokens[0])


# --- wrong use ----------------------------------------------------------------------------------------------------

ONE = "--account 1"
NOBODY = "--account 77"


@pytest.mark.parametrize(
    "words",
    [
        "account",
        "accounts",
        "notices",
        "agreement",
        "account frobnicate",
        "account add --email a@example.org",
        "account add --email a@example.org --accepts 0",
        "account add --email a@example.org --accepts one",
        "account show",
        "account show --account 0",
        "account show --account -1",
        "account show --account 99999999999999999999",
        "account list --state gone",
        "account list --limit 0",
        "account suspend --account 2",
        "account suspend --account 2 --reason=",
        f"account cancel --account 2 --reason {'x' * 501}",
        "account cancel --account 2",
        "account block --account 2 --kind feud",
        "account unblock --block 0",
        "notices confirm",
        "notices confirm --notice x",
        "notices list --state lost",
        "notices send --limit 0",
        "notices announce --subject x",
        "notices announce --subject x --body y --body-file z",
        "agreement publish",
        "agreement show --version 0",
        "operator-token --hours 0",
        "operator-token --hours 99999",
        "device add --account 0",
    ],
)
def test_wrong_usage_is_a_message(run: Run, data: Path, words: str) -> None:
    done = run(*words.split(), *(["--data", data] if " --" in words else []))
    assert done.code == 2
    assert "Usage:" in done.out + done.err
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *(
            (f"account {verb} {NOBODY}", "not_found")
            for verb in ("show", "events", "payments", "withdraw", "approve")
        ),
        *((f"account {verb} {NOBODY}", "not_found") for verb in ("send-code", "password-reset")),
        *(
            (f"account {verb} {NOBODY} --reason x", "not_found")
            for verb in ("suspend", "resume", "cancel", "request")
        ),
        (f"account reject {NOBODY} --reason x", "not_found"),
        (f"account activate {NOBODY} --code 1", "not_found"),
        (f"account update {NOBODY} --name x", "not_found"),
        (f"account block {NOBODY} --kind other", "not_found"),
        (f"account show --account {(1 << 63) - 1}", "not_found"),
        ("account unblock --block 77", "not_found"),
        ("notices confirm --notice 77", "not_found"),
        (f"account suspend {ONE} --reason x", "operator_account"),
        (f"account cancel {ONE} --reason x", "operator_account"),
        (f"account cancel {ONE} --reason x --dry-run", "operator_account"),
        (f"account request {ONE} --reason x", "operator_account"),
        (f"account resume {ONE} --reason x", "not_suspended"),
        (f"account approve {ONE}", "not_requested"),
        (f"account reject {ONE} --reason x", "not_requested"),
        (f"account password-reset {ONE}", "not_found"),
        (f"account update {ONE} --name x", "not_found"),
        (f"account activate {ONE} --code x", "already_activated"),
        ("account add --accepts 1", "no_address"),
        ("account add --email nobody --accepts 1", "bad_email"),
        ("account add --email a@example.org --mobile 123 --accepts 1", "bad_mobile"),
        ("account add --email a@example.org --accepts 2", "agreement_not_accepted"),
        ("account add --email a@example.org --accepts 1 --name \x1b[2J", "bad_text"),
        ("account list --closing none", "bad_usage"),
        ("account list --closing requested --state new", "bad_usage"),
        ("account suspend --account 1 --reason \x00", "bad_text"),
        ("notices announce --subject \x07 --body x", "bad_text"),
        (f"notices announce --subject {'x' * 201} --body x", "bad_text"),
        ("agreement publish --file /proc/no/such", "bad_file"),
    ],
)
def test_what_cannot_be_done_has_a_code(run: Run, untouched: Path, words: str, code: str) -> None:
    before = on_file(untouched)
    assert run(*words.split(" "), "--data", untouched, "--json").error == code
    assert on_file(untouched) == before


@pytest.fixture(scope="module")
def untouched() -> Iterator[Path]:
    """A data folder in which nothing may change."""
    with fast_folder() as folder:
        create_folder(
            folder / "data",
            store_url=None,
            test_clock=True,
            environ={},
            catalog_address=empty_address(folder / "data"),
        )
        yield folder / "data"


def on_file(folder: Path) -> list[Any]:
    with open_folder(folder) as opened, opened.catalog.books() as books:
        return [books.accounts(), books.events_of(1), books.notices(), books.agreements(), books.blocks_of(1)]


def test_hours_that_are_no_number(run: Run, made: Path) -> None:
    """By Typer in newer releases, by us where it passes."""
    assert run("operator-token", "--hours", "nan", "--data", made).code in (1, 2)


def test_what_is_not_utf8_is_refused_as_a_whole(made: Path) -> None:
    no_text = os.fsdecode(b"\xff")
    for words in (
        ["account", "suspend", "--account", "1", "--reason", no_text],
        ["notices", "announce", "--subject", no_text, "--body", "x"],
    ):
        done: Done = installed(*words, "--data", made, "--json")
        assert done.error == "bad_usage"
        assert "Traceback" not in done.err
