ALTER TABLE grants DROP COLUMN notice_at;
