"""The API port: what people, players and operators call. HTTP around `service.playback` and `service.agreement`.

`app` joins the parts, one module for each group of pages (`recordings`, `accounts`, `subscriptions`, …): what is asked,
whom it asks, how the answer is worded. `door` knows who asks, `bodies` what may come in at all, `calls` runs in threads
what blocks, `idempotent` does things once, `problems` and `errors` say what becomes of a refusal, `models` is the JSON
and `document` makes the OpenAPI document tell the truth about all of it.

An ASGI application on trio, served by `service.http`: every handler is `async def`, for a plain one would run in a
thread out of a pool that nobody here bounds.
"""

from service.api.app import create_app
from service.api.services import ApiServices

__all__ = ["ApiServices", "create_app"]
