"""“My data”: all that is kept about an account, made in the background, announced, gone after a week."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.agreement import closing, consents, my_data, naming, registration, sessions, standing
from service.agreement.archive import Archive
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict, TooMany, Unprocessable
from storage.errors import CorruptError, NotFound
from storage.rows.identities import IdentityRow
from storage.rows.people import ExportRow, ExportState
from tests.retention.world import NOON
from tests.servers.catalogs import sqlite_only
from tests.servers.raw_catalogs import run_raw
from tests.service.agreement.office import EMAIL, PASSWORD, Office, owner, refused


def make(office: Office) -> int:
    return my_data.make_next(office.desk, office.store, office.catalog, office.folder / "exports")


def ready(office: Office, account: int) -> ExportRow:
    my_data.ask(office.desk, owner(office.row(account)), account)
    assert make(office) == 1
    [row] = my_data.listed(office.desk, owner(office.row(account)), account)
    return row


def whole(office: Office, row: ExportRow) -> bytes:
    [kept] = [one for one in my_data._rows(office.desk) if one.export_id == row.export_id]
    return b"".join(my_data.read_frame(office.store, kept, number) for number in range(my_data.frames(kept)))


def opened(data: bytes) -> dict[str, Any]:
    """Each kind: rows of its JSON; and its CSV has as many."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            if name.endswith(".json"):
                rows = json.loads(archive.read(name))
                table = archive.read(name.replace(".json", ".csv")).decode()
                assert len(list(csv.DictReader(io.StringIO(table, newline="")))) == len(rows)
                found[name.removesuffix(".json")] = rows
    return found


def left(office: Office) -> list[str]:
    return [info.key for info in office.store.list("exports/")]


def test_all_that_is_kept_is_in_the_file_and_no_secret(office: Office) -> None:
    row = office.active(name="=cmd|' /C calc'!A1")
    device = office.device(row.account)
    office.keep([(device, NOON), (device, NOON + 500_000)])
    consents.say(office.desk, owner(row), row.account, "advertisements", True)
    naming.rename(office.desk, owner(row), device, name="Front door", label="of ann")
    office.desk.catalog.note_sightings({device: NOON}, {(device, "expired"): (2, NOON + 1)})
    standing.suspend(office.desk, OPERATOR, row.account, "an authority's demand")
    standing.resume(office.desk, OPERATOR, row.account, "lifted")
    office.active("bob@example.org", name="Bob")
    made = ready(office, row.account)
    assert (made.state, made.error) == (ExportState.READY, "")
    data = whole(office, made)
    assert len(data) == made.length
    found = opened(data)
    [account] = found["account"]
    assert (account["email"], account["account"]) == (EMAIL, row.account)
    assert [one["why"] for one in found["history"] if one["what"] == "suspended"] == ["an authority's demand"]
    assert [one["subject"] for one in found["consents"]] == ["advertisements"]
    [camera] = found["devices"]
    assert [camera[name] for name in ("device", "name", "label", "seen_ms")] == [
        *(device, "Front door", "of ann", NOON)
    ]
    assert found["refusals"] == [{"device": device, "code": "expired", "count": 2, "last_ms": NOON + 1}]
    assert found["agreement"][0]["how"] == "registered"
    assert any(one["address"] == EMAIL for one in found["notices"])
    clips = [(one["from_ms"], one["clip"]) for one in found["recordings"]]
    assert [at for at, _ in clips] == [NOON, NOON + 500_000]
    assert all(link.startswith(f"/v1/devices/{device}/clip.ts?from={at}&to=") for at, link in clips)
    assert [one["body"] for one in found["notices"] if one["purpose"] == "activate"] == [""], "it has a code"
    text = json.dumps(found)
    assert "bob@example.org" not in text
    assert "argon2" not in text
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert "'=cmd" in archive.read("account.csv").decode(), "no formula in a spreadsheet"


