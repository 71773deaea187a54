"""The application: which pages there are, and what it owns while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from fastapi import FastAPI

from service.agreement.watching import Watching
from service.api import docs
from service.api.accounts import Accounts
from service.api.agreement import Agreement
from service.api.bodies import StrictBodies
from service.api.calls import ByClient, Calls
from service.api.clips import KeptClips
from service.api.closing import Closings
from service.api.consents import Consents
from service.api.corrections import Corrections
from service.api.cors import allow_origins
from service.api.devices import Devices
from service.api.document import describe
from service.api.elsewhere import LogInsElsewhere
from service.api.errors import answer_errors
from service.api.exports import Exports
from service.api.health import Health
from service.api.methods import Methods as PaymentMethods
from service.api.operators import Operators
from service.api.packages import Packages
from service.api.payments import Payments
from service.api.recordings import Recordings
from service.api.registration import Registrations
from service.api.reports import Reports, ReportsDoor
from service.api.routing import Methods
from service.api.services import Api, ApiServices
from service.api.sessions import Sessions
from service.api.shares import ShareLinks
from service.api.subscriptions import Subscriptions
from service.config_text import parse_origins
from service.errands.running import Errands
from service.playback import Playback
from service.rates import Watch

DESCRIPTION = """\
Times are Unix milliseconds; days are UTC, and a plan's last day ends at 00:00 UTC of the next one. Amounts of money are
whole minor units (cents) of a currency.

Owners log in with `POST /v1/sessions`; operators get a token from `clipkeep operator token`; tokens to watch one
device come from `POST /v1/devices/{n}/viewer-tokens` or `clipkeep viewer-token`. What belongs to somebody else is
answered like what does not exist. A refusal is `application/problem+json`, with a stable code as `error`.
"""

PARTS = (
    Agreement,
    Registrations,
    Sessions,
    LogInsElsewhere,
    Accounts,
    Devices,
    Packages,
    Subscriptions,
    PaymentMethods,
    Reports,
    Closings,
    Consents,
    Corrections,
    Exports,
    Operators,
    Payments,
    Recordings,
    ShareLinks,
    KeptClips,
    Health,
)


def create_app(services: ApiServices) -> FastAPI:
    """The application. Its lifespan owns the key cache: a server that runs no lifespan gets 503 for every chunk.

    What is in `services` stays the caller's, who closes it after the application has ended.
    """
    # Pages stand on the API's parts: what they import is being imported while this module is.
    from service.pages import routers as pages_of
    from service.pages.site import Site

    playback = Playback(services)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(playback.run)
            nursery.start_soon(api.errands.run)
            nursery.start_soon(api.watch.run)
            yield
            nursery.cancel_scope.cancel()

    app = FastAPI(
        title="Clipkeep",
        version="1",
        summary="Recordings of cameras, and the accounts and plans that they are kept under",
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    calls = Calls(
        threads=services.desk_threads,
        hash_threads=services.desk.settings.hash_threads,
        money_threads=services.money_threads,
        openid_threads=services.openid_threads,
        providers=len(services.providers.by_name),
        most_waiting=services.desk_waiting,
        wait_s=services.answer_s,
    )
    errands = Errands(services.errands, services.clock.now_ms)
    app.state.api = api = Api(
        services, playback, calls, Watching(services.desk), errands, Watch(services.workers)
    )
    app.state.site = site = Site(api)
    routers = [*(part(api).routes() for part in PARTS), docs.routes(), *pages_of(site)]
    for router in routers:
        app.include_router(router)
    app.state.methods = Methods(routers)
    app.add_middleware(StrictBodies, wait_s=services.body_wait_s)
    app.add_middleware(ReportsDoor, settings=services.desk.payments)
    app.add_middleware(ByClient)
    allow_origins(app, parse_origins(services.cors_origins))
    answer_errors(app)
    describe(app)
    return app
