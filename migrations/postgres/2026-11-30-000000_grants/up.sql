-- All of it is in a schema of its own: nothing here collides with the tables of an application.
--
-- One row per grant. Times are milliseconds since the Unix epoch; NULL is "unknown", the largest integer "never".
-- Structured columns that only the protocol reads are JSON. Ciphertext and fingerprints are BYTEA. Names are compared
-- byte by byte, whatever the collation of the database is.
CREATE TABLE grants (
    id                 BIGINT PRIMARY KEY,              -- from grant_rows: part of `code`, so it is known before the row is written
    idp                TEXT COLLATE "C" NOT NULL,
    user_id            TEXT COLLATE "C" NOT NULL,
    account            TEXT COLLATE "C" NOT NULL,
    grant_id           TEXT COLLATE "C" NOT NULL,
    revision           BIGINT NOT NULL,  -- grows with every write; writes compare and swap it
    incarnation        BYTEA  NOT NULL,  -- random, new with each connect
    generation         BIGINT NOT NULL,  -- never decreases
    client_id          TEXT,             -- the client that the grant was issued to
    refresh_token      BYTEA,            -- sealed
    fingerprint        BYTEA,            -- of refresh_token
    parent             BYTEA,            -- fingerprint of the token that refresh_token was obtained with
    committed_by       TEXT,             -- {attempt, epoch}
    alt                TEXT,             -- {token, fingerprint, attempt, epoch}; a second response to the same parent
    epoch              BIGINT NOT NULL,  -- grows with each claim and recovery
    lease              TEXT,             -- {attempt, owner}
    lease_until        BIGINT,
    intent             TEXT,             -- {generation, since, settle_from, recovered, senders}
    verdict            TEXT,             -- {code, since, by}
    held               TEXT,             -- the reason
    issued_at          BIGINT NOT NULL,
    expires_at         BIGINT,
    refresh_expires_at BIGINT,
    notice_at          BIGINT,           -- when to report that the refresh token expires
    due_at             BIGINT,
    retry_at           BIGINT,
    last_error         TEXT,             -- {code, at, failures}
    document           BYTEA  NOT NULL,  -- sealed: access token, type, scope, subject, params, extra
    tombstone          TEXT,             -- {at, revoke, restorable}
    changed_at         BIGINT NOT NULL,
    wake_at            BIGINT,           -- when the row needs attention
    code               BYTEA,            -- keyed, over all other columns but the revision
    CONSTRAINT grants_key UNIQUE (idp, user_id, account),
    CONSTRAINT grants_grant_id_key UNIQUE (grant_id)
) WITH (fillfactor = 80);                -- a claim writes no indexed column but wake_at
-- Ids are never assigned again, also after a purge.
CREATE SEQUENCE grant_rows AS BIGINT;

-- Due rows are looked for at one identity provider at a time.
CREATE INDEX grants_due ON grants (idp, wake_at, id) WHERE wake_at IS NOT NULL;
CREATE INDEX grants_fingerprint ON grants (fingerprint) WHERE fingerprint IS NOT NULL;
-- Tombstones, which are purged later.
CREATE INDEX grants_gone ON grants (idp, user_id, account) WHERE tombstone IS NOT NULL;
-- All grants of a user, or of the users of a tenant.
CREATE INDEX grants_user ON grants (user_id, idp, account);

-- Refresh tokens that a grant was connected with, or has spent and another key could bring.
CREATE TABLE fingerprints (
    fingerprint BYTEA   NOT NULL,
    grant_row   BIGINT  NOT NULL,
    connected   BOOLEAN NOT NULL,
    spent       BOOLEAN NOT NULL,
    at          BIGINT  NOT NULL,
    PRIMARY KEY (fingerprint, grant_row)
);
CREATE INDEX fingerprints_connected ON fingerprints (grant_row, at) WHERE connected;

-- The newest refresh tokens that a grant has spent.
CREATE TABLE spent (
    grant_row  BIGINT PRIMARY KEY,
    generation BIGINT NOT NULL,          -- of the row when its refresh token was last replaced
    at         BIGINT NOT NULL,
    tokens     BYTEA  NOT NULL           -- the first 8 bytes of each fingerprint, newest last
) WITH (fillfactor = 80);

-- The owners of fingerprints of purged rows. A hash identifies the key of each.
CREATE TABLE purged (
    grant_row BIGINT PRIMARY KEY,
    key_hash  BIGINT NOT NULL            -- SHA-256 of user, idp and account, cut to 64 bits
);
CREATE INDEX purged_key ON purged (key_hash);

-- Refresh tokens to revoke at the identity provider, each once.
CREATE TABLE revocations (
    id       BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    idp      TEXT COLLATE "C" NOT NULL,
    user_id  TEXT COLLATE "C" NOT NULL,
    account  TEXT COLLATE "C" NOT NULL,
    token    BYTEA   NOT NULL,           -- sealed
    due_at   BIGINT  NOT NULL,
    failures INTEGER NOT NULL
);
CREATE INDEX revocations_due ON revocations (due_at, id);
CREATE UNIQUE INDEX revocations_once ON revocations (user_id, idp, account, sha256(token));

-- Values that belong to the store as a whole: its identity, its keys' check value, the generation floor.
CREATE TABLE meta (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BYTEA NOT NULL
);

-- The store's time. Not now(), which stands still while a transaction waits for a lock.
CREATE FUNCTION store_now() RETURNS BIGINT LANGUAGE sql VOLATILE
    AS 'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT';
