"""What notices say: in the operator's language, checked at start, and the code gives each template what it needs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from service.agreement import standing
from service.agreement.desk import OPERATOR
from service.agreement.templates import MAX_TEMPLATE_BYTES, load, shipped, write_shipped
from storage.errors import CallerError
from tests.conftest import ROOT
from tests.service.agreement.office import Office, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A translation that is whole."""
    write_shipped(tmp_path / "words")
    return tmp_path / "words"


def test_a_folder_of_templates_is_what_owners_read(office: Office, folder: Path) -> None:
    text = "Subject: Konto gesperrt: {account}\r\n\r\nGrund: {reason}\r\n{{Ende}}"
    (folder / "suspended.txt").write_text(text, "utf-8")
    row = office.active()
    standing.suspend(office.parts(templates=load(folder)), OPERATOR, row.account, "falscher Name")
    [notice] = office.notices(row.account, "suspended")
    assert notice.subject == f"Konto gesperrt: {row.account}"
    assert notice.body == "Grund: falscher Name\n{Ende}"


def test_a_translation_may_leave_fields_out(folder: Path) -> None:
    (folder / "suspended.txt").write_text("Subject: Gesperrt\n\nDas Konto ruht.\n")
    assert load(folder).write("suspended", {"account": 1, "reason": "x"}).body == "Das Konto ruht."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Subject: {acount}\n\nx", "unknown_field"),
        ("Subject: x\n\n{money}", "unknown_field"),
        ("Subject: x\n\n{account.row}", "bad_template"),
        ("Subject: x\n\n{account!r}", "bad_template"),
        ("Subject: x\n\n{account:>9999999999}", "bad_template"),
        ("Subject: x\n\n{}", "bad_template"),
        ("Subject: x\n\nan open {", "bad_template"),
        ("Subject: x\n\n", "bad_template"),
        ("Subject: \n\nx", "bad_template"),
        ("Betreff: x\n\nx", "bad_template"),
        ("Subject: x\nx", "bad_template"),
        ("Subject: x\n\n" + "y" * MAX_TEMPLATE_BYTES, "bad_template"),
    ],
)
def test_a_template_that_cannot_be_is_refused_at_start(folder: Path, text: str, code: str) -> None:
    (folder / "suspended.txt").write_text(text)
    with refused(CallerError, code) as caught:
        load(folder)
    assert caught.value.subject == str(folder / "suspended.txt")


def test_all_templates_are_there_and_no_others(folder: Path, tmp_path: Path) -> None:
    assert load(folder).names() == shipped().names()
    (folder / "suspended.txt").rename(folder / "suspendet.txt")
    with refused(CallerError, "unknown_template") as caught:
        load(folder)
    assert "suspendet.txt" in (caught.value.subject or "")
    (folder / "suspendet.txt").unlink()
    with refused(CallerError, "missing_template") as caught:
        load(folder)
    assert "suspended" in caught.value.detail
    with refused(CallerError, "no_templates"):
        load(tmp_path / "nowhere")
    with refused(CallerError, "not_empty"):
        write_shipped(folder)


def test_bytes_that_are_no_text_are_named(folder: Path) -> None:
    (folder / "suspended.txt").write_bytes(b"Subject: \xff\n\nx")
    with refused(CallerError, "bad_template"):
        load(folder)


def test_no_value_makes_a_subject_two_lines_or_longer_than_one(folder: Path) -> None:
    (folder / "suspended.txt").write_text("Subject: {reason}\n\nx")
    written = load(folder).write("suspended", {"account": 1, "reason": "a\nBcc: b " + "c" * 500})
    assert "\n" not in written.subject
    assert len(written.subject) == 200


def told() -> list[tuple[str, str, set[str]]]:
    """(where, template, fields) of every notice that the code writes under a name."""
    found = []
    for path in sorted((ROOT / "service/agreement").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = {"tell": 3, "tell_at": 5}.get(node.func.id)
            if place is None or not isinstance(node.args[place], ast.Constant):
                continue
            fields = {word.arg for word in node.keywords if word.arg is not None}
            whole = all(word.arg is not None for word in node.keywords)
            name = str(node.args[place].value)  # type: ignore[attr-defined]
            found.append((path.name, name, fields if whole else fields | set(shipped()[name].fields)))
    return found


def test_the_code_gives_each_template_what_it_needs() -> None:
    assert len(told()) > 15
    for where, name, fields in told():
        assert shipped()[name].fields == fields, f"{where}: {name}"


def test_every_template_is_used() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "service/agreement").rglob("*.py"))
    codes = {"activate", "email", "mobile", "password"}
    assert [n for n in shipped().names() if f'"{n}"' not in text and n not in codes] == []


def test_only_what_somebody_wrote_goes_out_without_a_template() -> None:
    found = {
        path.stem
        for path in (ROOT / "service").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("queue", "queue_to")
    }
    assert found == {"announcing", "outbox", "trials"}
