"""What the server itself finds wrong with the catalog's tables and indexes, by its extension `amcheck`."""

from __future__ import annotations

from psycopg import errors

from storage.postgres.connection import PostgresConnection
from storage.sql.connection import Connection

MOST_TOLD = 1000
INSTALLED = (
    "SELECT to_regprocedure('bt_index_check(regclass, boolean)') IS NOT NULL"
    " AND has_function_privilege(to_regprocedure('bt_index_check(regclass, boolean)'), 'EXECUTE')"
    " AND has_function_privilege('verify_heapam(regclass, boolean, boolean, text, bigint, bigint)', 'EXECUTE')"
)
NOT_LOOKED = (
    "PostgreSQL's own tables and indexes were not looked into: the extension amcheck is missing, or this user may not"
    " use it. As a superuser: CREATE EXTENSION amcheck; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO the"
    " service's role; or run pg_amcheck"
)


def can_look(connection: Connection) -> bool:
    """Whether the functions of `amcheck` are there for this user."""
    return bool(connection.execute(INSTALLED).fetchone()[0])


def relations(connection: Connection) -> list[tuple[str, str]]:
    """Name and kind (`r` a table, `i` an index) of all there is to look at."""
    rows = connection.execute(
        "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam"
        " WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('meta'))"
        " AND (relkind = 'r' OR relkind = 'i' AND amname = 'btree') AND relpersistence = 'p' ORDER BY 1"
    )
    return [(row[0], row[1]) for row in rows]


def found_in(connection: PostgresConnection, name: str, kind: str) -> list[str]:
    """What is wrong with one table or index: all of it is read, and an index compared with its table."""
    try:
        if kind == "i":
            connection.execute("SELECT bt_index_check(to_regclass(?), true)", (name,))
            return []
        rows = connection.execute(
            "SELECT blkno, msg FROM verify_heapam(to_regclass(?)) LIMIT ?", (name, MOST_TOLD)
        )
        return [f"PostgreSQL: {name}, page {row[0]}: {row[1]}" for row in rows]
    except (errors.IndexCorrupted, errors.DataCorrupted, errors.InternalError_) as error:
        return [f"PostgreSQL: {name}: {' '.join(str(error).split())}"]
