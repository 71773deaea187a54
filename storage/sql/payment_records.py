"""Records of the recording gateway."""

from __future__ import annotations

from storage.catalog.payment_records import PaymentRecordsCatalog
from storage.rows.payment_records import PaymentRecord
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, Excludes, writing

_COLUMNS = "reference, kind, minor, currency, outcome, detail, of_reference"
_ONE = f"SELECT {_COLUMNS} FROM payment_records WHERE reference = ?"


class PaymentRecords(OnDatabase, PaymentRecordsCatalog):
    @writing(Excludes.NOTHING)
    def record_payment(self, connection: Connection, record: PaymentRecord) -> PaymentRecord:
        connection.execute(
            f"INSERT INTO payment_records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            tuple(record),
        )
        return PaymentRecord(*connection.execute(_ONE, (record.reference,)).fetchone())

    def recorded_payment(self, reference: str) -> PaymentRecord | None:
        with self.db.read() as connection:
            row = connection.execute(_ONE, (reference,)).fetchone()
        return None if row is None else PaymentRecord(*row)

    def recorded_payments(self, *, after: str = "", limit: int = 1000) -> list[PaymentRecord]:
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM payment_records WHERE reference > ? ORDER BY reference LIMIT ?",
                (after, limit),
            ).fetchall()
        return [PaymentRecord(*row) for row in rows]
