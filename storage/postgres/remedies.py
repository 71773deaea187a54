"""What people are told of a PostgreSQL server: which one it is, and what to do about what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import errors

from storage.postgres.connection import TAKEN_BACK, NoAnswer

_BAD_WORD = re.compile(r"invalid [a-z_]+ value|invalid port number|connection option")
"""What libpq says of a word in an address, or in a variable, that it can't use."""


def shown(parts: Mapping[str, Any]) -> str:
    """An address as people may see it: without user, password and parameters, but with the service that names them."""
    port = f":{parts['port']}" if "port" in parts else ""
    service = f"?service={parts['service']}" if "service" in parts else ""
    return f"postgresql://{parts.get('host', '')}{port}/{parts.get('dbname', '')}{service}"


def remedy(error: psycopg.Error) -> str:
    """What a person does about an error that may pass."""
    if isinstance(error, (errors.DiskFull, errors.IoError)):
        return "look for a full or failing disk of the server; trying again is safe"
    if isinstance(error, NoAnswer):
        return "look for a server that is frozen, or whose disk hangs; trying again is safe"
    if isinstance(error, errors.TooManyConnections) or _says(
        error, "too many", "connection slots", "no more connections"
    ):
        return "all its connections are taken: raise max_connections, or put PgBouncer in between"
    if isinstance(error, (errors.LockNotAvailable, errors.QueryCanceled, *TAKEN_BACK)):
        return "another transaction has been in the way all the time: try again"
    if isinstance(error, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification)) or _says(
        error, "password", "authentication", "pg_hba.conf", "role "
    ):
        return "look for a wrong user or password: PGUSER, PGPASSWORD, the service file or the password file"
    if isinstance(error, errors.InsufficientPrivilege):
        return (
            "the user lacks a privilege: `clipkeep catalog grant --role ROLE`, as the tables' owner, gives the"
            " service's role what it needs (docs/operations.md), tables included that another role has made since; a"
            " vault is used by the user who made it"
        )
    if _says(error, "permission denied for database"):
        return "the user may not connect to it: GRANT CONNECT ON DATABASE … TO …, as its owner"
    if _says(error, "is not currently accepting connections"):
        return "the server keeps everybody out of this database: its operator knows why; trying again is safe"
    if isinstance(error, errors.InvalidCatalogName) or _says(error, 'database "', "no such database"):
        return "the database is missing: CREATE DATABASE makes it, or correct the address"
    if _says(error, "definition of service", "service file"):
        return "look at PGSERVICEFILE, and at the service's name in the file and in the address"
    if _says(error, "SSL", "certificate"):
        return (
            "make sslmode, sslrootcert and the server's certificate fit, in the address or the service file"
        )
    if error.sqlstate is None and _BAD_WORD.search(str(error)):
        return "correct the address, or the PG* variable that says so"
    if isinstance(error, errors.UndefinedTable):
        return "the database or its tables are missing: `clipkeep init --catalog` makes them"
    # A standby refuses BEGIN READ WRITE as something that it does not know.
    if isinstance(error, (errors.ReadOnlySqlTransaction, errors.FeatureNotSupported)):
        return "this server is a standby: name the primary"
    return "look whether the server runs and can be reached; trying again is safe"


def _says(error: psycopg.Error, *words: str) -> bool:
    """Whether a refused connection was refused for this: libpq gives no code for it, only the server's words, which
    are English or the server's own language. Only what the advice says depends on it."""
    return error.sqlstate is None and any(word in str(error) for word in words)
