"""What `storage.catalog.payment_records.PaymentRecordsCatalog` promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from storage.catalog import Catalog
from storage.contracts.given import OnCatalog
from storage.rows.payment_records import PaymentRecord

CHARGE = PaymentRecord("p-1", "charge", 1200, "EUR", "done", "July")


class PaymentRecordsContract(OnCatalog):
    """See the module docstring."""

    def test_the_first_answer_stays_the_answer(self, catalog: Catalog) -> None:
        assert catalog.recorded_payment("p-1") is None
        assert catalog.record_payment(CHARGE) == CHARGE
        assert catalog.record_payment(CHARGE._replace(outcome="declined", detail="void")) == CHARGE
        assert catalog.recorded_payment("p-1") == CHARGE

    def test_records_by_page(self, catalog: Catalog) -> None:
        refund = PaymentRecord("r-1", "refund", 200, "EUR", "done", "", "p-1")
        for record in (refund, CHARGE, CHARGE._replace(reference="p-2")):
            catalog.record_payment(record)
        assert [record.reference for record in catalog.recorded_payments(limit=2)] == ["p-1", "p-2"]
        assert catalog.recorded_payments(after="p-2") == [refund]

    def test_of_many_at_once_one_is_kept(self, catalog: Catalog) -> None:
        wanted = [CHARGE._replace(detail=str(number)) for number in range(20)]
        with ThreadPoolExecutor(10) as threads:
            kept = set(threads.map(catalog.record_payment, wanted))
        assert kept == {catalog.recorded_payment("p-1")}