@sqlite_only
def test_no_table_about_an_account_is_forgotten(office: Office) -> None:
    """A table that comes later and names an account, or a device, has a file, or is named here with why it has none."""
    covered = {
        **{"accounts": "account", "acceptances": "agreement", "blocks": "blocks", "codes": "codes"},
        **{"consents": "consents", "corrections": "corrections", "data_exports": "downloads"},
        **{"devices": "devices", "events": "history", "identities": "identities", "methods": "methods"},
        **{"notices": "notices", "payments": "payments", "plans": "plans", "serials": "devices"},
        **{"sessions": "log_ins", "subscriptions": "plans"},
        **{
            "device_names": "devices",
            "sightings": "devices",
            "refusals": "refusals",
            "shares": "share_links",
            "kept_clips": "kept_clips",
        },
    }
    left_out = {
        "account_keys": "a number of a key",
        "answers": "copies of what the owner was answered, for a week",
        "changes": "numbers of devices that the bitmap has to learn of",
        "daily_uploads": "sums that limits are counted with, for a day",
        "deletions": "each is in the history",
        "erasures": "no personal data",
        "inits": "numbers of headers; the recordings have them",
        "kept_chunks": "chunks of kept clips, which have a file",
        "live_lists": "numbers of chunks; the recordings have them",
        "operators": "an operator's own",
    }
    tables = {name for (name,) in run_raw(office.folder, _TABLES)} - {"sqlite_sequence"}
    about = {name for name in tables if not name.startswith("chunks_") and _names_somebody(office, name)}
    assert about == covered.keys() | left_out.keys()
    found = opened(whole(office, ready(office, office.active().account)))
    assert set(covered.values()) | {"recordings"} == found.keys()


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def _names_somebody(office: Office, table: str) -> bool:
    columns = {row[1] for row in run_raw(office.folder, f"PRAGMA table_info({table})")}
    return bool(columns & {"account", "device"})


def test_log_ins_and_days_can_be_read(office: Office) -> None:
    """Log-ins, those from elsewhere and addresses that wait for their code are kept too; days are dates."""
    row = office.active()
    today = office.desk.date()
    identity = IdentityRow(row.account, "village", "https://id.example\nann-7", NOON)
    office.desk.write(lambda books: books.add_identity(identity))
    sessions.log_in(office.desk, EMAIL, PASSWORD, client="198.51.100.7")
    registration.update(office.desk, owner(row), row.account, email="new@example.org")
    office.device(row.account)
    found = opened(whole(office, ready(office, row.account)))
    assert [one["subject"] for one in found["identities"]] == ["https://id.example\nann-7"]
    assert [(one["purpose"], one["address"]) for one in found["codes"]] == [("email", "new@example.org")]
    assert [sorted(one) for one in found["log_ins"]] == [["account", "created_ms", "expires_ms"]]
    assert found["account"][0]["used_on"] == today.isoformat()
    assert found["plans"][0]["starts_on"] == (today - timedelta(days=100)).isoformat()
    assert [one["state"] for one in found["downloads"]] == ["queued"]
    assert "secret" not in found["downloads"][0]


def test_it_is_announced_and_gone_after_a_week(office: Office) -> None:
    row = office.active()
    made = ready(office, row.account)
    [told] = office.notices(row.account, "export_ready")
    assert str(row.account) in told.body
    assert left(office)
    assert my_data.begin(office.desk, owner(row), row.account, made.export_id).length == made.length
    assert office.told(row.account)[-2:] == ["export_asked", "export_downloaded"]
    office.later(days=7)
    assert my_data.listed(office.desk, owner(row), row.account) == []
    with refused(NotFound, "not_found"):
        my_data.begin(office.desk, owner(row), row.account, made.export_id)
    office.later(seconds=1)
    assert my_data.tidy(office.desk, office.store) == 1
    assert left(office) == []
    assert my_data.ask(office.desk, owner(row), row.account).export_id > made.export_id


def test_one_at_a_time_for_each_account(office: Office) -> None:
    ada, bob = office.active("ada@example.org"), office.active("bob@example.org")
    asked = my_data.ask(office.desk, owner(ada), ada.account)
    with refused(Conflict, "export_not_ready"):
        my_data.begin(office.desk, owner(ada), ada.account, asked.export_id)
    for _ in range(2):
        with refused(Conflict, "export_there"):
            my_data.ask(office.desk, owner(ada), ada.account)
        make(office)
    assert my_data.ask(office.desk, owner(bob), bob.account)
    assert [make(office), make(office)] == [1, 0]
    for who in (bob, office.register("new@example.org")):
        with refused(NotFound, "not_found"):
            my_data.begin(office.desk, owner(who), ada.account, asked.export_id)
    with refused(NotFound, "not_found"):
        my_data.begin(office.desk, owner(bob), bob.account, asked.export_id)
    with refused(Unprocessable, "not_activated"):
        my_data.ask(office.desk, OPERATOR, office.register("late@example.org").account)


