"""Catalogs of earlier releases on PostgreSQL, brought up to date, beside a running service where it may be.

One linear chain, with the revisions of SQLite's. It begins with the first release that knew this engine (0005). A new
schema is a new entry of STEPS (frozen when it is released) and the same in the schema that `create_schema` makes.

**Two halves.** A step adds with `before` what its release needs and takes with `after` what that no longer needs. Both
releases work between the halves, so hosts may be brought up to date one after the other:

    migrate(Half.BEFORE)   `prepared_revision` in `meta` says so; the revision stays: the earlier release still opens it
    …                      every host is given the new release, and restarted
    migrate(Half.AFTER)    the revision is the new one, and the earlier release is refused

`before` must leave every statement of the earlier release as it is: new tables, columns with a default, and indexes.
A step for which that can't be has no halves (`alone`), and the service is stopped on every host.

What a step replaces stays in dead tuples, the log, replicas and backups for as long as those are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from storage.errors import CallerError, CatalogCorrupt, WorldError
from storage.postgres.connection import PostgresConnection
from storage.postgres.database import APPLICATION, PostgresDatabase
from storage.postgres.privileges import grant_again
from storage.postgres.schema import (
    COUNTED,
    FORGET_HISTORY,
    NEXT_NUMBER,
    PREPARED,
    prepared_revision,
    revision_of,
)
from storage.sql.connection import Connection
from storage.sql.meta import put_number
from storage.sql.moving_keys import moved_to_vault
from storage.sql.moving_texts import ROLES, hashed_keys, sealed_reasons
from storage.sqlite.schema import REVISION
from storage.vault import Vault


class Half(Enum):
    """What of the steps to do."""

    BEFORE = "before"
    """What the new release needs. The earlier one may run beside it."""
    AFTER = "after"
    """The rest, once no host runs the earlier release."""
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Given:
    """What a step works with. `vault` is what account keys are moved to, which earlier releases kept in the catalog."""

    connection: PostgresConnection
    vault: Vault | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the revision that it makes, and the statements of its halves; or what it does in one."""

    revision: str
    before: str = ""
    after: str = ""
    alone: Callable[[Given], None] | None = None


_LATER = ("corrections", "data_exports", "operators", "operator_tokens", "shares", "kept_clips")
_COUNTED_THEN = {table: column for table, column in COUNTED.items() if table not in _LATER}
"""What 0006 counts: without the tables that later steps add."""


def _counted_by_row() -> str:
    """Numbers without gaps: a row of `numbers` instead of a sequence."""
    lines = [NEXT_NUMBER, "ALTER TABLE devices ALTER device DROP IDENTITY;"]
    for table, column in _COUNTED_THEN.items():
        lines += [
            f"INSERT INTO numbers SELECT '{table}', greatest(coalesce(max({column}), 0),"
            f" coalesce(pg_sequence_last_value(pg_get_serial_sequence('{table}', '{column}')), 0)) FROM {table}"
            " ON CONFLICT DO NOTHING;",
            f"ALTER TABLE {table} ALTER {column} DROP IDENTITY,"
            f" ALTER {column} SET DEFAULT next_number('{table}');",
        ]
    return "\n".join([*lines, "ALTER TABLE numbers SET (fillfactor = 20);", FORGET_HISTORY])


def _keys_to_the_vault(given: Given) -> None:
    """Account keys go into the vault; the table has which account has which. No halves: what the one release would
    add beside the other, that would not find."""
    connection = given.connection
    rows = connection.execute("SELECT account, key FROM account_keys ORDER BY account").fetchall()
    moved = list(moved_to_vault(given.vault, rows, now_ms=given.now_ms))
    connection.run("""
        DROP TABLE account_keys;
        CREATE TABLE account_keys (
            key_id BYTEA PRIMARY KEY, account BIGINT UNIQUE, destroyed BIGINT NOT NULL DEFAULT 0
        );
        CREATE INDEX account_keys_ended ON account_keys (key_id) WHERE account IS NULL AND destroyed = 0;
    """)
    connection.executemany("INSERT INTO account_keys (key_id, account) VALUES (?, ?)", moved)


