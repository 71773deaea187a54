"""What the service's role may do, so that no fault of it, and nobody who has its password, can change the history.

Two roles: the owner made the tables and migrates them, the service's role uses them. The history is append-only for the
latter because it has no privilege to change or remove a row of it; an account's goes by `forget_history`, a function of
the owner's that looks first whether the account is cancelled. Chunk tables come and go with the days, so the service's
role makes and owns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType

from psycopg import sql

from storage.errors import CallerError
from storage.postgres.connection import PostgresConnection
from storage.postgres.database import PostgresDatabase
from storage.sql.connection import Connection

LESS: Mapping[str, str] = MappingProxyType(
    {
        "events": "SELECT, INSERT",
        "acceptances": "SELECT, INSERT",
        "agreements": "SELECT, INSERT",
        "changes": "SELECT, INSERT",
        "erasures": "SELECT, INSERT, UPDATE",
        "accounts": "SELECT, INSERT, UPDATE",
        "account_keys": "SELECT, INSERT, UPDATE",
        "alembic_version": "SELECT",
    }
)
"""Tables on which the service's role has less than SELECT, INSERT, UPDATE and DELETE."""
_ALL = "SELECT, INSERT, UPDATE, DELETE"


def grant(url: str, role: str) -> list[str]:
    """Give a role what the service needs, and take from it what it does not. To be called as the tables' owner.

    Returns:
        The statements.

    Raises:
        CallerError: `no_role`; `not_owner`, who is connected does not own the tables; `not_member`, the owner is not a
            member of the role; `owner_role`, the role owns the tables.
        CatalogUnavailable: the server refused; nothing was changed.
    """
    with closing(PostgresDatabase(url)) as database, database.hold() as connection:
        assert isinstance(connection, PostgresConnection)
        _require_roles(connection, role, database.subject)
        return _grant(connection, role)


def grant_again(connection: PostgresConnection) -> None:
    """After a change of the schema: what roles that use the catalog lack on what is new."""
    rows = connection.execute(
        "SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)"
        " WHERE oid = to_regclass('meta') AND grantee NOT IN (0, relowner) AND privilege_type = 'UPDATE'"
    ).fetchall()
    for row in rows:
        _grant(connection, row[0].strip('"').replace('""', '"'))


def _require_roles(connection: Connection, role: str, subject: str) -> None:
    found = connection.execute(
        "SELECT (SELECT oid FROM pg_roles WHERE rolname = ?), relowner, current_user,"
        " pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('meta')",
        (role,),
    ).fetchone()
    if found is None:
        raise CallerError("no catalog is in this database", subject=subject, code="no_catalog")
    oid, owner, me, is_owner = found
    if oid is None:
        raise CallerError(f"no role {role}: CREATE ROLE makes it", subject=subject, code="no_role")
    if oid == owner:
        raise CallerError(
            f"{role} owns the tables, so nothing can be kept from it: name the role that the service connects as",
            subject=subject,
            code="owner_role",
        )
    if not is_owner:
        raise CallerError(
            f"{me} does not own the tables: connect as who does", subject=subject, code="not_owner"
        )
    if not connection.execute("SELECT pg_has_role(?::name, 'MEMBER')", (role,)).fetchone()[0]:
        raise CallerError(
            f"{me} is not a member of {role}, and could not give it the chunk tables: GRANT {role} TO {me}",
            subject=subject,
            code="not_member",
        )


def _grant(connection: PostgresConnection, role: str) -> list[str]:
    name = sql.Identifier(role).as_string()
    rows = connection.execute(
        "SELECT relname, relkind, relnamespace::regnamespace::text FROM pg_class WHERE relkind IN ('r', 'v', 'S')"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('meta')) ORDER BY relname"
    ).fetchall()
    statements = [f"GRANT USAGE, CREATE ON SCHEMA {rows[0][2]} TO {name}"]
    chunk_tables = connection.chunk_tables()
    for table, kind, _ in rows:
        if kind == "S":
            statements.append(f"GRANT SELECT ON SEQUENCE {table} TO {name}")
        elif table.replace("packed_", "chunks_") in chunk_tables:
            statements.append(f"ALTER TABLE {table} OWNER TO {name}")
        else:
            statements.append(f"REVOKE ALL ON {table} FROM {name}")
            statements.append(f"GRANT {LESS.get(table, _ALL)} ON {table} TO {name}")
    statements.append(f"GRANT EXECUTE ON FUNCTION forget_history TO {name}")
    connection.run(";".join(statements))
    return statements
