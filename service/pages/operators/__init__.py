"""The pages of operators, at `/operator`: what goes on, who is on file, and what may be done about it.

Each handler asks the door for an operator who may look, and `allowed` for what his role may do beyond that; owners get
404. What a role may not do is not offered either. What is shown is bounded in cost: pages of rows, and what needs a sum
over all segments is kept for a while and made once at a time (`kept`).
"""

from __future__ import annotations

from service.pages.operators.accounts import Accounts
from service.pages.operators.deciding import Deciding
from service.pages.operators.erasures import Erasures
from service.pages.operators.fleet import Fleet
from service.pages.operators.holding import Holding
from service.pages.operators.moneyed import Moneyed
from service.pages.operators.noticed import Noticed
from service.pages.operators.story import Stories
from service.pages.operators.sweeps import Sweeps

OPERATOR_PARTS = (Fleet, Accounts, Stories, Deciding, Moneyed, Sweeps, Erasures, Noticed, Holding)