def _texts_sealed(given: Given) -> None:
    """What people wrote is sealed with their account's key, hashed, or gone, as in SQLite's 0008. No halves: the
    earlier release would go on writing it. Tables are written anew, and the files of the old ones go."""
    connection = given.connection
    reasons = connection.execute(
        "SELECT deletion_id, reason, key_id FROM deletions JOIN devices USING (device)"
        " LEFT JOIN account_keys USING (account)"
    ).fetchall()
    answers = connection.execute("SELECT account, key FROM answers").fetchall()
    own = connection.execute("SELECT key_id FROM account_keys WHERE account = 0").fetchone()
    sealed = [(text, number) for number, text in sealed_reasons(given.vault, reasons)]
    hashed = list(hashed_keys(given.vault, None if own is None else own[0], answers))
    roles = ", ".join(f"'{role}'" for role in ROLES)
    connection.run(f"""
        ALTER TABLE changes ALTER what TYPE TEXT USING coalesce(
            substring(what FROM '^(?:(?:owner|operator|system|sweep): )?[a-z_ -]{{0,40}}(?=:|$)'), '');
        ALTER TABLE deletions ALTER reason TYPE BYTEA USING ''::bytea, ALTER reason SET DEFAULT '',
            ALTER who TYPE TEXT USING CASE WHEN who IN ({roles}) THEN who ELSE '' END;
    """)
    connection.executemany("UPDATE deletions SET reason = ? WHERE deletion_id = ?", sealed)
    connection.executemany("UPDATE answers SET key = ? WHERE account = ? AND key = ?", hashed)
    connection.run("ALTER TABLE answers ALTER key TYPE TEXT USING key || ''")  # the dead rows' file goes


_PACKAGES = """
CREATE TABLE packages (
    package TEXT NOT NULL,
    version BIGINT NOT NULL,
    kind TEXT NOT NULL,
    months BIGINT NOT NULL,
    days BIGINT NOT NULL,
    retention_days BIGINT NOT NULL,
    max_devices BIGINT NOT NULL,
    sold_from BIGINT NOT NULL,
    sold_until BIGINT,
    made_ms BIGINT NOT NULL,
    prices TEXT NOT NULL,
    PRIMARY KEY (package, version)
);
ALTER TABLE plans ADD COLUMN package TEXT NOT NULL DEFAULT '',
    ADD COLUMN package_version BIGINT NOT NULL DEFAULT 0;
"""
_PLANS_OF_PACKAGES = "UPDATE plans SET package = kind, package_version = 1 WHERE package = '';"
"""Last, for until then the earlier release makes plans that name none."""

_METHODS = """
CREATE INDEX payments_disputed ON payments (payment_id) WHERE kind = 'dispute' AND state = 'open';
CREATE TABLE methods (
    reference TEXT PRIMARY KEY,
    account BIGINT NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    made_ms BIGINT NOT NULL,
    method BYTEA NOT NULL,
    label BYTEA NOT NULL,
    url BYTEA NOT NULL,
    until_ms BIGINT
);
CREATE INDEX methods_of_account ON methods (account);
"""
_PEOPLE = """
INSERT INTO numbers VALUES ('corrections', 0), ('data_exports', 0);
CREATE TABLE corrections (
    correction_id BIGINT PRIMARY KEY DEFAULT next_number('corrections'),
    account BIGINT NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    fields TEXT NOT NULL,
    detail BYTEA NOT NULL,
    asked_ms BIGINT NOT NULL,
    due_on BIGINT NOT NULL,
    next_on BIGINT,
    suspended_ms BIGINT,
    ended_ms BIGINT
);
CREATE INDEX corrections_of_account ON corrections (account);
CREATE INDEX corrections_due ON corrections (next_on) WHERE next_on IS NOT NULL;
CREATE TABLE policies (
    version BIGINT PRIMARY KEY, published_ms BIGINT NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE announcements (
    reference TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    from_ms BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    made_ms BIGINT NOT NULL
);
CREATE INDEX announcements_by_end ON announcements (until_ms);
CREATE TABLE consents (
    account BIGINT NOT NULL REFERENCES accounts,
    subject TEXT NOT NULL,
    given BIGINT NOT NULL,
    how TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (account, subject)
);
CREATE INDEX consents_given ON consents (subject, account) WHERE given = 1;
CREATE TABLE serials (
    device BIGINT PRIMARY KEY REFERENCES devices,
    account BIGINT NOT NULL REFERENCES accounts,
    serial BYTEA NOT NULL,
    serial_hash BYTEA UNIQUE
);
CREATE INDEX serials_of_account ON serials (account);
CREATE TABLE serial_trials (serial_hash BYTEA PRIMARY KEY, began_on BIGINT NOT NULL);
CREATE TABLE data_exports (
    export_id BIGINT PRIMARY KEY DEFAULT next_number('data_exports'),
    account BIGINT NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    asked_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    claimed_ms BIGINT NOT NULL,
    ready_ms BIGINT,
    parts BIGINT NOT NULL,
    length BIGINT NOT NULL,
    secret BYTEA NOT NULL,
    error TEXT NOT NULL
);
CREATE INDEX data_exports_of_account ON data_exports (account);
CREATE INDEX data_exports_waiting ON data_exports (export_id) WHERE state = 'queued';
ALTER TABLE notices ADD COLUMN bulk BIGINT NOT NULL DEFAULT 0;
CREATE INDEX notices_own ON notices (next_ms) WHERE state = 'queued' AND bulk = 0;
CREATE INDEX notices_bulk ON notices (next_ms) WHERE state = 'queued' AND bulk = 1;
CREATE INDEX plans_not_trials ON plans (ends_on) WHERE kind != 'trial';
"""

