DROP INDEX grants_due;
CREATE INDEX grants_wake ON grants (wake_at, id) WHERE wake_at IS NOT NULL;
