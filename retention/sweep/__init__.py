"""The sweep: the scheduled pass that turns expiry, lapse, termination and deletion into deleted objects.

planning   what a pass would do, as a pure function of frozen facts and a moment
facts      reading those facts
guards     when nothing may be done at all
highwater  how far the catalog was, as the store remembers it
lease      one sweeper acts, a stale one changes nothing
executing  the phases of a pass
deleting   objects whose delay is over, at a pace that the store bears
rewriting  segments of which little is left
report     what a pass did
"""

from retention.sweep.executing import Sweep
from retention.sweep.guards import SweepRefused, check_catalog, check_clock
from retention.sweep.highwater import read_mark
from retention.sweep.lease import LEASE, Lease
from retention.sweep.planning import SEGMENT_PREFIX, SweepLimits, SweepPlan, is_ours
from retention.sweep.report import MAX_REPORTED_FAILURES, Progress, SweepReport

__all__ = [
    "LEASE",
    "MAX_REPORTED_FAILURES",
    "SEGMENT_PREFIX",
    "Lease",
    "Progress",
    "Sweep",
    "SweepLimits",
    "SweepPlan",
    "SweepRefused",
    "SweepReport",
    "check_catalog",
    "check_clock",
    "is_ours",
    "read_mark",
]