_CLOSED_PAYMENTS = """
CREATE INDEX payments_open ON payments (device) WHERE state = 'pending' AND kind = 'charge';
CREATE INDEX payments_by_time ON payments (at_ms, payment_id);
CREATE TABLE closed_payments (
    payment_id BIGINT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    currency TEXT NOT NULL,
    minor BIGINT NOT NULL,
    day BIGINT NOT NULL,
    reference_hash BYTEA NOT NULL UNIQUE
);
CREATE INDEX closed_payments_by_day ON closed_payments (day, payment_id);
"""

_LIMITS_AND_FEES = """
ALTER TABLE packages ADD COLUMN max_bytes_per_day BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN max_chunks_per_s BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN limit_class BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN applied_ms BIGINT;
ALTER TABLE plans ADD COLUMN limit_class BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN fee_version BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN next_fee_version BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN next_fee_minor BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN next_fee_on BIGINT NOT NULL DEFAULT 0;
CREATE INDEX subscriptions_told ON subscriptions (plan_id) WHERE next_fee_version <> 0;
CREATE TABLE daily_uploads (
    day BIGINT NOT NULL,
    device BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    chunks BIGINT NOT NULL,
    PRIMARY KEY (day, device)
);
"""
_OPERATORS = """
INSERT INTO numbers VALUES ('operators', 0), ('operator_tokens', 0) ON CONFLICT DO NOTHING;
CREATE TABLE operators (
    operator BIGINT PRIMARY KEY DEFAULT next_number('operators'),
    name BYTEA NOT NULL,
    role TEXT NOT NULL,
    added_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    account BIGINT NOT NULL REFERENCES accounts
);
CREATE TABLE operator_tokens (
    token_id BIGINT PRIMARY KEY DEFAULT next_number('operator_tokens'),
    token_hash BYTEA NOT NULL UNIQUE,
    operator BIGINT REFERENCES operators,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX operator_tokens_by_end ON operator_tokens (expires_ms);
ALTER TABLE events ADD COLUMN operator BYTEA NOT NULL DEFAULT '';
"""
_TOKENS_OF_OPERATORS = """
INSERT INTO operator_tokens (token_hash, created_ms, expires_ms)
    SELECT token_hash, created_ms, expires_ms FROM sessions WHERE account = 1;
DELETE FROM sessions WHERE account = 1;
"""
"""Last, for until then the earlier release may make and revoke them."""

_IDENTITIES = """
CREATE TABLE identities (
    account BIGINT NOT NULL REFERENCES accounts,
    provider TEXT NOT NULL,
    subject BYTEA NOT NULL,
    subject_bucket BIGINT NOT NULL,
    linked_ms BIGINT NOT NULL,
    PRIMARY KEY (account, provider)
);
CREATE INDEX identities_by_subject ON identities (subject_bucket);
"""

