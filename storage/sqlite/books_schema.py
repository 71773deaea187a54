"""The tables of the account books. `accounts`, which devices refer to, is in `storage.sqlite.schema`.

Columns are named as the fields of the records in `storage.rows.accounts`. Numbers are never given twice
(AUTOINCREMENT), though rows go with their account: a payment's is known to a gateway, a notice's names a file.
Texts in BLOB columns are sealed with the account's key (`storage.sql.sealing`).
"""

BOOKS_TABLES = """
CREATE TABLE account_keys (
    key_id BLOB PRIMARY KEY,
    account INTEGER UNIQUE,  -- NULL: it has ended; the vault destroys it. Below 0: a kept clip's
    destroyed INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX account_keys_ended ON account_keys (key_id) WHERE account IS NULL AND destroyed = 0;

CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_account ON sessions (account);
CREATE INDEX sessions_by_end ON sessions (expires_ms);

-- Links to a range of one device: `storage.rows.shares`.
CREATE TABLE shares (
    share_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: a token names it
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER NOT NULL REFERENCES devices,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    token_generation INTEGER NOT NULL,
    viewer_generation INTEGER NOT NULL,
    opens INTEGER NOT NULL DEFAULT 0,
    opened_ms INTEGER
) STRICT;
CREATE INDEX shares_of_device ON shares (device);
CREATE INDEX shares_of_account ON shares (account);
CREATE INDEX shares_by_end ON shares (expires_ms);

-- Ranges that owners keep: `storage.rows.clips`. Their keys are in account_keys, under -clip_id.
CREATE TABLE kept_clips (
    clip_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: addresses and keys of objects name it
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER NOT NULL REFERENCES devices,
    epoch INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    name BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX kept_clips_of_device ON kept_clips (device);
CREATE INDEX kept_clips_of_account ON kept_clips (account);
CREATE INDEX kept_clips_waiting ON kept_clips (clip_id) WHERE state = 'copying';

CREATE TABLE kept_chunks (
    clip_id INTEGER NOT NULL,
    device INTEGER NOT NULL,
    capture_ms INTEGER NOT NULL,
    segment_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    length INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    media INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    facts BLOB NOT NULL,
    PRIMARY KEY (clip_id, capture_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_chunks_of_segment ON kept_chunks (segment_id);

CREATE TABLE identities (
    account INTEGER NOT NULL REFERENCES accounts,
    provider TEXT NOT NULL,
    subject BLOB NOT NULL,
    subject_bucket INTEGER NOT NULL,
    linked_ms INTEGER NOT NULL,
    PRIMARY KEY (account, provider)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_subject ON identities (subject_bucket);
CREATE TABLE operators (
    operator INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL,
    role TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    account INTEGER NOT NULL REFERENCES accounts
) STRICT;
CREATE TABLE operator_tokens (
    token_id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB NOT NULL UNIQUE,
    operator INTEGER REFERENCES operators,  -- NULL: of the built-in operator
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX operator_tokens_by_end ON operator_tokens (expires_ms);

CREATE TABLE codes (
    account INTEGER NOT NULL REFERENCES accounts,
    purpose TEXT NOT NULL,
    address BLOB NOT NULL,
    code_hash BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (account, purpose)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    subject_hash BLOB PRIMARY KEY,
    count INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    locked_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE packages (
    package TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    months INTEGER NOT NULL,
    days INTEGER NOT NULL,
    retention_days INTEGER NOT NULL,
    max_devices INTEGER NOT NULL,
    sold_from INTEGER NOT NULL,
    sold_until INTEGER,
    made_ms INTEGER NOT NULL,
    prices TEXT NOT NULL,  -- JSON
    max_bytes_per_day INTEGER NOT NULL DEFAULT 0,
    max_chunks_per_s INTEGER NOT NULL DEFAULT 0,
    limit_class INTEGER NOT NULL DEFAULT 0,
    applied_ms INTEGER,  -- since when its price is that of running plans too
    PRIMARY KEY (package, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    plan_id INTEGER PRIMARY KEY REFERENCES plans,
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER NOT NULL REFERENCES devices,
    currency TEXT NOT NULL,
    fee_minor INTEGER NOT NULL,
    monthly_fee_minor INTEGER NOT NULL,
    renews INTEGER NOT NULL,
    method BLOB NOT NULL,
    agreement_version INTEGER NOT NULL,
    bought_ms INTEGER NOT NULL,
    retry_at_ms INTEGER NOT NULL,
    failed_charges INTEGER NOT NULL,
    fee_version INTEGER NOT NULL DEFAULT 0,
    next_fee_version INTEGER NOT NULL DEFAULT 0,
    next_fee_minor INTEGER NOT NULL DEFAULT 0,
    next_fee_on INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX subscriptions_of_account ON subscriptions (account);
CREATE INDEX subscriptions_of_device ON subscriptions (device);
CREATE INDEX subscriptions_told ON subscriptions (plan_id) WHERE next_fee_version <> 0;
CREATE INDEX subscriptions_renewing ON subscriptions (plan_id) WHERE renews = 1;

CREATE TABLE payments (
    payment_id INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL UNIQUE,
    account INTEGER NOT NULL REFERENCES accounts,
    plan_id INTEGER REFERENCES plans,
    device INTEGER NOT NULL REFERENCES devices,
    kind TEXT NOT NULL,
    currency TEXT NOT NULL,
    minor INTEGER NOT NULL,
    state TEXT NOT NULL,
    why BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    settled_ms INTEGER,
    gateway_id BLOB NOT NULL,
    detail BLOB NOT NULL,  -- JSON
    attempts INTEGER NOT NULL DEFAULT 0,
    next_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX payments_of_account ON payments (account);
CREATE INDEX payments_of_plan ON payments (plan_id);
CREATE INDEX payments_pending ON payments (next_ms, payment_id) WHERE state = 'pending';
CREATE INDEX payments_refused ON payments (payment_id) WHERE kind = 'refund' AND state = 'failed';
CREATE INDEX payments_disputed ON payments (payment_id) WHERE kind = 'dispute' AND state = 'open';
CREATE INDEX payments_open ON payments (device) WHERE state = 'pending' AND kind = 'charge';
CREATE INDEX payments_by_time ON payments (at_ms, payment_id);

CREATE TABLE methods (
    reference TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    method BLOB NOT NULL,
    label BLOB NOT NULL,
    url BLOB NOT NULL,
    until_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX methods_of_account ON methods (account);

-- What stays of payments that moved money when their account is erased: nothing of whose they were.
CREATE TABLE closed_payments (
    payment_id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    currency TEXT NOT NULL,
    minor INTEGER NOT NULL,
    day INTEGER NOT NULL,
    reference_hash BLOB NOT NULL UNIQUE  -- keyed: a gateway's record is told by it
) STRICT;
CREATE INDEX closed_payments_by_day ON closed_payments (day, payment_id);

CREATE TABLE blocks (
    block_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    kind TEXT NOT NULL,
    detail BLOB NOT NULL,
    who BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    lifted_ms INTEGER
) STRICT;
CREATE INDEX blocks_of_account ON blocks (account);

CREATE TABLE events (
    event_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    device INTEGER,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    why BLOB NOT NULL,
    facts BLOB NOT NULL,  -- JSON
    at_ms INTEGER NOT NULL,
    operator BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX events_of_account ON events (account);
CREATE TRIGGER events_stay_as_written BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;
CREATE TRIGGER events_go_with_their_account BEFORE DELETE ON events
WHEN (SELECT state FROM accounts WHERE account = OLD.account) IS NOT 'cancelled' BEGIN
    SELECT RAISE(ABORT, 'events go only with their account');
END;

CREATE TABLE notices (
    notice_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    channel TEXT NOT NULL,
    address BLOB NOT NULL,
    purpose TEXT NOT NULL,
    subject BLOB NOT NULL,
    body BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    settled_ms INTEGER,
    error BLOB NOT NULL,
    bulk INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX notices_of_account ON notices (account);
CREATE INDEX notices_queued ON notices (next_ms) WHERE state = 'queued';
CREATE INDEX notices_codes ON notices (next_ms)
    WHERE state = 'queued' AND purpose IN ('activate', 'email', 'mobile', 'password');
CREATE INDEX notices_failed ON notices (notice_id) WHERE state = 'failed';
CREATE INDEX notices_own ON notices (next_ms) WHERE state = 'queued' AND bulk = 0;
CREATE INDEX notices_bulk ON notices (next_ms) WHERE state = 'queued' AND bulk = 1;

CREATE TABLE agreements (
    version INTEGER PRIMARY KEY, published_ms INTEGER NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE acceptances (
    account INTEGER NOT NULL REFERENCES accounts,
    version INTEGER NOT NULL REFERENCES agreements,
    how TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    account INTEGER NOT NULL REFERENCES accounts,
    key TEXT NOT NULL,  -- a keyed hash of it: a client writes there what it likes
    request_sha256 BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    holder TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_time ON answers (at_ms);

-- Keyed hashes of addresses that may not be used again yet.
CREATE TABLE reserved_addresses (address_hash BLOB PRIMARY KEY, until_day INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Requests to correct untrue data (agreement 6.1.1).
CREATE TABLE corrections (
    correction_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    fields TEXT NOT NULL,
    detail BLOB NOT NULL,
    asked_ms INTEGER NOT NULL,
    due_on INTEGER NOT NULL,
    next_on INTEGER,
    suspended_ms INTEGER,
    ended_ms INTEGER
) STRICT;
CREATE INDEX corrections_of_account ON corrections (account);
CREATE INDEX corrections_due ON corrections (next_on) WHERE next_on IS NOT NULL;

CREATE TABLE policies (
    version INTEGER PRIMARY KEY, published_ms INTEGER NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL
) STRICT;

CREATE TABLE announcements (
    reference TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    made_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX announcements_by_end ON announcements (until_ms);

CREATE TABLE consents (
    account INTEGER NOT NULL REFERENCES accounts,
    subject TEXT NOT NULL,
    given INTEGER NOT NULL,
    how TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX consents_given ON consents (subject, account) WHERE given = 1;

CREATE TABLE serials (
    device INTEGER PRIMARY KEY REFERENCES devices,
    account INTEGER NOT NULL REFERENCES accounts,
    serial BLOB NOT NULL,
    serial_hash BLOB UNIQUE  -- NULL: another device may have it
) STRICT;
CREATE INDEX serials_of_account ON serials (account);
-- Keyed hashes of serials that had their trial; they stay when accounts end.
CREATE TABLE serial_trials (serial_hash BLOB PRIMARY KEY, began_on INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE device_names (
    device INTEGER PRIMARY KEY REFERENCES devices,
    account INTEGER NOT NULL REFERENCES accounts,
    name BLOB NOT NULL,
    label BLOB NOT NULL
) STRICT;
CREATE INDEX device_names_of_account ON device_names (account, device);

CREATE TABLE data_exports (
    export_id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    state TEXT NOT NULL,
    asked_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL,
    ready_ms INTEGER,
    parts INTEGER NOT NULL,
    length INTEGER NOT NULL,
    secret BLOB NOT NULL,
    error TEXT NOT NULL
) STRICT;
CREATE INDEX data_exports_of_account ON data_exports (account);
CREATE INDEX data_exports_waiting ON data_exports (export_id) WHERE state = 'queued';
"""
