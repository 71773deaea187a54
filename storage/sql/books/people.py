"""Corrections, consents, serials, downloads, and what everybody may read."""

from __future__ import annotations

from dataclasses import replace

from storage.errors import Conflict
from storage.rows.accounts import AgreementRow
from storage.rows.people import (
    AnnouncementRow,
    ConsentRow,
    CorrectionRow,
    CorrectionState,
    ExportRow,
    ExportState,
)
from storage.sql.books import texts
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table
from storage.sql.connection import Taken
from storage.sql.sealing import keyed_hash, sealed_for, unseal

CORRECTIONS = Table(
    "corrections",
    CorrectionRow,
    ("correction_id",),
    "correction",
    decode={"state": CorrectionState},
    private=("detail",),
)
POLICIES = Table("policies", AgreementRow, ("version",), "privacy policy")
ANNOUNCEMENTS = Table("announcements", AnnouncementRow, ("reference",), "announcement")
CONSENTS = Table("consents", ConsentRow, ("account", "subject"), "consent", decode={"given": bool})
EXPORTS = Table(
    "data_exports",
    ExportRow,
    ("export_id",),
    "download",
    decode={"state": ExportState},
    private=("secret",),
)
SERIAL_HASH_BYTES = 16
_SEALED_SERIAL = "serials.serial"


class People(OnBooks):
    def add_correction(self, row: CorrectionRow) -> CorrectionRow:
        return replace(row, correction_id=CORRECTIONS.add(self._writer, self._keys, row, correction_id=None))

    def put_correction(self, row: CorrectionRow) -> None:
        CORRECTIONS.put(self._writer, self._keys, row)

    def corrections(
        self, *, account: int | None = None, open_only: bool = False, after: int = 0, limit: int = 100
    ) -> list[CorrectionRow]:
        where = ["correction_id > :after"]
        where += ["account = :account"] if account is not None else []
        where += ["next_on IS NOT NULL"] if open_only else []
        named = {"after": after, "limit": limit} | ({} if account is None else {"account": account})
        return CORRECTIONS.select(
            self._reader, self._keys, f"{' AND '.join(where)} ORDER BY correction_id LIMIT :limit", named
        )

    def corrections_due(self, *, on: int, after: int = 0, limit: int = 100) -> list[CorrectionRow]:
        where = "next_on <= ? AND correction_id > ? ORDER BY correction_id LIMIT ?"
        return CORRECTIONS.select(self._reader, self._keys, where, (on, after, limit))

    # --- what everybody may read ------------------------------------------------------------------------------

    def publish_policy(self, text: str, *, now_ms: int) -> AgreementRow:
        return texts.publish(POLICIES, self._writer, self._keys, text, now_ms=now_ms)

    def policy(self, version: int | None = None) -> AgreementRow:
        return texts.one(POLICIES, self._reader, self._keys, version)

    def policies(self) -> list[AgreementRow]:
        return texts.published(POLICIES, self._reader, self._keys)

    def put_announcement(self, row: AnnouncementRow) -> None:
        ANNOUNCEMENTS.store(self._writer, self._keys, row)

    def announcements(self, *, now_ms: int, limit: int = 100) -> list[AnnouncementRow]:
        where = "until_ms > ? ORDER BY from_ms, reference LIMIT ?"
        return ANNOUNCEMENTS.select(self._reader, self._keys, where, (now_ms, limit))

    def drop_announcement(self, reference: str) -> bool:
        cursor = self._writer.execute("DELETE FROM announcements WHERE reference = ?", (reference,))
        return cursor.rowcount > 0

    # --- consents ---------------------------------------------------------------------------------------------

    def put_consent(self, row: ConsentRow) -> None:
        cells = replace(row, given=int(row.given))  # type: ignore[arg-type]  # the column is a number in both engines
        CONSENTS.store(self._writer, self._keys, cells)

    def consents_of(self, account: int) -> list[ConsentRow]:
        return CONSENTS.select(self._reader, self._keys, "account = ? ORDER BY subject", (account,))

    def consenting(self, subject: str, *, after: int = 0, limit: int = 100) -> list[int]:
        rows = self._reader.execute(
            "SELECT account FROM consents WHERE given = 1 AND subject = ? AND account > ?"
            " ORDER BY account LIMIT ?",
            (subject, after, limit),
        )
        return [row[0] for row in rows]

    # --- serials ----------------------------------------------------------------------------------------------

    def add_serial(self, device: int, account: int, serial: str) -> None:
        connection = self._writer
        sealed = sealed_for(connection, self._keys, account, _SEALED_SERIAL, serial)
        try:
            connection.try_execute(
                "INSERT INTO serials (device, account, serial, serial_hash) VALUES (?, ?, ?, ?)",
                (device, account, sealed, self._serial_hash(serial)),
            )
        except Taken as error:
            raise Conflict(
                "another device has this serial; end that one first, or ask the operator", code="serial_taken"
            ) from error

    def release_serial(self, device: int) -> None:
        self._writer.execute("UPDATE serials SET serial_hash = NULL WHERE device = ?", (device,))

    def serial_of(self, device: int) -> str | None:
        row = self._reader.execute(
            "SELECT s.serial, k.key_id FROM serials s LEFT JOIN account_keys k USING (account)"
            " WHERE s.device = ?",
            (device,),
        ).fetchone()
        if row is None or row[1] is None:
            return None
        key = self._keys.of([bytes(row[1])]).get(bytes(row[1]))
        return None if key is None else unseal(key, _SEALED_SERIAL, bytes(row[0]))

    def use_serial_trial(self, device: int, *, on: int) -> bool:
        serial = self.serial_of(device)
        if serial is None:
            return True
        cursor = self._writer.execute(
            "INSERT INTO serial_trials (serial_hash, began_on) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (self._serial_hash(serial), on),
        )
        return cursor.rowcount > 0

    def _serial_hash(self, serial: str) -> bytes:
        return keyed_hash(self._reader, self._keys, "serial", serial, SERIAL_HASH_BYTES)

    # --- downloads --------------------------------------------------------------------------------------------

    def add_export(self, row: ExportRow) -> ExportRow:
        return replace(row, export_id=EXPORTS.add(self._writer, self._keys, row, export_id=None))

    def put_export(self, row: ExportRow) -> None:
        EXPORTS.put(self._writer, self._keys, row)

    def exports(self, *, account: int | None = None, after: int = 0, limit: int = 100) -> list[ExportRow]:
        only = "" if account is None else " AND account = :account"
        named = {"after": after, "limit": limit} | ({} if account is None else {"account": account})
        where = f"export_id > :after{only} ORDER BY export_id LIMIT :limit"
        return EXPORTS.select(self._reader, self._keys, where, named)

    def exports_waiting(self, *, now_ms: int, limit: int = 100) -> list[ExportRow]:
        where = "state = 'queued' AND claimed_ms <= ? ORDER BY export_id LIMIT ?"
        return EXPORTS.select(self._reader, self._keys, where, (now_ms, limit))

    def drop_exports(self, *, before_ms: int) -> int:
        return self._writer.execute("DELETE FROM data_exports WHERE expires_ms < ?", (before_ms,)).rowcount
