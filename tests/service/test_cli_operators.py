"""Commands and the names they act under: `--as`, what each role may run, `clipkeep operator`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retention.operators import MAY, Act, OperatorRole
from service.folder import open_folder
from service.rights import COMMANDS
from tests.service.test_cli import Run, commands, data, made, run

__all__ = ["data", "made", "run"]

WHY = "ticket 7"
GIVEN = {
    "--account": "2",
    "--accepts": "1",
    "--block": "1",
    "--clip": "1",
    "--body": "b",
    "--code": "x",
    "--detail": "d",
    "--device": "7",
    "--field": "name",
    "--from": "1",
    "--kind": "dispute",
    "--minor": "1",
    "--method": "m",
    "--name": "nobody",
    "--notice": "9",
    "--plan": "1",
    "--price": "USD=1",
    "--reason": WHY,
    "--reference": "r",
    "--retention-days": "7",
    "--role": "auditor",
    "--share": "1",
    "--subject": "s",
    "--to": "2",
    "--token": "9",
}
"""Options as each command needs them; what they name is not there, so that nothing else of it is done."""
OWN = {
    "account confirm": {"--kind": "email"},
    "account consent": {"--to": "advertisements"},
    "package add": {"--kind": "monthly"},
    "partners export": {"--to": "/nowhere/x"},
    "payments export": {"--from": "2026-01-01", "--through": "2026-01-31"},
    "plan start": {"--plan": "monthly"},
    "device add": {"--plan": "monthly"},
}
HOST = {
    "agreement list",
    "agreement show",
    "backup",
    "books check",
    "catalog copy",
    "catalog grant",
    "catalog migrate",
    "catalog rebuild",
    "catalog reopen",
    "check",
    "clock",
    "config",
    "corrections step",
    "demo",
    "device list",
    "erasure list",
    "erasure show",
    "erasure verify",
    "host invite",
    "host join",
    "hosts",
    "init",
    "keys backup",
    "keys forget-host",
    "keys rotate",
    "keys show",
    "notices send",
    "notices templates",
    "package list",
    "package show",
    "partners list",
    "plan prices",
    "privacy list",
    "privacy show",
    "renew",
    "restore",
    "schedule",
    "serve",
    "store accept",
    "store setup",
    "sweep",
    "sweeps",
}
"""Commands of whoever runs the host, which act in nobody's name."""


@pytest.fixture
def staff(run: Run, made: Path) -> Path:
    """A data folder with an operator of each role, named as the role."""
    for role in OperatorRole:
        assert run("operator", "add", "--name", role, "--role", role, "--data", made).code == 0
    return made


def words_of(name: str, text: Path) -> list[str]:
    """A command line that can be parsed."""
    found = name.split()
    for param in commands()[name].params:
        flag = next((option for option in param.opts if option.startswith("--")), None)
        if flag is None:
            found.append("monthly")
        elif flag == "--yes":
            found.append(flag)
        elif flag == "--file" or (flag == "--body-file" and param.required):
            found += [flag, str(text)]
        elif param.required or flag in ("--reason", "--body", "--name"):
            found += [flag, OWN.get(name, {}).get(flag) or GIVEN[flag]]
    return found


def test_every_command_takes_a_name_or_is_of_the_host() -> None:
    names = {name for name in commands() if not name.startswith("bench")}
    assert names == COMMANDS.keys() | HOST
    takes = {name for name, command in commands().items() if "as_" in {p.name for p in command.params}}
    assert takes == COMMANDS.keys()
    says_why = {name for name in takes if "reason" in {p.name for p in commands()[name].params}}
    assert {name for name, act in COMMANDS.items() if act is not Act.LOOK} <= says_why


@pytest.mark.parametrize("role", OperatorRole)
def test_a_role_may_run_what_the_table_says_and_nothing_else(
    run: Run, staff: Path, tmp_path: Path, role: OperatorRole
) -> None:
    text = tmp_path / "agreement.txt"
    text.write_text("New.")
    for name, act in COMMANDS.items():
        has_json = "json" in {param.name for param in commands()[name].params}
        done = run(*words_of(name, text), "--as", role, "--data", staff, *(("--json",) if has_json else ()))
        assert done.code in (0, 1), done
        lacks = done.code == 1 and "(role_lacks)" in done.err
        assert lacks is (act not in MAY[role]), (name, role, done)


def test_options_that_make_a_command_another_act(run: Run, staff: Path) -> None:
    by = ("--data", staff, "--json", "--reason", WHY, "--as")
    assert run("device", "add", *by, "support").code == 0
    assert run("device", "add", "--plan", "monthly", *by, "support").error == "role_lacks"
    assert run("accounts", "dormant", *by, "auditor").code == 0
    assert run("accounts", "dormant", "--suspend", *by, "auditor").error == "role_lacks"


def test_without_a_reason_a_name_is_refused_and_nothing_is_done(run: Run, staff: Path) -> None:
    of = ("viewer-token", "--device", 1, "--data", staff, "--json")
    assert run(*of, "--as", "support").error == "reason_needed"
    assert run(*of, "--as", "nobody").error == "not_found"
    assert run(*of).code == 0, "whoever runs commands here needs no more than before"
    assert [event["what"] for event in history(run, staff)][-1:] == ["viewer_token"]


