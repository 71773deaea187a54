"""What a server of catalog or vault tells of its own backups, and what to make of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerBackups:
    """What PostgreSQL tells. Times are Unix ms, None when there is none.

    Attributes:
        subject: the server, without a password.
        archives: it hands its write-ahead log to something that keeps it (`archive_mode`).
        archived_ms: when it did last.
        failed_ms: when that failed last.
        receivers: who has the log sent, by the names they give: standbys, pg_receivewal, barman.
        sees_base: this role may see when a base backup was made.
        base_ms: when the last one ended. The server notes it in its log only where that is archived.
    """

    subject: str
    archives: bool
    archived_ms: int | None
    failed_ms: int | None
    receivers: tuple[str, ...]
    sees_base: bool
    base_ms: int | None

    def problems(self, *, now_ms: int, max_age_ms: int) -> list[str]:
        """Why a loss of the server could not be made good, as far as it tells; empty when all seems well.

        Args:
            max_age_ms: how old the last base backup may be.
        """
        if not self.archives and not self.receivers:
            return [
                "it keeps its write-ahead log nowhere: archive_mode is off, and nothing receives it. Archive it and"
                " make base backups"
            ]
        found = []
        if self.archives and self.archived_ms is None and not self.receivers:
            found.append("it has never archived its write-ahead log")
        if self.failed_ms is not None and self.failed_ms > (self.archived_ms or 0):
            found.append("archiving its write-ahead log fails: the server's log says why")
        if self.archives and self.sees_base and self.base_ms is None:
            found.append("its archived log knows of no base backup: make one (pg_basebackup)")
        if self.base_ms is not None and now_ms - self.base_ms > max_age_ms:
            days = (now_ms - self.base_ms) / 86_400_000
            found.append(f"the last base backup is {days:.0f} days old")
        return found

    def notes(self) -> list[str]:
        """What it does not tell."""
        found = []
        if not self.sees_base:
            found.append("this role may not see when the last base backup was made: GRANT pg_monitor to it")
        elif not self.archives:
            found.append("without an archived log the server does not tell when a base backup was made")
        return found
