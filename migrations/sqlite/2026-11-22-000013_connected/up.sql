-- The tokens that a grant was connected with, newest last: only the newest are kept.
CREATE INDEX fingerprints_connected ON fingerprints (grant_row, at) WHERE connected;