def history(run: Run, made: Path, account: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(
        "account", "events", "--account", account, "--limit", 1000, "--data", made, "--json"
    ).document["events"]
    return found


def test_what_a_command_does_is_in_the_history_with_name_and_reason(
    run: Run, staff: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPKEEP_AS", "admin")
    text = tmp_path / "agreement.txt"
    text.write_text("New.")
    by = ("--reason", WHY, "--data", staff, "--json")
    for what, words in (
        ("devices_added", "device add"),
        ("viewer_token", "viewer-token --device 1"),
        ("device_suspended", "device suspend --device 1"),
        ("device_resumed", "device resume --device 1"),
        ("token_renewed", "device new-token --device 1"),
        ("recordings_deleted", "recordings delete --device 1 --from 1 --to 2"),
        ("package_added", "package add big --kind monthly --retention-days 60 --price USD=999"),
        ("package_repriced", "package price big --price USD=1099"),
        ("package_ended", "package end big"),
        ("agreement_published", f"agreement publish --file {text}"),
        ("policy_published", f"privacy publish --file {text}"),
        ("announced", "notices announce --subject s --body b"),
        ("operator_added", "operator add --name zoe --role money"),
        ("operator_role", "operator role --name zoe --role auditor"),
        ("operator_token", "operator token --name zoe"),
        ("operator_token_revoked", "operator revoke --token 1"),
        ("operator_ended", "operator end --name zoe"),
        ("operator_token", "operator-token"),
        ("operator_tokens_revoked", "operator-token --revoke-all"),
        ("terminated", "device terminate --device 1"),
    ):
        done = run(*words.split(), *by)
        assert done.code == 0, done
        event = history(run, staff)[-1]
        assert (event["what"], event["who"], event["operator"], event["why"]) == (
            what,
            "operator",
            "admin",
            WHY,
        )
    account = run("account", "add", "--email", "ada@example.org", "--accepts", 2, *by).document["account"]
    for what, words in (
        ("code_sent", "account send-code"),
        ("updated", "account update --name Ada"),
        ("suspended", "account suspend"),
        ("resumed", "account resume"),
        ("blocked", "account block --kind other"),
    ):
        assert run(*words.split(), "--account", account, *by).code == 0
        event = history(run, staff, account)[-1]
        assert (event["what"], event["operator"], event["why"]) == (what, "admin", WHY)


# --- operator -----------------------------------------------------------------------------------------------------


def test_operators_come_and_go_and_names_stay(run: Run, made: Path) -> None:
    def go(*words: object) -> Any:
        return run("operator", *words, "--data", made, "--json").document

    assert go("add", "--name", "Eve Müller", "--role", "support") == {
        "operator": "Eve Müller",
        "role": "support",
    }
    first, second = (go("token", "--name", "Eve Müller", "--hours", n) for n in (1, 2))
    assert first["token"].startswith("cko_")
    assert [(one["operator"], one["role"], one["tokens"]) for one in go("list")["operators"]] == [
        ("system", "admin", []),
        (
            "Eve Müller",
            "support",
            [{"number": t["number"], "expires_ms": t["expires_ms"]} for t in (first, second)],
        ),
    ]
    assert go("revoke", "--token", first["number"]) == {"revoked": first["number"]}
    assert go("revoke", "--token", first["number"])["error"] == "not_found"
    assert go("end", "--name", "Eve Müller")["ended_ms"] > 0
    assert [one["operator"] for one in go("list")["operators"]] == ["system"]
    assert [one["operator"] for one in go("list", "--all")["operators"]] == ["system", "Eve Müller"]
    for words, code in (
        (("end", "--name", "Eve Müller"), "operator_ended"),
        (("token", "--name", "Eve Müller"), "operator_ended"),
        (("role", "--name", "Eve Müller", "--role", "admin"), "operator_ended"),
        (("list", "--as", "Eve Müller"), "operator_ended"),
        (("add", "--name", "EVE MÜLLER", "--role", "admin"), "operator_exists"),
        (("add", "--name", "system", "--role", "admin"), "operator_exists"),
        (("end", "--name", "system"), "built_in_operator"),
        (("add", "--name", "x" * 61, "--role", "admin"), "bad_text"),
    ):
        assert go(*words)["error"] == code


def test_tokens_and_operators_are_bounded(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retention.operators.MAX_OPERATORS", 1)
    monkeypatch.setattr("service.agreement.operators.MAX_TOKENS", 1)
    assert run("operator", "add", "--name", "a", "--role", "admin", "--data", made).code == 0
    by = ("--data", made, "--json")
    assert run("operator", "add", "--name", "b", "--role", "admin", *by).error == "too_many_operators"
    assert run("operator", "token", "--name", "a", *by).code == 0
    assert run("operator", "token", "--name", "a", *by).error == "too_many_tokens"


def test_a_name_is_read_by_nobody_without_the_vault(run: Run, staff: Path) -> None:
    run("operator", "add", "--name", "Wilhelmina", "--role", "money", "--data", staff)
    with open_folder(staff) as opened, opened.catalog.books() as books:
        assert "Wilhelmina" in [row.name for row in books.operators()]
    files: Iterator[Path] = (path for path in staff.rglob("*") if path.is_file())
    assert not any(b"Wilhelmina" in path.read_bytes() for path in files)


def test_the_camera_token_is_not_told_in_passing(run: Run, staff: Path) -> None:
    of = ("device", "show", "--device", 1, "--data", staff, "--json")
    assert "token" in run(*of).document
    assert "token" not in run(*of, "--as", "auditor").document
