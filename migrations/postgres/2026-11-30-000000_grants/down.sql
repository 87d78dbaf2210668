DROP FUNCTION store_now();
DROP TABLE meta;
DROP TABLE revocations;
DROP TABLE purged;
DROP TABLE spent;
DROP TABLE fingerprints;
DROP TABLE grants;
DROP SEQUENCE grant_rows;
