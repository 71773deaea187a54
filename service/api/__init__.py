"""The API port: what people, players and operators call. HTTP around `service.playback`.

`app` has the routes, `pages` the handlers, `asking` the parameters, `responses` the answers, `models` their JSON
and `errors` what becomes of a failure.

Runs under Hypercorn's trio worker: every handler is `async def`, for a plain one would run in a thread out of
a pool that nobody here bounds.
"""

from service.api.app import create_app
from service.api.services import ApiServices

__all__ = ["ApiServices", "create_app"]
