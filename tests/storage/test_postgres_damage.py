"""`check --deep` asks PostgreSQL too, by amcheck: what is wrong in its files is found; without it, that is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from storage.contracts.given import NOON, STORED, WEEK, Upload, add_device, commit
from storage.postgres import PostgresCatalog
from tests.servers.postgres import PostgresServer, any_binaries, postgres_server


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server whose files are spoilt."""
    with postgres_server(any_binaries()) as started:
        yield started


def file_of(server: PostgresServer, relation: str) -> str:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute("SELECT pg_relation_filepath(to_regclass(%s))", (relation,)).fetchone()
        assert row is not None
        return str(row[0])


def test_without_amcheck_it_says_what_it_did_not_look_at(url: str) -> None:
    with closing(PostgresCatalog.open(url)) as catalog:
        assert catalog.damage() == []
        [said] = catalog.unlooked()
        assert "CREATE EXTENSION amcheck" in said


@pytest.mark.parametrize("relation", ["plans", "devices_of_account", "changes_pkey"])
def test_what_is_spoilt_is_found(own: PostgresServer, relation: str) -> None:
    with closing(PostgresCatalog.create(own.url())) as catalog:
        device = add_device(catalog, WEEK)
        for _ in range(50):
            add_device(catalog, WEEK)
        assert commit(catalog, Upload(device, NOON)) == [STORED]
        with psycopg.connect(own.url(), autocommit=True) as connection:
            try:
                connection.execute("CREATE EXTENSION amcheck")
            except psycopg.errors.UndefinedFile:
                pytest.skip("this server has no extension amcheck")
        assert catalog.unlooked() == []
        assert catalog.damage() == []
    path = own.data / file_of(own, relation)
    own.stop()
    content = bytearray(path.read_bytes())
    at = 0 if relation == "plans" else 8192  # the first page of an index is about the whole of it
    middle = at + 8192 - 512
    content[middle : middle + 400] = b"\xa5" * 400
    path.write_bytes(content)
    own.start()
    with closing(PostgresCatalog.open(own.url())) as catalog:
        found = catalog.damage()
    assert found
    assert any(relation in sentence for sentence in found), found
