"""What `storage.catalog.schedule.ScheduleCatalog` promises."""

from __future__ import annotations

from storage.catalog import Catalog
from storage.contracts.given import OnCatalog
from storage.rows.schedule import RunRow


class ScheduleContract(OnCatalog):
    """See the module docstring."""

    def test_the_newest_run_of_each_job_is_known(self, catalog: Catalog) -> None:
        assert catalog.scheduled_runs() == {}
        begun = RunRow("sweep", "a", 1000, None, "", "")
        catalog.note_run(begun)
        catalog.note_run(RunRow("renew", "b", 1500, 1600, "busy", "another one"))
        assert catalog.scheduled_runs()["sweep"] == begun
        ended = begun._replace(ended_ms=2000, outcome="done")
        catalog.note_run(ended)
        assert catalog.scheduled_runs() == {
            "sweep": ended,
            "renew": RunRow("renew", "b", 1500, 1600, "busy", "another one"),
        }
