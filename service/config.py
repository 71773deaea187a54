"""Configuration: every limit has a name, a default and bounds. `service.config_text` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from service.clients import FORWARDED_FOR
from storage.open_catalog import SQLITE
from storage.open_vault import FOLDER
from storage.promise import Survives
from storage.urls import HIDDEN, masked_url, without_password, without_user

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
HOUR_S = 3600
DAY_S = 86_400
DAY_MS = 86_400_000
"""Upper bounds stop slips of the hand (ms for s, a zero too many), not large machines."""


def limit(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    most: float | None = None,
    masked: Callable[[str], str] | None = None,
) -> Any:
    """A configuration field with its default, its meaning and its bounds.

    Args:
        masked: of a text that is a secret or may hold one: what people may see of it. It is in no `repr` either.
    """
    metadata = {"doc": doc, "least": least, "most": most, "masked": masked}
    return field(default=default, repr=masked is None, metadata=metadata)


def _hidden(text: str) -> str:
    return HIDDEN if text else ""


def _masked_hook(text: str) -> str:
    return text if text in ("", "files") else masked_url(text)


@dataclass(frozen=True, slots=True)
class HomeSettings:
    catalog: str = limit(
        SQLITE,
        "sqlite: catalog.db in the data folder; or postgresql://user@host:port/database. The password is better in"
        " PGPASSWORD, a service file or a password file",
        masked=without_password,
    )
    vault: str = limit(
        FOLDER,
        "folder: keys/ in the data folder; or postgresql://user@host:port/database, a database of its own and never the"
        " catalog's. The password as for the catalog",
        masked=without_password,
    )
    survives: str = limit(
        Survives.MACHINE_CRASH.word,
        "what an acknowledged chunk has to survive, else `init` and `serve` refuse the server of catalog or vault:"
        f" {', '.join(kind.word for kind in Survives)} (of the disk too: needs a synchronous standby)",
    )
    answer_s: float = limit(
        20.0,
        "how long a camera, a viewer or an owner waits for one answer of the catalog's or the vault's server, or for a"
        " data key, before 503",
        least=1,
        most=HOUR_S,
    )


@dataclass(frozen=True, slots=True)
class HostsSettings:
    name: str = limit("", "of this host in `clipkeep hosts` and in logs; empty: the machine's")
    feed_s: float = limit(
        0.25,
        "how often this host asks home what changed; a command that changes rights waits so long for it",
        least=0.05,
        most=1,
    )
    max_stale_s: float = limit(
        5.0,
        "how long ago it may have asked: then it answers 503 host_stale to devices and viewers. A command that changes"
        " rights waits so long, and a second, for a host that does not answer; each host for its own",
        least=2,
        most=300,
    )
    forget_s: float = limit(
        3600.0, "after which a host that was killed is taken from the list", least=60, most=365 * DAY_S
    )
    lasting: bool = limit(
        True,
        "this data folder stays when the host goes; false: it goes with it, as on a volume of a pod's own, and no"
        " rotation of the wrapping keys waits for one that was not heard for ten minutes",
    )


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    on: bool = limit(
        True,
        "a running service sweeps and renews by itself, on one of its hosts at a time; false: timers run"
        " `clipkeep sweep` and `clipkeep renew` (deploy/)",
    )
    sweep_every_s: float = limit(
        3600.0, "between two sweeps; by default at 20 past each hour", least=1, most=DAY_S
    )
    renew_every_s: float = limit(
        3600.0, "between two runs that charge what is due; by default at 40 past", least=1, most=DAY_S
    )
    rotate_days: int = limit(
        0,
        "age of the wrapping key at which it is rotated; 0: only `clipkeep keys rotate` does. Backups must then take"
        " keys/master.key, or keys/, with them each time",
        least=0,
        most=3650,
    )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    url: str = limit(
        "", "file:///path or s3://bucket/prefix; empty: objects/ in the data folder", masked=without_user
    )


@dataclass(frozen=True, slots=True)
class IngestSettings:
    budget_bytes: int = limit(
        512 * MIB, "bytes in flight per worker; past it clients wait, then get 503", least=32 * MIB, most=TIB
    )
    share_bytes: int = limit(
        64 * MIB, "of these, at most so many of one connection", least=16 * MIB, most=TIB
    )
    budget_wait_s: float = limit(
        10.0, "how long a client waits for the budget before 503", least=0.1, most=HOUR_S
    )
    max_connections: int = limit(20_000, "per worker", least=1, most=1_000_000)
    max_chunk_bytes: int = limit(16 * MIB, "largest chunk", least=1, most=16 * MIB)
    max_head_bytes: int = limit(16 * 1024, "request line and headers", least=512, most=MIB)
    max_outstanding: int = limit(64, "unanswered requests of one connection", least=1, most=10_000)
    max_gathered: int = limit(
        1024,
        "besides, unanswered requests of one connection that wait for others of their day (segments.gather_wait_ms)",
        least=1,
        most=10_000,
    )
    drain_bytes: int = limit(
        16 * MIB, "of a refused body that are read and thrown away to keep the connection", least=0, most=GIB
    )
    min_body_bytes_per_s: int = limit(8000, "a body that comes slower is ended with 408", least=1, most=GIB)
    body_grace_s: float = limit(10.0, "before that rate is asked for", least=0.1, most=HOUR_S)
    head_timeout_s: float = limit(10.0, "for a request's head", least=0.1, most=HOUR_S)
    idle_timeout_s: float = limit(75.0, "of a connection between requests", least=1, most=DAY_S)
    send_timeout_s: float = limit(30.0, "for a client that does not read its answers", least=0.1, most=HOUR_S)
    linger_close_s: float = limit(
        2.0, "how long a closed connection may still read its answer", least=0.1, most=60
    )
    stranger_bytes: int = limit(
        64 * MIB,
        "of the budget, at most so many of all connections together that have shown no valid token",
        least=MIB,
        most=TIB,
    )
    max_upload_bytes: int = limit(
        256 * MIB,
        "largest resumable upload; what is more than max_chunk_bytes is cut into chunks",
        least=1,
        most=GIB,
    )
    tus_expire_h: int = limit(
        24, "for so many hours at least what came of a resumable upload is kept", least=1, most=240
    )
    cors_origins: str = limit(
        "",
        "whose pages may make resumable uploads from a browser: origins like https://app.example, separated by commas;"
        " empty is none",
    )
    chunks_per_s: float = limit(0.0, "per device and worker; 0 is no limit", least=0, most=1_000_000)
    max_cached_keys: int = limit(
        16_384, "data keys in memory per worker, about 2.7 kB each", least=16, most=10_000_000
    )
    trusted_proxies: str = limit(
        "",
        "addresses and networks of proxies before this port that say by the PROXY protocol (v1 or v2) who connects,"
        " separated by commas; a connection of theirs that does not begin so is ended",
    )
    stop_deadline_s: float = limit(30.0, "how long a stop waits for what is under way", least=0, most=HOUR_S)


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    target_bytes: int = limit(
        12 * MIB,
        "size at which a segment is sealed; of fewer than 96 chunks, half as much again",
        least=64 * 1024,
        most=128 * MIB,
    )
    linger_ms: int = limit(
        100,
        "how long its oldest chunk waits at most. An object has about 1 + chunks per second of the worker × this: one"
        " camera alone makes one a chunk",
        least=1,
        most=60_000,
    )
    max_segments: int = limit(16, "open or on their way, per worker; each a buffer", least=2, most=1024)
    gather_days: int = limit(
        4,
        "expiry days for which a device opens segments at will; chunks for further ones wait for others of their day",
        least=1,
        most=10_000,
    )
    gather_wait_ms: int = limit(5000, "how long they wait at most; 0: not at all", least=0, most=60_000)
    gather_chunks: int = limit(16, "they wait until so many are together", least=1, most=100_000)
    gather_bytes: int = limit(
        8 * MIB, "of the budget, what may wait so in a worker, 1 KiB more for each", least=64 * 1024, most=TIB
    )
    prepare_ttl_s: float = limit(
        600.0,
        "after which a prepared key is reclaimed; over twice the worst bounded PUT",
        least=5,
        most=DAY_S,
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    default_days: int = limit(
        30,
        "storage of the packages `monthly` and `annual` that a catalog begins with; then: `clipkeep package`",
        least=1,
        most=255,
    )
    max_devices: int = limit(
        1 << 24, "rows of the bitmap file, 64 bytes each, sparse; fixed by init", least=2, most=1 << 32
    )
    lapse_grace_days: int = limit(3, "after a lapse, before keys are destroyed", least=0, most=200)
    delete_delay_s: float = limit(
        3600.0, "from un-indexing an object to deleting it", least=1, most=30 * DAY_S
    )
    expiry_slack_s: float = limit(900.0, "after midnight UTC, before a day is swept", least=0, most=86_000)
    max_clock_skew_s: float = limit(
        300.0, "against the store's Date or the uptime; beyond it a sweep refuses", least=1, most=DAY_S
    )
    max_rest_h: float = limit(
        24.0,
        "for a store without a clock: how long this host may have been off before a sweep asks whether its clock is"
        " right",
        least=0,
        most=24 * 366,
    )
    bulk_limit: int = limit(1000, "erasures by lapse in one pass without --allow-bulk", least=0, most=1 << 32)
    rewrite_bytes_per_sweep: int = limit(
        4 * GIB, "of mostly dead segments, read to be rewritten in one pass; 0: never", least=0, most=TIB
    )
    lease_s: float = limit(60.0, "how long a sweeper's lease lasts unless renewed", least=1, most=DAY_S)
    retry_s: float = limit(300.0, "before a failed delete is tried again", least=0, most=DAY_S)
    key_backup_days: int = limit(
        7, "after which backups of keys/ are deleted; an erasure is cleared no sooner", least=0, most=3650
    )
    lifecycle_slack_days: int = limit(
        3, "by which the store's own expiry rules come later than the sweep", least=1, most=365
    )
    price_per_gb_month: float = limit(0.023, "of stored bytes, for reports", least=0, most=1000)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    gap_ms: int = limit(
        1000, "between two chunks, from which recordings are not contiguous", least=0, most=DAY_MS
    )
    page_chunks: int = limit(1000, "chunks in a page of a listing", least=1, most=100_000)
    max_listed_chunks: int = limit(100_000, "chunks of one playlist or export", least=10, most=10_000_000)
    live_window_ms: int = limit(60_000, "of video in a live playlist", least=10_000, most=DAY_MS)
    cors_origins: str = limit(
        "",
        "whose pages may call this port from a browser: origins like https://app.example, separated by commas;"
        " * is any, empty is none",
    )
    ingest_url: str = limit(
        "",
        "where cameras send to, as owners are shown it: https://in.example; empty: port 8080 of the page's own host",
    )
    live_wait_s: float = limit(
        10.0, "that a live playlist waits for a camera's first chunks", least=0.0, most=60.0
    )
    listing_threads: int = limit(2, "listings made at once", least=1, most=1024)
    lookup_threads: int = limit(4, "look-ups of single chunks at once", least=1, most=1024)
    store_threads: int = limit(16, "chunks fetched and decrypted at once", least=1, most=1024)
    max_bytes_held: int = limit(256 * MIB, "plaintext of chunks read or being sent", least=32 * MIB, most=TIB)
    memory_wait_s: float = limit(
        5.0, "how long a read waits for that memory before 503", least=0.1, most=HOUR_S
    )
    max_exports: int = limit(8, "exports at once", least=1, most=10_000)
    account_share: float = limit(
        0.5,
        "of memory, threads and exports: what one account may have of that which other accounts leave",
        least=0.01,
        most=1,
    )
    viewer_share: float = limit(
        0.5, "of that, what one viewer may have of what the account's others leave", least=0.01, most=1
    )
    max_still_bytes: int = limit(16 * MIB, "pictures of recordings, kept in memory", least=0, most=TIB)
    read_ahead_chunks: int = limit(4, "chunks that an export reads ahead", least=1, most=1024)
    read_ahead_bytes: int = limit(8 * MIB, "bytes of them", least=1, most=GIB)
    max_keys: int = limit(4096, "data keys in memory, about 2.7 kB each", least=16, most=10_000_000)
    open_metrics: bool = limit(True, "let anybody read /metrics; false: operators, with their token")
    body_wait_s: float = limit(20.0, "for the body of a request to arrive", least=0.1, most=HOUR_S)
    desk_threads: int = limit(4, "requests about accounts worked on at once", least=1, most=1024)
    money_threads: int = limit(
        4,
        "purchases and cancellations worked on at once; each may wait for the payment gateway",
        least=1,
        most=1024,
    )
    desk_waiting: int = limit(
        128,
        "such requests that wait for their turn before 503, shared among clients",
        least=0,
        most=1_000_000,
    )
    purge_every_s: float = limit(
        5.0, "how often destroyed keys are dropped from memory", least=0.1, most=HOUR_S
    )


@dataclass(frozen=True, slots=True)
class RemuxSettings:
    processes: int = limit(
        3,
        "of their own in which recordings are put into MP4 and pictures made, one at a time; of those that other "
        "accounts leave, one has two of three",
        least=1,
        most=256,
    )
    job_s: float = limit(
        5.0, "for one chunk; a process that takes longer is killed and replaced", least=0.5, most=600
    )
    memory_bytes: int = limit(
        512 * MIB, "of each, beside the 170 MiB of addresses that it starts with", least=64 * MIB, most=TIB
    )
    max_input_bytes: int = limit(33 * MIB, "of one chunk with its header", least=MIB, most=GIB)
    max_waiting: int = limit(64, "chunks that wait for a process before 503", least=1, most=100_000)
    wait_s: float = limit(20.0, "how long they wait", least=0.1, most=HOUR_S)
    max_jobs: int = limit(
        5000, "after which a process is replaced, with what libraries lost track of", least=1, most=1_000_000
    )


@dataclass(frozen=True, slots=True)
class HttpSettings:
    max_connections: int = limit(2000, "to the API port, 10 to 120 kB each", least=8, most=1_000_000)
    client_share: float = limit(
        0.5,
        "of the connections and turns that others leave, what one client address may have; connections of"
        " trusted_proxies have no share, their requests have",
        least=0.01,
        most=1,
    )
    requests_at_once: int = limit(
        32,
        "requests that have begun and are not answered yet; others wait for their turn",
        least=2,
        most=10_000,
    )
    max_head_bytes: int = limit(16 * 1024, "request line and headers", least=512, most=MIB)
    head_timeout_s: float = limit(10.0, "for a request's head", least=0.1, most=HOUR_S)
    body_timeout_s: float = limit(30.0, "for the next piece of a body", least=0.1, most=HOUR_S)
    idle_timeout_s: float = limit(75.0, "of a connection between requests", least=1, most=DAY_S)
    min_send_bytes_per_s: int = limit(
        8000, "a client that reads an answer slower is let go, and what it holds with it", least=1, most=GIB
    )
    send_grace_s: float = limit(
        30.0,
        "so long a client may read nothing at all: a player that pauses, a network that is away",
        least=0.1,
        most=HOUR_S,
    )
    linger_close_s: float = limit(
        5.0,
        "how long a client that was refused may go on sending before it reads its answer",
        least=0.1,
        most=60,
    )
    drain_bytes: int = limit(17 * MIB, "of what it sends meanwhile", least=0, most=GIB)
    trusted_proxies: str = limit(
        "",
        "addresses and networks of proxies before this port, separated by commas, such as 10.0.0.0/8, ::1; who asks is"
        " taken from their header, and from nobody else's",
    )
    forwarded_header: str = limit(
        FORWARDED_FOR,
        "the header that they set: x-forwarded-for, or forwarded (RFC 7239); no other one is read",
    )
    proxy_protocol: bool = limit(
        False,
        "connections of trusted_proxies begin with the PROXY protocol (v1 or v2), before TLS, and who asks is whom it"
        " names, not their header; one that does not begin so is ended",
    )


@dataclass(frozen=True, slots=True)
class TlsSettings:
    certificate: str = limit(
        "",
        "PEM files with a certificate and its chain, by their whole paths, separated by commas; empty: both ports speak"
        " in clear. Several: for several names (SNI), or of another kind of key for the same ones; the first is for"
        " clients that name none of them",
    )
    key: str = limit(
        "", "PEM files with their keys, in the same order; empty: each is in its certificate's file"
    )
    least_version: str = limit("1.2", "of TLS that a client may speak: 1.2 or 1.3")
    plain: bool = limit(
        False, "take requests in clear on both ports, too; false: they are answered 400 tls_required"
    )
    handshake_s: float = limit(10.0, "for a handshake", least=0.1, most=HOUR_S)
    max_handshakes: int = limit(
        512,
        "under way at once in each process, up to 64 KiB each; when another comes, the longest is let go",
        least=1,
        most=100_000,
    )


@dataclass(frozen=True, slots=True)
class AgreementSettings:
    currency: str = limit("USD", "ISO 4217 code of fees when a purchase names none")
    monthly_fee_minor: int = limit(
        599,
        "of the package `monthly` that a catalog begins with, in minor units; then: `clipkeep package price`",
        least=0,
        most=10**9,
    )
    annual_fee_minor: int = limit(
        5999, "of the package `annual` that a catalog begins with; likewise", least=0, most=10**10
    )
    charge_ahead_days: int = limit(
        3, "before a monthly period ends, from which the next one is charged", least=1, most=27
    )
    fee_notice_days: int = limit(
        30, "before the first period at a higher fee, when its owner is told", least=1, most=3650
    )
    charge_retry_h: float = limit(12.0, "before a failed charge is tried again", least=0.01, most=24 * 27)
    purchase_ttl_h: float = limit(
        24.0, "after which a purchase that the gateway has not answered expires", least=0.1, most=24 * 27
    )
    payment_retry_s: float = limit(
        60.0,
        "before a payment that was not answered is asked for again; doubles each time",
        least=0.1,
        most=DAY_S,
    )
    payment_max_retry_s: float = limit(3600.0, "longest such pause", least=1, most=DAY_S)
    payment_threads: int = limit(8, "payments worked on at once, by a run of `renew`", least=1, most=64)
    payment_calls: int = limit(
        64,
        "of a run, that wait for the gateway's answers at once: a thread of some 50 kB each",
        least=1,
        most=512,
    )
    payment_wait_s: float = limit(
        20.0,
        "for the gateway's answer to one call; a later one is heard at the next call",
        least=0.1,
        most=100,
    )
    payment_run_s: float = limit(
        600.0, "for which one run asks the gateway; what it did not come to is next", least=1, most=DAY_S
    )
    max_devices_per_account: int = limit(100, "of an owner", least=1, most=1_000_000)
    max_shares_per_device: int = limit(50, "share links of a device", least=1, most=1000)
    max_kept_bytes: int = limit(
        10 * GIB, "that an account keeps as clips beyond their expiry; 0: none", least=0, most=1 << 62
    )
    max_clips_per_device: int = limit(200, "kept clips of a device", least=1, most=1000)
    max_share_days: int = limit(90, "longest time for which a share link may be used", least=1, most=3660)
    serial_pattern: str = limit(
        "", "regular expression that the serial of an owner's device has to match; empty: no pattern"
    )
    serial_list: str = limit(
        "",
        "file with the serials that there are, one a line, by its whole path; empty: no list. With pattern or list a"
        " device is added by its serial",
    )
    serial_failures: int = limit(
        10, "wrong serials before adding devices slows down, per account", least=1, most=1_000_000
    )
    min_account_age_days: int = limit(7, "before an owner may cancel the account (6.2.1)", least=0, most=3650)
    dormant_days: int = limit(
        365, "without use, after which an account is dormant (6.1.2)", least=1, most=36_500
    )
    correction_days: int = limit(
        14, "that an owner has to correct untrue data once asked (6.1.1)", least=1, most=3650
    )
    correction_remind_days: int = limit(
        7,
        "before the last of them, when the owner is reminded; so long an owner was told at least before a suspension."
        " 0: no reminder",
        least=0,
        most=3650,
    )
    correction_cancel_days: int = limit(
        30, "from a suspension for that to the order of the cancellation", least=1, most=3650
    )
    trial_notice_days: int = limit(
        3,
        "before the last day of a trial, or of a plan that does not renew itself, when its owner is told; 0: on it",
        least=0,
        most=13,
    )
    advertise_unasked: bool = limit(
        False,
        "send advertisements also to owners who have said nothing of them; each has a link that ends them",
    )
    partners: str = limit(
        "",
        "who may be given data of owners who consent, and which: `weather: account email; insurer: account name`;"
        " empty: nobody",
    )
    export_max_bytes: int = limit(
        256 * MIB,
        "of a download of all that is kept about an account; so much of this host's disk is needed while one is made",
        least=MIB,
        most=16 * GIB,
    )
    reserve_days: int = limit(
        10, "for which the addresses of a cancelled account can't be used again (6.5.2)", least=0, most=3650
    )
    session_h: float = limit(720.0, "how long a log-in lasts", least=0.01, most=24 * 366)
    code_minutes: float = limit(
        30.0, "how long a code from a notice can be used", least=0.1, most=7 * 24 * 60
    )
    min_password_chars: int = limit(10, "of a password", least=8, most=128)
    login_failures: int = limit(
        5, "wrong passwords before log-ins slow down, per account", least=1, most=10_000
    )
    login_failures_per_client: int = limit(
        50, "wrong passwords before log-ins slow down, per client address", least=1, most=1_000_000
    )
    login_lock_s: float = limit(
        30.0, "first pause after too many; doubles with each further failure", least=0.1, most=DAY_S
    )
    login_max_lock_s: float = limit(3600.0, "longest pause", least=1, most=7 * DAY_S)
    registrations_per_h: int = limit(20, "per client address", least=1, most=1_000_000)
    codes_per_address_h: int = limit(
        6,
        "codes, or notices in their place, that one e-mail address or number is sent; one client may ask for half of"
        " them, and a code is sent again after an hour's part",
        least=1,
        most=1000,
    )
    hash_threads: int = limit(2, "passwords hashed at once, 64 MiB each", least=1, most=256)
    housekeeping_s: float = limit(
        60.0,
        "how often the API process sends notices, ends cancelled accounts, and drops what is stale",
        least=0.05,
        most=HOUR_S,
    )


@dataclass(frozen=True, slots=True)
class PaymentSettings:
    gateway: str = limit(
        "record",
        "record: payments are only written down, in payments/; http: `url` is asked (docs/payments.md)",
    )
    url: str = limit("", "of the payment gateway: https://host/path", masked=_masked_hook)
    keys: str = limit(
        "",
        "that both sides sign with: one, or two with a space between them while it is changed. Better in the"
        " environment (CLIPKEEP_PAYMENTS_KEYS) or in key_file",
        masked=_hidden,
    )
    key_file: str = limit(
        "", "a file with the keys instead, a line each; read again when it changes, so nothing is restarted"
    )
    ca_file: str = limit("", "of who signed the gateway's certificate; empty: those that the system trusts")
    return_url: str = limit("", "where the gateway sends a customer back to; empty: it decides")
    connect_s: float = limit(5.0, "to have a connection to the gateway, TLS included", least=0.1, most=100)
    answer_s: float = limit(
        15.0,
        "for a request to it in all; [agreement] payment_wait_s is for whatever gateway",
        least=0.1,
        most=100,
    )
    max_answer_bytes: int = limit(64 * 1024, "of one answer", least=1024, most=16 * MIB)
    report_window_s: int = limit(
        300,
        "by which the time of a report may differ from ours; an older one is refused",
        least=1,
        most=DAY_S,
    )
    max_report_bytes: int = limit(
        16 * 1024, "of one report; more is refused before it is read", least=1024, most=64 * 1024
    )
    max_methods: int = limit(10, "payment methods of an account", least=1, most=100)


@dataclass(frozen=True, slots=True)
class NoticeSettings:
    mail: str = limit(
        "files",
        "how e-mail goes out: files (notices/ in the data folder) or smtp://host:port",
        masked=without_user,
    )
    mobile: str = limit(
        "files",
        "how text messages go out: files or the http(s):// address of an SMS hook",
        masked=_masked_hook,
    )
    push: str = limit(
        "",
        "the http(s):// address of a hook for push messages: it gets every notice but codes, to the account's number."
        " Empty: none",
        masked=_masked_hook,
    )
    public_url: str = limit(
        "",
        "https:// address of this API port as owners reach it: of links in notices. Advertisements need it",
    )
    templates: str = limit(
        "",
        "folder of the texts of notices in your language, from the data folder on; `clipkeep notices templates --to`"
        " fills one to begin with. Empty: English",
    )
    mail_from: str = limit("clipkeep@localhost", "sender of e-mail")
    operators: str = limit(
        "",
        "e-mail address that is told what somebody has to see to, as refunds that were refused; empty: nobody",
    )
    smtp_user: str = limit("", "for SMTP log-in; the password is CLIPKEEP_NOTICES_SMTP_PASSWORD")
    smtp_password: str = limit("", "better in the environment than in a file", masked=_hidden)
    smtp_starttls: bool = limit(True, "ask the mail server for TLS, and refuse to go on without")
    send_timeout_s: float = limit(30.0, "for one message", least=0.1, most=HOUR_S)
    retry_s: float = limit(
        60.0, "before a failed message is tried again; doubles up to a day", least=0.1, most=DAY_S
    )
    max_attempts: int = limit(
        12, "before a message is given up and shown to the operator", least=1, most=1000
    )


@dataclass(frozen=True, slots=True)
class OpenIdSettings:
    providers: str = limit(
        "",
        "log-in from elsewhere: NAME ISSUER CLIENT_ID, several separated by ; (google https://accounts.google.com"
        " 1234.apps.example); empty: there is none",
    )
    secrets: str = limit(
        "", "NAME SECRET, several separated by ;: better in the environment than in a file", masked=_hidden
    )
    redirect_uris: str = limit(
        "", "where providers send a browser back, separated by blanks; the first one when a client names none"
    )
    trusted_emails: str = limit(
        "", "names of providers whose word for an e-mail address is believed, separated by blanks"
    )
    timeout_s: float = limit(10.0, "for an answer of a provider", least=0.1, most=120)
    skew_s: float = limit(60.0, "by which a provider's clock may differ", least=0, most=600)
    log_in_minutes: float = limit(10.0, "for the way to the provider and back", least=0.1, most=60)
    log_ins_per_h: int = limit(60, "that a client may begin, and end", least=1, most=1_000_000)
    threads: int = limit(4, "requests that wait for a provider at once", least=1, most=64)


@dataclass(frozen=True, slots=True)
class ClockSettings:
    test: bool = limit(False, "allow `clipkeep clock` to move the time: for demos and tests only")


@dataclass(frozen=True, slots=True)
class Config:
    home: HomeSettings = field(default_factory=HomeSettings)
    hosts: HostsSettings = field(default_factory=HostsSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    segments: SegmentSettings = field(default_factory=SegmentSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    remux: RemuxSettings = field(default_factory=RemuxSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    agreement: AgreementSettings = field(default_factory=AgreementSettings)
    payments: PaymentSettings = field(default_factory=PaymentSettings)
    notices: NoticeSettings = field(default_factory=NoticeSettings)
    openid: OpenIdSettings = field(default_factory=OpenIdSettings)
    clock: ClockSettings = field(default_factory=ClockSettings)
