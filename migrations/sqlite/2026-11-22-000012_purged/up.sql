-- The owners of fingerprints of purged rows. A purged row's id is never assigned again, and a hash identifies its key,
-- so that a replayed connect of that key is recognized for as long as the fingerprint is kept.
CREATE TABLE purged (
    grant_row INTEGER PRIMARY KEY NOT NULL,
    key_hash  BIGINT  NOT NULL            -- SHA-256 of user, idp and account, cut to 64 bits
);
CREATE INDEX purged_key ON purged (key_hash);

-- Tombstones, which are purged later.
CREATE INDEX grants_gone ON grants (idp, user_id, account) WHERE tombstone IS NOT NULL;

-- All grants of a user, or of the users of a tenant.
CREATE INDEX grants_user ON grants (user_id, idp, account);
