DROP INDEX fingerprints_connected;
