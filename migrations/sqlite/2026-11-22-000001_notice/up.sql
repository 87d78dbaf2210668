-- When to report that the refresh token expires. Not indexed: it is searched once an hour.
ALTER TABLE grants ADD COLUMN notice_at BIGINT;
