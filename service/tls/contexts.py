"""The contexts that handshakes begin with: one for each set of names, chosen by what the client names (SNI)."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import structlog

from ingest.handshakes import HandshakeLimits, Handshakes
from service.clients import Clients, parse_proxies
from service.config import TlsSettings
from service.tls.certificates import Certificate, load_certificates
from service.tls.pairs import parse_pairs
from storage.errors import CallerError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secret and authenticated. Those of 1.3 all are."""
DAY_S = 86_400

_log = structlog.get_logger("tls")


class ServerTls:
    """What a process serves with, replaced as a whole when the files have changed.

    A connection keeps the context that it began with. So do sessions: after a reload clients make whole handshakes.

    Args:
        now_s: Unix time.

    Raises:
        CallerError: what is wrong with which file (`load_certificate`); `tls_refused`: OpenSSL does not take it.
    """

    def __init__(self, settings: TlsSettings, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now_s = now_s
        self._certificates, self._first = self._load()

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        return self._first

    def expires_s(self) -> dict[str, float]:
        """Unix time at which the certificate for a name ends, by name; the one that is served."""
        found: dict[str, float] = {}
        for certificate in self._certificates:
            for name in certificate.names:
                found[name] = min(certificate.expires_s, found.get(name, certificate.expires_s))
        return found

    def reload(self) -> bool:
        """Read the files again; when something is wrong, that is logged, and what there was goes on being served."""
        try:
            self._certificates, self._first = self._load()
        except CallerError as error:
            _log.error("tls_not_reloaded", code=error.code, detail=str(error))
            return False
        _log.info("tls_reloaded", days=self.days_left())
        return True

    def days_left(self) -> int:
        """Of the certificate that ends first."""
        return int((min(each.expires_s for each in self._certificates) - self._now_s()) // DAY_S)

    def _load(self) -> tuple[list[Certificate], ssl.SSLContext]:
        certificates = load_certificates(parse_pairs(self._settings), self._now_s())
        return certificates, make_context(certificates, self._settings.least_version)


def open_tls(settings: TlsSettings) -> ServerTls | None:
    """None: none is configured.

    Raises:
        CallerError: see `ServerTls`.
    """
    return ServerTls(settings) if parse_pairs(settings) else None


def tls_faults(settings: TlsSettings) -> list[str]:
    """What keeps a service from starting with these certificates; nothing where none are configured."""
    try:
        open_tls(settings)
    except CallerError as error:
        return [f"[tls] {error}"]
    return []


def handshakes_of(tls: ServerTls | None, settings: TlsSettings, proxies: str = "") -> Handshakes | None:
    """What comes before the first request of a connection to a port of this process. None: nothing.

    Args:
        proxies: whose connections begin with the PROXY protocol, as `parse_proxies` takes it.
    """
    said_by = Clients(parse_proxies(proxies))
    if tls is None and not said_by.proxies:
        return None
    limits = HandshakeLimits(settings.handshake_s, settings.max_handshakes, settings.plain)
    return Handshakes(None if tls is None else tls.context, limits, said_by.is_proxy)


def make_context(certificates: Sequence[Certificate], least_version: str) -> ssl.SSLContext:
    """The context of the first one; it passes over to another one's where the client names that.

    Certificates for the very same names share a context: OpenSSL chooses by the kind of key that the client takes.

    Raises:
        CallerError: `tls_refused`.
    """
    contexts: dict[frozenset[str], ssl.SSLContext] = {}
    by_name: dict[str, ssl.SSLContext] = {}
    for certificate in certificates:
        names = frozenset(certificate.names)
        if names not in contexts:
            contexts[names] = _bare_context(least_version)
        context = contexts[names]
        try:
            context.load_cert_chain(certificate.pair.certificate, certificate.pair.key)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            raise CallerError(
                f"OpenSSL does not take it ({error}): its key may be too short, or its chain incomplete",
                subject=str(certificate.pair.certificate),
                code="tls_refused",
            ) from error
        for name in certificate.names:
            by_name.setdefault(name, context)
    first = next(iter(contexts.values()))
    if len(contexts) > 1:

        def choose(handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if (named := context_for(name, by_name)) is not None:
                handshake.context = named

        first.sni_callback = cast("Callable[..., None]", choose)
    return first


def context_for(name: str | None, by_name: Mapping[str, ssl.SSLContext]) -> ssl.SSLContext | None:
    """The one for a name as the client sent it: its own, else that of `*.` before its rest (RFC 6125 §6.4.3)."""
    if not name:
        return None
    name = name.lower().rstrip(".")
    return by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}")


def _bare_context(least_version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if least_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # Renegotiation would be a handshake that no deadline bounds; compression tells lengths of secrets.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context
