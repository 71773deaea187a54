"""The list of hosts."""

from __future__ import annotations

from storage.catalog.hosts import HostsCatalog
from storage.rows.hosts import Beat, HostRow
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, Excludes, writing


class Hosts(OnDatabase, HostsCatalog):
    @writing(Excludes.NOTHING)
    def register_host(
        self, connection: Connection, host: str, *, name: str, release: str, max_stale_ms: int
    ) -> None:
        now = connection.home_ms
        connection.execute(
            "INSERT INTO hosts (host, name, release, registered_ms, asked_ms, max_stale_ms)"
            f" VALUES (?, ?, ?, {now}, {now}, ?) ON CONFLICT (host) DO UPDATE SET name = excluded.name,"
            " release = excluded.release, registered_ms = excluded.registered_ms, asked_ms = excluded.asked_ms,"
            " max_stale_ms = excluded.max_stale_ms",
            (host, name, release, max_stale_ms),
        )

    @writing(Excludes.NOTHING)
    def beat(
        self, connection: Connection, host: str, *, applied: int, load_pct: int, lag_ms: int, clock_ms: int
    ) -> Beat | None:
        row = connection.execute(
            f"UPDATE hosts SET asked_ms = {connection.home_ms}, applied = ?, load_pct = ?,"
            f" lag_ms = ?, offset_ms = ? - {connection.home_ms} WHERE host = ? RETURNING asked_ms,"
            " (SELECT value FROM meta WHERE name = 'closed_through'),"
            " (SELECT coalesce(max(number), 0) FROM changes)",
            (applied, load_pct, lag_ms, clock_ms, host),
        ).fetchone()
        return None if row is None else Beat(*map(int, row))

    @writing(Excludes.NOTHING)
    def leave_host(self, connection: Connection, host: str) -> None:
        connection.execute("DELETE FROM hosts WHERE host = ?", (host,))

    def hosts(self) -> tuple[list[HostRow], int]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT host, name, release, registered_ms, asked_ms, applied, load_pct, lag_ms, offset_ms,"
                " max_stale_ms"
                " FROM hosts ORDER BY name, host"
            ).fetchall()
            now_ms = _home_ms(connection)
        return [HostRow(*row) for row in rows], now_ms

    def home_ms(self) -> int:
        with self.db.read() as connection:
            return _home_ms(connection)

    @writing(Excludes.NOTHING)
    def forget_hosts(self, connection: Connection, *, unseen_ms: int) -> int:
        return connection.execute(
            f"DELETE FROM hosts WHERE asked_ms < {connection.home_ms} - ?", (unseen_ms,)
        ).rowcount


def _home_ms(connection: Connection) -> int:
    [now_ms] = connection.execute(f"SELECT {connection.home_ms}").fetchone()
    return int(now_ms)
