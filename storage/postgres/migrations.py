"""Catalogs of earlier releases on PostgreSQL, brought up to date, beside a running service where it may be.

One linear chain, with the revisions of SQLite's. It begins with the first release that knew this engine (0005). A new
schema is a new entry of STEPS (frozen when it is released) and the same in the schema that `create_schema` makes.

**Two halves.** A step adds with `before` what its release needs and takes with `after` what that no longer needs. Both
releases work between the halves, so hosts may be brought up to date one after the other:

    migrate(Half.BEFORE)   `prepared_revision` in `meta` says so; the revision stays: the earlier release still opens it
    …                      every host is given the new release, and restarted
    migrate(Half.AFTER)    the revision is the new one, and the earlier release is refused

`before` must leave every statement of the earlier release as it is: new tables, columns with a default, and indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from storage.errors import CallerError, CatalogCorrupt, WorldError
from storage.postgres.connection import PostgresConnection
from storage.postgres.database import APPLICATION, PostgresDatabase
from storage.postgres.privileges import grant_again
from storage.postgres.schema import COUNTED, FORGET_HISTORY, NEXT_NUMBER, prepared_revision, revision_of
from storage.sql.connection import Connection
from storage.sql.meta import put_number
from storage.sqlite.schema import REVISION

PREPARED = "prepared_revision"


class Half(Enum):
    """What of the steps to do."""

    BEFORE = "before"
    """What the new release needs. The earlier one may run beside it."""
    AFTER = "after"
    """The rest, once no host runs the earlier release."""
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the revision that it makes, and the statements of its halves."""

    revision: str
    before: str = ""
    after: str = ""


def _counted_by_row() -> str:
    """Numbers without gaps: a row of `numbers` instead of a sequence."""
    lines = [NEXT_NUMBER, "ALTER TABLE devices ALTER device DROP IDENTITY;"]
    for table, column in COUNTED.items():
        lines += [
            f"INSERT INTO numbers SELECT '{table}', greatest(coalesce(max({column}), 0),"
            f" coalesce(pg_sequence_last_value(pg_get_serial_sequence('{table}', '{column}')), 0)) FROM {table}"
            " ON CONFLICT DO NOTHING;",
            f"ALTER TABLE {table} ALTER {column} DROP IDENTITY,"
            f" ALTER {column} SET DEFAULT next_number('{table}');",
        ]
    return "\n".join([*lines, "ALTER TABLE numbers SET (fillfactor = 20);", FORGET_HISTORY])


STEPS: Mapping[str, Step] = MappingProxyType({"0005": Step("0006", before=_counted_by_row())})
"""By the revision that each starts from."""


def migrate(url: str, half: Half = Half.BOTH, steps: Mapping[str, Step] = STEPS) -> tuple[str, str]:
    """Bring a catalog to the newest revision, all steps in one transaction. One that has it stays as it is.

    Returns:
        The revision before, and after; after `Half.BEFORE` the one that it is prepared for.

    Raises:
        CallerError: `no_catalog`; `not_prepared`, `Half.AFTER` without the half before it.
        WorldError: `catalog_in_use`: an earlier release has it open, and nothing was changed.
        CatalogCorrupt: not of an earlier release; nothing was changed.
        CatalogUnavailable: the server refused; nothing was changed.
    """
    with closing(PostgresDatabase(url)) as database:
        return database.write(lambda connection: _migrate(connection, database.subject, half, steps))


def _migrate(connection: Connection, subject: str, half: Half, steps: Mapping[str, Step]) -> tuple[str, str]:
    assert isinstance(connection, PostgresConnection)
    before = revision_of(connection, subject)
    todo = list(_steps_from(before, steps, subject))
    if not todo:
        return before, before
    newest, prepared = todo[-1].revision, prepared_revision(connection)
    if half is not Half.BEFORE:
        _require_left(connection, subject, newest)
    if half is Half.AFTER and prepared < newest:
        raise CallerError(
            "this release's first half has not been done: `clipkeep catalog migrate --before`",
            subject=subject,
            code="not_prepared",
        )
    for step in todo:
        if half is not Half.AFTER and prepared < step.revision:
            connection.run(step.before)
        if half is not Half.BEFORE:
            connection.run(step.after)
    put_number(connection, PREPARED, int(newest))
    if half is not Half.BEFORE:
        connection.execute("UPDATE alembic_version SET version_num = ?", (newest,))
    grant_again(connection)
    return before, newest


def _steps_from(found: str, steps: Mapping[str, Step], subject: str) -> Iterator[Step]:
    newest = max((step.revision for step in steps.values()), default=REVISION)
    while found != newest:
        if found not in steps:
            raise CatalogCorrupt(
                f"schema {found}, and no way from there to {newest}, which this release reads: it is of another"
                " release",
                subject=subject,
            )
        yield steps[found]
        found = steps[found].revision


def _require_left(connection: Connection, subject: str, newest: str) -> None:
    """Raises WorldError `catalog_in_use` while a process of an earlier release has the catalog open."""
    rows = connection.execute(
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"
        f" AND application_name LIKE '{APPLICATION}%' AND application_name < ? AND pid <> pg_backend_pid()",
        (f"{APPLICATION}/{newest}",),
    )
    if earlier := [row[0] for row in rows]:
        raise WorldError(
            f"a process of an earlier release has the catalog open ({', '.join(earlier)}): stop it on every host, wait"
            " a minute for its last connection to end, then run this again; `--before` may run beside it",
            subject=subject,
            code="catalog_in_use",
        )
