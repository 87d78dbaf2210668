-- Due rows are looked for at one identity provider at a time: those of a provider that takes no requests are not read.
DROP INDEX grants_wake;
CREATE INDEX grants_due ON grants (idp, wake_at, id) WHERE wake_at IS NOT NULL;
