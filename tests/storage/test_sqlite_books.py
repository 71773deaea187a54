"""The account books on SQLite: the contract, and what is particular to one file."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage.catalog.books import Books
from storage.contracts.account_keys import AccountKeysContract
from storage.contracts.blocks import writing_books
from storage.contracts.books import BooksContract
from storage.contracts.books.given import answer, charge, code_of, event, notice, owner, to_erasing, with_plan
from storage.contracts.given import DAY, NOON, NOW, Opener, Upload, commit
from storage.errors import CallerError, CatalogCorrupt
from storage.keys import KeyStore
from storage.rows.accounts import AcceptanceRow, AccountRow, CodeRow, NoticeState, SubscriptionRow
from storage.rows.devices import DeviceFacts
from storage.sql.books.backlog import BACKLOG
from storage.sql.sealing import unseal
from storage.sqlite import SqliteCatalog
from storage.vault import Vault
from tests.retention.world import fast_folder
from tests.storage.with_vault import make_sqlite, open_sqlite


@pytest.fixture
def path() -> Iterator[Path]:
    with fast_folder() as folder:
        path = folder / "catalog.sqlite"
        make_sqlite(path)
        yield path


@pytest.fixture
def catalog(path: Path) -> Iterator[SqliteCatalog]:
    with closing(open_sqlite(path)) as catalog:
        yield catalog


class TestSqliteBooks(BooksContract):
    @pytest.fixture
    def opener(self, path: Path) -> Opener:
        return partial(open_sqlite, path)


class TestSqliteAccountKeys(AccountKeysContract):
    @pytest.fixture
    def opener(self, path: Path) -> Opener:
        return partial(open_sqlite, path)

    @pytest.fixture
    def vault(self, path: Path) -> Iterator[Vault]:
        with KeyStore.open(path.with_name("keys")) as vault:
            yield vault


def raw(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def unheard(old: DeviceFacts, new: DeviceFacts) -> None:
    """For tests without a bitmap."""


def writing(catalog: SqliteCatalog) -> Any:
    return writing_books(catalog, before_change=unheard, now_ms=NOW)


# --- the history is append-only ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET why = x'00'",
        "UPDATE events SET at_ms = 0 WHERE event_id = 1",
        "DELETE FROM events",
        "REPLACE INTO events VALUES (1, 2, NULL, 'other', 'owner', x'', x'', 0, x'')",
    ],
)
def test_the_file_itself_refuses_to_change_history(
    catalog: SqliteCatalog, path: Path, statement: str
) -> None:
    """Whoever writes around this code included. (REPLACE calls the delete trigger where recursive triggers are on.)"""
    with writing(catalog) as books:
        account = books.add_account(owner()).account
        books.add_event(event(account))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA recursive_triggers=ON")
        with pytest.raises(sqlite3.IntegrityError, match=r"append-only|only with their account"):
            connection.execute(statement)


def test_events_go_with_a_cancelled_account_only(catalog: SqliteCatalog, path: Path) -> None:
    with writing(catalog) as books:
        ann, bob = (books.add_account(owner()).account for _ in range(2))
        for account in (ann, bob):
            books.add_event(event(account))
        books.erase_account(ann, cancelled_on=DAY)
    assert raw(path, "SELECT account FROM events") == [(bob,)]


# --- nothing of an erased account is left in the files ----------------------------------------------------------


def in_files(path: Path, *needles: bytes) -> dict[bytes, int]:
    """How often each is in the database, its write-ahead log and whatever lies beside them."""
    files = sorted(file for file in path.parent.rglob("*") if file.is_file())
    data = b"\0".join(file.read_bytes() for file in files)
    return {needle: data.count(needle) for needle in needles}


def keys_in_files(path: Path) -> dict[int, bytes]:
    """Account to its key as the vault keeps it: wrapped, and without the nonce."""
    ids = dict(raw(path, "SELECT account, key_id FROM account_keys WHERE account IS NOT NULL"))
    wrapped = dict(raw(path.with_name("keys") / "keys.db", "SELECT id, wrapped FROM account_keys"))
    return {account: wrapped[id_][12:] for account, id_ in ids.items()}


def email_of(number: int) -> str:
    return f"person-{number:05d}-{random.Random(number).randrange(10**9):09d}@mail.example"


def churn(catalog: SqliteCatalog, rounds: int, seed: int) -> list[AccountRow]:
    """Accounts whose rows come, grow and go, so that pages split and merge; a device with recordings for some."""
    chance = random.Random(seed)
    rows: list[AccountRow] = []
    for _ in range(rounds):
        with writing(catalog) as books:
            books.publish_agreement("One.", now_ms=NOW)
            for _ in range(20):
                row = books.add_account(owner(email_of(len(rows)), f"+1555{len(rows):07d}"))
                rows.append(row)
                books.accept_agreement(AcceptanceRow(row.account, 1, "registered", NOW))
            for row in chance.choices(rows, k=60):
                use(books, row, chance)
    return rows


def use(books: Books, row: AccountRow, chance: random.Random) -> None:
    assert row.email is not None
    told = f"{row.email} " * chance.randrange(1, 20)
    books.put_account(replace(row, password_hash="x" * chance.randrange(50, 150), suspend_reason=told))
    books.add_event(event(row.account, why=told, facts={"email": row.email}))
    books.put_answer(answer(row.account, str(chance.random()), body=told))
    for sent in books.notices(account=row.account)[:1]:
        books.put_notice(replace(sent, state=NoticeState.FAILED, error=told))
    books.add_notice(notice(row.account, address=row.email, body=told))
    if chance.random() < 0.2:
        number = books.add_device(row.account).device
        books.change_device(number, with_plan(), what="operator: more")
        books.add_payment(
            charge(row.account, number, str(chance.random()), why=told, detail={"to": row.email})
        )


def end(books: Books, account: int) -> None:
    for facts in books.devices_of(account):
        books.change_device(facts.device, to_erasing, what="owner: account cancelled")
    books.erase_account(account, cancelled_on=DAY)


@pytest.mark.parametrize("seed", range(3))
def test_no_trace_of_an_erased_account_is_in_the_files(catalog: SqliteCatalog, path: Path, seed: int) -> None:
    """Agreement 6.5.3. Nor of its key in the vault, with which copies of its rows in unused parts of pages could be
    read."""
    rows = churn(catalog, 20, seed)
    keys = keys_in_files(path)
    vault = catalog.keys.vault
    assert vault is not None
    secret = vault.account_keys([row.key_id for row in catalog.account_keys()]).values()
    gone = random.Random(seed).sample(rows, 100)
    for row in gone:
        with writing(catalog) as books:
            number = next(iter(books.devices_of(row.account)), None)
        if number is not None:
            catalog.delete_range(
                number.device,
                NOON,
                NOON + 1,
                reason=f"for {row.email}",
                who="owner",
                now_ms=NOW,
                delete_after_ms=NOW,
            )
        with writing(catalog) as books:
            end(books, row.account)
        assert (
            path.with_name(path.name + "-wal").stat().st_size < 20_000
        )  # cut; the note that it is was written since
    needles = [part.encode() for row in gone for part in (str(row.email), str(row.mobile))]
    found = in_files(path, *needles, *(keys[row.account] for row in gone))
    assert [needle for needle, count in found.items() if count] == []
    # The same look does find what is there.
    alive = [keys[row.account] for row in rows if row not in gone]
    assert all(in_files(path, *alive).values())
    assert not any(in_files(path, *secret).values()), "none is anywhere but wrapped"
    with catalog.books() as books:
        for row in rows:
            assert books.account(row.account).email == (None if row in gone else row.email)
    assert list(catalog.broken_rows()) == []


def test_a_reader_in_the_way_is_waited_for_later(catalog: SqliteCatalog, path: Path) -> None:
    """For the pages of before in the log. The key is gone at once."""
    [row, *_] = churn(catalog, 1, seed=1)
    key = keys_in_files(path)[row.account]
    noted = partial(raw, path, "SELECT value FROM meta WHERE name = 'erased_left_in_log'")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM accounts").fetchall()
        with writing(catalog) as books:
            end(books, row.account)
        assert not catalog.overwrite_erased()
        assert noted() == [(1,)]
        assert in_files(path, key) == {key: 0}
        commit(catalog, Upload(1, NOON))  # nobody is kept from writing
    assert catalog.overwrite_erased()
    assert catalog.overwrite_erased()
    assert noted() == []


def test_the_note_that_something_is_left_survives_the_process(path: Path) -> None:
    with closing(open_sqlite(path)) as catalog, closing(sqlite3.connect(path)) as reader:
        with writing(catalog) as books:
            account = books.add_account(owner()).account
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM accounts").fetchall()
        with writing(catalog) as books:
            end(books, account)
    assert raw(path, "SELECT value FROM meta WHERE name = 'erased_left_in_log'") == [(1,)]
    with closing(open_sqlite(path)) as catalog:
        assert catalog.overwrite_erased()
    assert raw(path, "SELECT value FROM meta WHERE name = 'erased_left_in_log'") == []


def test_a_connection_goes_back_to_quick_deletes(catalog: SqliteCatalog) -> None:
    with writing(catalog) as books:
        end(books, books.add_account(owner()).account)
    with catalog.db.read() as connection:
        assert connection.execute("PRAGMA secure_delete").fetchone() == (2,)  # FAST


def test_an_erasure_that_is_undone_leaves_everything_readable(catalog: SqliteCatalog) -> None:
    rows = churn(catalog, 2, seed=2)
    with suppress(ZeroDivisionError), writing(catalog) as books:
        end(books, rows[0].account)
        raise ZeroDivisionError
    with catalog.books() as books:
        assert books.account(rows[0].account).email == rows[0].email
        assert books.acceptances_of(rows[0].account)


# --- what waits ---------------------------------------------------------------------------------------------------


def test_the_backlog_reads_no_table_from_end_to_end(catalog: SqliteCatalog) -> None:
    """It is asked at every scrape of the metrics: each count comes from an index of what waits alone."""
    with catalog.db.read() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {BACKLOG}", {"from_day": 1, "day": 2}).fetchall()
    steps = [step for *_, step in plan if step.startswith(("SCAN", "SEARCH")) and "CONSTANT ROW" not in step]
    indexes = (
        *("notices_queued", "notices_failed", "accounts_asking", "accounts_closing"),
        *("payments_pending", "payments_refused", "payments_disputed"),
    )
    for step in steps:
        assert "plans_ending" in step or "INTEGER PRIMARY KEY" in step or any(i in step for i in indexes), (
            step
        )
    assert {i for i in (*indexes, "plans_ending") if any(i in step for step in steps)} == {
        *indexes,
        "plans_ending",
    }


# --- what `clipkeep check` finds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        ("DELETE FROM account_keys WHERE account = 2", "account 2: its key is missing"),
        ("DELETE FROM account_keys WHERE account = 0", "account 0: its key is missing"),
        (
            "UPDATE account_keys SET account = NULL WHERE account = 2;"
            " UPDATE accounts SET state = 'cancelled' WHERE account = 2",
            "was erased, but has 1 rows in codes",
        ),
        (
            "UPDATE subscriptions SET device = 2",
            "plan 1: its subscription is of device 2, the plan of device 1",
        ),
        (
            "UPDATE subscriptions SET account = 3",
            "plan 1: its subscription is of account 3, its device of account 2",
        ),
    ],
)
def test_every_kind_of_broken_row_is_told(
    catalog: SqliteCatalog, path: Path, damage: str, wanted: str
) -> None:
    with writing(catalog) as books:
        ann, bob = (books.add_account(owner()).account for _ in range(2))
        device, other = books.add_device(ann).device, books.add_device(bob).device
        plan_id = books.change_device(device, with_plan(), what="").plans[0].plan_id
        books.add_subscription(SubscriptionRow(plan_id, ann, device, "USD", 599, 599, True, "card", 1, NOW))
        books.put_code(CodeRow(ann, "email", "", b"", NOW))
        books.erase_account(books.add_account(owner()).account, cancelled_on=DAY)
    assert other == 2
    assert list(catalog.broken_rows()) == []
    for statement in damage.split(";"):
        raw(path, statement)
    assert any(wanted in sentence for sentence in catalog.broken_rows()), list(catalog.broken_rows())


# --- sealed texts -----------------------------------------------------------------------------------------------


def test_texts_about_people_are_sealed(catalog: SqliteCatalog, path: Path) -> None:
    """So that no copy of a row, wherever SQLite left it, can be read without the account's key."""
    rows = churn(catalog, 3, seed=3)
    found = in_files(path, *(str(row.email).encode() for row in rows))
    assert not any(found.values())


