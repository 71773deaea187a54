"""What the API stands on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fastapi import Request

from service.agreement.desk import Desk
from service.agreement.elsewhere import Providers
from service.agreement.gateway.signing import Keys
from service.agreement.watching import Watching
from service.api.calls import Calls
from service.api.public import Public
from service.errands.running import CarryOut, Errands, none_here
from service.playback import Playback, PlaybackServices
from service.playback.used import Used
from service.rates import Watch
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.erasures import ErasuresCatalog
from storage.catalog.hosts import HostsCatalog
from storage.catalog.reports import ReportsCatalog
from storage.catalog.schedule import ScheduleCatalog
from storage.catalog.sweep import SweepCatalog


class OperationCatalog(
    ReportsCatalog, ContinuityCatalog, HostsCatalog, ScheduleCatalog, SweepCatalog, ErasuresCatalog, Protocol
):
    """What the pages of operators show: hosts, runs and reports, erasures, what each expiry day holds."""


@dataclass(frozen=True, kw_only=True)
class ApiServices(PlaybackServices):
    """What the API stands on: playback with its limits, the desk, and what operators ask for."""

    desk: Desk
    ready: Callable[[], Awaitable[dict[str, str]]]
    """What is wrong, by component; empty when the service can do its work. Bounds its own time."""
    survives: Callable[[], dict[str, str]]
    """What an acknowledged chunk survives (`storage.promise`), by what holds it."""
    metrics: Callable[[], bytes]
    """The text of `/metrics`. May block: it is called in a thread."""
    operation: OperationCatalog
    workers: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
    """What the ingest workers of this host count. See `service.rates`."""
    errands: CarryOut = none_here
    """How what operators ask for beside a page is carried out. See `service.errands`."""
    delete_delay_ms: int
    """From un-indexing an object that a deletion has emptied to deleting it."""
    used_accounts: Used = field(default_factory=Used)
    """Accounts whose owners asked something."""
    report_keys: Keys | None = None
    """What the payment gateway signs its reports with; None when there is none that reports."""
    cors_origins: str = ""
    """Whose pages may call this port from a browser: as in the configuration."""
    ingest_url: str = ""
    """Where cameras send to, as owners are shown it; "": the usual port of the host that was asked."""
    ingest_tls: bool = False
    """Whether that port speaks TLS."""
    open_metrics: bool = True
    """Whether anybody may read `/metrics`; else operators, with their token."""
    body_wait_s: float = 20.0
    """For a whole body to arrive: the longest one at 26 kbit/s."""
    desk_threads: int = 4
    """Requests about accounts worked on at once: as many as the catalog keeps connections."""
    money_threads: int = 4
    """Requests that move money worked on at once: each may wait for the payment gateway."""
    openid_threads: int = 4
    """Requests that wait for a provider of log-in at once."""
    providers: Providers = field(default_factory=Providers)
    """Where one may log in from elsewhere."""
    desk_waiting: int = 128
    """Requests that wait for a thread of their kind; more are refused as overload."""


@dataclass(frozen=True)
class Api:
    """What the handlers share, while one application runs."""

    services: ApiServices
    playback: Playback
    calls: Calls
    watching: Watching
    errands: Errands
    watch: Watch
    public: Public = field(default_factory=Public)

    @property
    def desk(self) -> Desk:
        return self.services.desk


def api_of(request: Request) -> Api:
    """For what is asked before a handler is: its dependencies."""
    return cast(Api, request.app.state.api)
