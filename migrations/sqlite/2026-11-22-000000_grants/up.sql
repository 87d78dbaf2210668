-- One row per grant. Times are milliseconds since the Unix epoch; NULL is "unknown", the largest integer "never".
-- Structured columns that only the protocol reads are JSON. Ciphertext and fingerprints are BLOBs.
CREATE TABLE grants (
    id                 INTEGER PRIMARY KEY NOT NULL,
    idp                TEXT    NOT NULL,
    user_id            TEXT    NOT NULL,
    account            TEXT    NOT NULL,
    grant_id           TEXT    NOT NULL UNIQUE,
    revision           BIGINT  NOT NULL,  -- grows with every write; writes compare and swap it
    incarnation        BLOB    NOT NULL,  -- random, new with each connect
    generation         BIGINT  NOT NULL,  -- never decreases
    client_id          TEXT,              -- the client that the grant was issued to
    refresh_token      BLOB,              -- sealed
    fingerprint        BLOB,              -- of refresh_token
    parent             BLOB,              -- fingerprint of the token that refresh_token was obtained with
    committed_by       TEXT,              -- {attempt, epoch}
    alt                BLOB,              -- sealed: a second response to the same parent
    alt_origin         TEXT,              -- {fingerprint, attempt, epoch}
    epoch              BIGINT  NOT NULL,  -- grows with each claim and recovery
    lease              TEXT,              -- {attempt, owner}
    lease_until        BIGINT,
    intent             TEXT,              -- {generation, since, settle_from, recovered, senders}
    verdict            TEXT,              -- {code, since, by}
    held               TEXT,              -- the reason
    issued_at          BIGINT  NOT NULL,
    expires_at         BIGINT,
    refresh_expires_at BIGINT,
    due_at             BIGINT,
    retry_at           BIGINT,
    last_error         TEXT,              -- {code, at, failures}
    document           BLOB    NOT NULL,  -- sealed: access token, type, scope, subject, params, extra
    tombstone          TEXT,              -- {at, revoke, restorable}
    changed_at         BIGINT  NOT NULL,
    wake_at            BIGINT,            -- when the row needs attention
    UNIQUE (idp, user_id, account)
);
CREATE INDEX grants_wake ON grants (wake_at, id) WHERE wake_at IS NOT NULL;
CREATE INDEX grants_fingerprint ON grants (fingerprint) WHERE fingerprint IS NOT NULL;

-- Refresh tokens that a grant was connected with (kept for ever) or has spent (kept 180 days).
CREATE TABLE fingerprints (
    fingerprint BLOB    NOT NULL,
    grant_row   INTEGER NOT NULL,
    connected   BOOLEAN NOT NULL,
    spent       BOOLEAN NOT NULL,
    at          BIGINT  NOT NULL,
    PRIMARY KEY (fingerprint, grant_row)
) WITHOUT ROWID;

-- Refresh tokens to revoke at the identity provider.
CREATE TABLE revocations (
    id       INTEGER PRIMARY KEY NOT NULL,
    idp      TEXT    NOT NULL,
    user_id  TEXT    NOT NULL,
    account  TEXT    NOT NULL,
    token    BLOB    NOT NULL,            -- sealed
    due_at   BIGINT  NOT NULL,
    failures INTEGER NOT NULL
);
CREATE INDEX revocations_due ON revocations (due_at, id);
CREATE INDEX revocations_key ON revocations (user_id, idp, account);

-- Values that belong to the store as a whole: its identity, its keys' check value, the generation floor.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;
