-- The processes that work with the store: each writes its row every few seconds.
CREATE TABLE replicas (
    id     TEXT COLLATE "C" PRIMARY KEY,
    at     BIGINT NOT NULL,              -- when it was last written, by store_now()
    report BYTEA  NOT NULL               -- JSON: version, keys, journal
);
