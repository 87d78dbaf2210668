-- The newest refresh tokens that a grant has spent. The table `fingerprints` keeps, beside the tokens that grants were connected
-- with, only those that another key could bring, and for 180 days what earlier versions wrote.
CREATE TABLE spent (
    grant_row  INTEGER PRIMARY KEY NOT NULL,
    generation BIGINT NOT NULL,           -- of the row when its refresh token was last replaced
    at         BIGINT NOT NULL,
    tokens     BLOB   NOT NULL            -- the first 8 bytes of each fingerprint, newest last
);
