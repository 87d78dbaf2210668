DROP TABLE meta;
DROP TABLE revocations;
DROP TABLE fingerprints;
DROP TABLE grants;
