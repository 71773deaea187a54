"""Model-based tests: random operations on the real parts, beside a model of what they promise."""

import os

EXAMPLES = int(os.environ.get("CLIPKEEP_TEST_EXAMPLES", "60"))
"""Lives that each model plays, of 50 steps at most."""