_SCHEDULED_RUNS = """
CREATE TABLE scheduled_runs (
    job TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    began_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""

_PAYMENT_RECORDS = """
CREATE TABLE payment_records (
    reference TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    of_reference TEXT NOT NULL
);
"""

_NAMES_AND_SIGHTINGS = """
CREATE TABLE device_names (
    device BIGINT PRIMARY KEY REFERENCES devices,
    account BIGINT NOT NULL REFERENCES accounts,
    name BYTEA NOT NULL,
    label BYTEA NOT NULL
);
CREATE INDEX device_names_of_account ON device_names (account, device);
CREATE TABLE sightings (device BIGINT PRIMARY KEY, seen_ms BIGINT NOT NULL);
CREATE TABLE refusals (
    device BIGINT NOT NULL,
    code TEXT NOT NULL,
    count BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    PRIMARY KEY (device, code)
);
"""

_HOSTS = """
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    release TEXT NOT NULL,
    registered_ms BIGINT NOT NULL,
    asked_ms BIGINT NOT NULL,
    max_stale_ms BIGINT NOT NULL,
    applied BIGINT NOT NULL DEFAULT 0,
    load_pct BIGINT NOT NULL DEFAULT 0,
    lag_ms BIGINT NOT NULL DEFAULT 0,
    offset_ms BIGINT NOT NULL DEFAULT 0
);
"""

_INITS = """
CREATE TABLE inits (
    device BIGINT PRIMARY KEY REFERENCES devices,
    epoch BIGINT NOT NULL,
    number BIGINT NOT NULL,
    expires_on BIGINT NOT NULL,
    at_ms BIGINT NOT NULL
);
"""

_SHARES = """
INSERT INTO numbers VALUES ('shares', 0) ON CONFLICT DO NOTHING;
CREATE TABLE shares (
    share_id BIGINT PRIMARY KEY DEFAULT next_number('shares'),
    account BIGINT NOT NULL REFERENCES accounts,
    device BIGINT NOT NULL REFERENCES devices,
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    token_generation BIGINT NOT NULL,
    viewer_generation BIGINT NOT NULL,
    opens BIGINT NOT NULL DEFAULT 0,
    opened_ms BIGINT
);
CREATE INDEX shares_of_device ON shares (device);
CREATE INDEX shares_of_account ON shares (account);
CREATE INDEX shares_by_end ON shares (expires_ms);
"""

_KEPT_CLIPS = """
INSERT INTO numbers VALUES ('kept_clips', 0) ON CONFLICT DO NOTHING;
CREATE TABLE kept_clips (
    clip_id BIGINT PRIMARY KEY DEFAULT next_number('kept_clips'),
    account BIGINT NOT NULL REFERENCES accounts,
    device BIGINT NOT NULL REFERENCES devices,
    epoch BIGINT NOT NULL,
    first_ms BIGINT NOT NULL,
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL,
    name BYTEA NOT NULL,
    created_ms BIGINT NOT NULL,
    state TEXT NOT NULL,
    chunks BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    claimed_ms BIGINT NOT NULL
);
CREATE INDEX kept_clips_of_device ON kept_clips (device);
CREATE INDEX kept_clips_of_account ON kept_clips (account);
CREATE INDEX kept_clips_waiting ON kept_clips (clip_id) WHERE state = 'copying';

