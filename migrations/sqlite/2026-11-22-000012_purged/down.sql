DROP INDEX grants_user;
DROP INDEX grants_gone;
DROP TABLE purged;
