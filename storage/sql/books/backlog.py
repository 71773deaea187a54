"""What waits for somebody: counts for metrics, each from an index of what waits alone."""

from __future__ import annotations

from storage.rows.accounts import MAX_OVERDUE_DAYS, Backlog
from storage.sql.books.base import OnBooks

# The conditions are written as the partial indexes have them: with a parameter SQLite would not use those.
BACKLOG = """
SELECT
    (SELECT count(*) FROM notices WHERE state = 'queued') AS queued_notices,
    (SELECT min(next_ms) FROM notices WHERE state = 'queued') AS first_due_ms,
    (SELECT count(*) FROM notices WHERE state = 'failed') AS failed_notices,
    (SELECT count(*) FROM accounts WHERE closing = 'requested' AND state != 'cancelled') AS requested_closings,
    (SELECT count(*) FROM accounts WHERE closing = 'approved' AND state != 'cancelled') AS approved_closings,
    (SELECT count(*) FROM plans p CROSS JOIN subscriptions s
        WHERE s.plan_id = p.plan_id AND kind = 'monthly' AND ends_on BETWEEN :from_day AND :day - 1
            AND renews = 1) AS overdue_renewals,
    (SELECT count(*) FROM payments WHERE state = 'pending') AS pending_payments,
    (SELECT min(+at_ms) FROM payments p WHERE state = 'pending' AND NOT (kind = 'refund' AND EXISTS
        (SELECT 1 FROM payments d WHERE d.kind = 'dispute' AND d.state = 'open' AND +d.plan_id = p.plan_id)))
        AS oldest_pending_ms,
    (SELECT count(*) FROM payments WHERE state = 'pending' AND attempts > 0) AS unanswered_payments,
    (SELECT count(*) FROM payments WHERE kind = 'refund' AND state = 'failed') AS failed_refunds,
    (SELECT count(*) FROM payments WHERE kind = 'dispute' AND state = 'open') AS open_disputes
"""
"""`+at_ms`: through an index of times SQLite would look for the oldest pending payment among all; `+d.plan_id`: through
that of plans for disputes among all payments of each. The order of the
CROSS JOIN is kept by SQLite: from the few plans that ended lately to their subscriptions."""


class Waiting(OnBooks):
    def backlog(self, *, on: int) -> Backlog:
        row = self._reader.execute(BACKLOG, {"from_day": on - MAX_OVERDUE_DAYS, "day": on}).fetchone()
        return Backlog(*row)