def test_an_idempotency_key_is_not_kept_as_the_client_wrote_it(catalog: SqliteCatalog, path: Path) -> None:
    with writing(catalog) as books:
        ann, bob = (books.add_account(owner(f"{n}@example.com")).account for n in ("ann", "bob"))
        kept = answer(ann, "order-of-ann@example.com")
        books.put_answer(kept)
        assert books.answer(ann, kept.key) == kept
        assert books.answer(bob, kept.key) is None
    assert in_files(path, b"order-of-ann") == {b"order-of-ann": 0}


def test_why_a_range_was_deleted_is_sealed_with_the_accounts_key(catalog: SqliteCatalog, path: Path) -> None:
    with writing(catalog) as books:
        ann = books.add_account(owner("ann@example.com")).account
        device = books.add_device(ann).device
    delete = partial(catalog.delete_range, device, NOON, NOON + 1, now_ms=NOW, delete_after_ms=NOW)
    delete(reason="Ann moved to Elm Street", who="owner")
    [(sealed, key_id)] = raw(
        path,
        "SELECT reason, key_id FROM deletions JOIN devices USING (device) JOIN account_keys USING (account)",
    )
    key = catalog.keys.of([key_id])[key_id]
    assert unseal(key, "deletions.reason", sealed) == "Ann moved to Elm Street"
    assert in_files(path, b"Elm Street") == {b"Elm Street": 0}
    assert code_of(lambda: delete(reason="", who="Ann")) == "not_a_role"
    with writing(catalog) as books:
        end(books, ann)
    delete(reason="Ann again", who="operator")
    assert raw(path, "SELECT reason, who FROM deletions") == [(b"", "owner"), (b"", "operator")]