CREATE TABLE kept_chunks (
    clip_id BIGINT NOT NULL,
    device BIGINT NOT NULL,
    capture_ms BIGINT NOT NULL,
    segment_id BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    "offset" BIGINT NOT NULL,
    length BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    crc32 BIGINT NOT NULL,
    nonce BYTEA NOT NULL,
    media BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    facts BYTEA NOT NULL,
    PRIMARY KEY (clip_id, capture_ms)
);
CREATE INDEX kept_chunks_of_segment ON kept_chunks (segment_id);
"""

STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "0005": Step("0006", before=_counted_by_row()),
        "0006": Step("0007", alone=_keys_to_the_vault),
        "0007": Step("0008", alone=_texts_sealed),
        "0008": Step("0009", before=_PACKAGES, after=_PLANS_OF_PACKAGES),
        "0009": Step("0010", before=_METHODS),
        "0010": Step("0011", before=_CLOSED_PAYMENTS),
        "0011": Step("0012", before=_PEOPLE),
        "0012": Step("0013", before=_LIMITS_AND_FEES),
        "0013": Step("0014", before=_OPERATORS, after=_TOKENS_OF_OPERATORS),
        "0014": Step("0015", before=_IDENTITIES),
        "0015": Step("0016", before=_HOSTS),
        "0016": Step("0017", before=_SCHEDULED_RUNS),
        "0017": Step("0018", before=_PAYMENT_RECORDS),
        "0018": Step("0019", before=_NAMES_AND_SIGHTINGS),
        "0019": Step("0020", before=_INITS),
        "0020": Step("0021", before=_SHARES),
        "0021": Step("0022", before=_KEPT_CLIPS),
    }
)
"""By the revision that each starts from."""


def migrate(
    url: str,
    half: Half = Half.BOTH,
    steps: Mapping[str, Step] = STEPS,
    *,
    vault: Vault | None = None,
    now_ms: int = 0,
) -> tuple[str, str]:
    """Bring a catalog to the newest revision, all steps in one transaction. One that has it stays as it is.

    Args:
        vault: what account keys are moved to, which earlier releases kept in the catalog.
        now_ms: Unix ms; the age of a key that no account comes to refer to is told from it.

    Returns:
        The revision before, and after; after `Half.BEFORE` the one that it is prepared for.

    Raises:
        CallerError: `no_catalog`; `not_prepared`, `Half.AFTER` without the half before it; `no_halves`.
        WorldError: `catalog_in_use`: an earlier release has it open, and nothing was changed.
        CatalogCorrupt: not of an earlier release; nothing was changed.
        CatalogUnavailable: the server refused; nothing was changed.
    """
    with closing(PostgresDatabase(url)) as database:

        def work(connection: Connection) -> tuple[str, str]:
            assert isinstance(connection, PostgresConnection)
            return _migrate(Given(connection, vault, now_ms), database.subject, half, steps)

        return database.write(work)


def _migrate(given: Given, subject: str, half: Half, steps: Mapping[str, Step]) -> tuple[str, str]:
    connection = given.connection
    before = revision_of(connection, subject)
    todo = list(_steps_from(before, steps, subject))
    if not todo:
        return before, before
    if half is not Half.BOTH and any(step.alone for step in todo):
        raise CallerError(
            "this release can't work beside the earlier one: stop the service on every host, and run `clipkeep catalog"
            " migrate`",
            subject=subject,
            code="no_halves",
        )
    newest, prepared = todo[-1].revision, prepared_revision(connection)
    if half is not Half.BEFORE:
        _require_left(connection, subject, newest)
    if half is Half.AFTER and prepared < newest:
        raise CallerError(
            "this release's first half has not been done: `clipkeep catalog migrate --before`",
            subject=subject,
            code="not_prepared",
        )
    for step in todo:
        if half is not Half.AFTER and prepared < step.revision:
            connection.run(step.before)
        if half is not Half.BEFORE:
            connection.run(step.after)
        if step.alone is not None:
            step.alone(given)
    put_number(connection, PREPARED, int(newest))
    if half is not Half.BEFORE:
        connection.execute("UPDATE alembic_version SET version_num = ?", (newest,))
    grant_again(connection)
    return before, newest


def _steps_from(found: str, steps: Mapping[str, Step], subject: str) -> Iterator[Step]:
    newest = max((step.revision for step in steps.values()), default=REVISION)
    while found != newest:
        if found not in steps:
            raise CatalogCorrupt(
                f"schema {found}, and no way from there to {newest}, which this release reads: it is of another"
                " release",
                subject=subject,
            )
        yield steps[found]
        found = steps[found].revision


def _require_left(connection: Connection, subject: str, newest: str) -> None:
    """Raises WorldError `catalog_in_use` while a process of an earlier release has the catalog open."""
    rows = connection.execute(
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"
        f" AND application_name LIKE '{APPLICATION}%' AND application_name < ? AND pid <> pg_backend_pid()",
        (f"{APPLICATION}/{newest}",),
    )
    if earlier := [row[0] for row in rows]:
        raise WorldError(
            f"a process of an earlier release has the catalog open ({', '.join(earlier)}): stop it on every host, wait"
            " a minute for its last connection to end, then run this again; `--before` may run beside it",
            subject=subject,
            code="catalog_in_use",
        )
