"""Asks a PostgreSQL server whether it is backed up. See `storage.server_backups`."""

from __future__ import annotations

from contextlib import closing

from storage.postgres.database import PostgresDatabase
from storage.server_backups import ServerBackups

_MS = "(extract(epoch FROM {}) * 1000)::bigint"
_HISTORY = r"^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$"
"""A file of pg_wal that the end of a base backup leaves."""


def server_backups(url: str) -> ServerBackups:
    """Ask it.

    Raises:
        CatalogUnavailable, CallerError: as `PostgresDatabase`.
    """
    with closing(PostgresDatabase(url)) as database, database.hold() as connection:
        row = connection.execute(
            f"SELECT current_setting('archive_mode') <> 'off', {_MS.format('last_archived_time')},"
            f" {_MS.format('last_failed_time')}, pg_has_role('pg_monitor', 'USAGE')"
            " OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) FROM pg_stat_archiver"
        ).fetchone()
        assert row is not None
        archives, archived_ms, failed_ms, sees_base = row
        receivers = connection.execute(
            "SELECT application_name FROM pg_stat_replication ORDER BY 1"
        ).fetchall()
        base_ms = None
        if sees_base:
            [base_ms] = connection.execute(
                f"SELECT {_MS.format('max(modification)')} FROM pg_ls_waldir() WHERE name ~ ?", (_HISTORY,)
            ).fetchall()[0]
        names = tuple(name or "unnamed" for (name,) in receivers)
        return ServerBackups(
            database.subject, bool(archives), archived_ms, failed_ms, names, bool(sees_base), base_ms
        )