def test_downloads_are_counted(office: Office) -> None:
    row = office.active()
    made = ready(office, row.account)
    for _ in range(my_data.DOWNLOADS_PER_H):
        my_data.begin(office.desk, owner(row), row.account, made.export_id)
    with refused(TooMany, "slow_down"):
        my_data.begin(office.desk, owner(row), row.account, made.export_id)


def test_what_is_too_large_is_told_and_leaves_nothing(office: Office) -> None:
    row = office.active()
    my_data.ask(office.desk, owner(row), row.account)
    small = office.parts(settings=replace(office.desk.settings, export_max_bytes=2000))
    my_data.make_next(small, office.store, office.catalog, office.folder / "exports")
    [failed] = my_data.listed(office.desk, owner(row), row.account)
    assert (failed.state, failed.error) == (ExportState.FAILED, "export_too_large")
    assert "export_too_large" in office.notices(row.account, "export_failed")[0].body
    assert list((office.folder / "exports").iterdir()) == left(office) == []
    assert my_data.ask(office.desk, owner(row), row.account), "it may be tried again"


def test_one_that_comes_to_nothing_is_not_asked_for_all_day(office: Office) -> None:
    """Each reads all that there is of the account: an owner kept the API process at it."""
    row = office.active()
    small = office.parts(settings=replace(office.desk.settings, export_max_bytes=2000))
    for _ in range(my_data.MADE_PER_H):
        my_data.ask(office.desk, owner(row), row.account)
        assert my_data.make_next(small, office.store, office.catalog, office.folder / "exports") == 1
    with refused(TooMany, "slow_down"):
        my_data.ask(office.desk, owner(row), row.account)
    office.later(hours=1)
    assert my_data.ask(office.desk, owner(row), row.account)


def test_a_large_file_is_kept_in_frames_and_parts(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FRAME_BYTES", 100), ("FRAMES", 3), ("_SEALED", 128)):
        monkeypatch.setattr(my_data, name, value)
    made = ready(office, office.active().account)
    assert made.parts == len(left(office)) > 5
    assert opened(whole(office, made))["account"]


def test_nobody_reads_it_without_the_accounts_key(office: Office) -> None:
    row = office.old_enough()
    made = ready(office, row.account)
    stored = b"".join(
        office.store.get_range(key, 0, office.store.head(key).size_bytes) for key in left(office)
    )
    assert b"README" not in stored
    assert EMAIL.encode() not in stored
    [kept] = list(my_data._rows(office.desk))
    with pytest.raises(CorruptError):
        my_data.read_frame(office.store, replace(kept, length=kept.length - 1), 0)
    closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
    office.deliver()
    assert list(my_data._rows(office.desk)) == []
    assert my_data.tidy(office.desk, office.store) == made.parts
    assert left(office) == []


def test_one_that_was_killed_is_made_anew_and_the_first_is_cleared(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = office.active()
    my_data.ask(office.desk, owner(row), row.account)

    def killed(*args: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(my_data, "_settled", killed)
        with pytest.raises(KeyboardInterrupt):
            make(office)
    first = left(office)
    assert make(office) == 0, "somebody may be at it"
    office.later(hours=2)
    assert make(office) == 1
    assert len(office.notices(row.account, "export_ready")) == 1
    assert set(left(office)) > set(first)
    assert my_data.tidy(office.desk, office.store) == len(first)
    [made] = my_data.listed(office.desk, owner(row), row.account)
    assert opened(whole(office, made))


def test_what_changes_meanwhile_is_no_error(office: Office) -> None:
    """The account ends while its file is made: nothing is left, and nobody is told."""
    row = office.old_enough()
    my_data.ask(office.desk, owner(row), row.account)
    real = Archive.write

    def ending(self: Archive, path: Any) -> int:
        length = real(self, path)
        closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
        office.deliver()
        return length

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Archive, "write", ending)
        assert make(office) == 0
    my_data.tidy(office.desk, office.store)
    assert left(office) == []


def test_what_is_downloaded_is_of_a_password_that_is_nowhere(office: Office) -> None:
    row = office.active()
    registration.update(office.desk, owner(row), row.account, name="Ada Lovelace")
    data = whole(office, ready(office, row.account))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        texts = b"".join(archive.read(name) for name in archive.namelist())
    assert PASSWORD.encode() not in texts
    assert b"code_hash" not in texts
    assert b"Ada Lovelace" in texts
