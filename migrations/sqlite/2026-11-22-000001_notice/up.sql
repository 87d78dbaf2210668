-- When people are to be told that the refresh token ends. Not indexed: it is looked for once an hour.
ALTER TABLE grants ADD COLUMN notice_at BIGINT;