def test_the_change_log_takes_codes_only(catalog: SqliteCatalog) -> None:
    with writing(catalog) as books:
        device = books.add_device(books.add_account(owner("ann@example.com")).account).device
        for what in ("operator: Ann asked", "suspended: ann@example.com", "operator: a: b", "x" * 41):
            with pytest.raises(CallerError) as refused:
                books.change_device(device, with_plan(), what=what)
            assert refused.value.code == "not_a_code"


def test_a_text_is_of_its_account_and_its_column(catalog: SqliteCatalog, path: Path) -> None:
    with writing(catalog) as books:
        ann, bob = (books.add_account(owner(f"{n}@example.com")).account for n in ("ann", "bob"))
    for damage in (
        f"UPDATE accounts SET email = (SELECT email FROM accounts WHERE account = {bob}) WHERE account = {ann}",
        f"UPDATE accounts SET email = name WHERE account = {ann}",
        f"UPDATE accounts SET email = x'00' WHERE account = {ann}",
        f"DELETE FROM account_keys WHERE account = {ann}",
    ):
        [before] = raw(path, f"SELECT hex(email) FROM accounts WHERE account = {ann}")
        raw(path, damage)
        with catalog.books() as books, pytest.raises(CatalogCorrupt, match="backup"):
            books.account(ann)
        if "DELETE" not in damage:
            raw(path, f"UPDATE accounts SET email = x'{before[0]}' WHERE account = {ann}")


def test_half_a_character_is_refused(catalog: SqliteCatalog) -> None:
    with writing(catalog) as books:
        assert code_of(lambda: books.add_account(replace(owner(), name="\ud800"))) == "bad_text"
