-- `code` is a keyed code over all other columns: a row that was changed or damaged outside the program is noticed when it is
-- read. It takes the place of the second response's token, which is rare and goes into the JSON of its origin: the table
-- has as many columns as diesel's common limit allows.
UPDATE grants SET alt_origin = json_insert(alt_origin, '$.token', lower(hex(alt)))
    WHERE alt IS NOT NULL AND json_valid(alt_origin);
UPDATE grants SET alt = NULL WHERE alt IS NOT NULL;
ALTER TABLE grants RENAME COLUMN alt TO code;
ALTER TABLE grants RENAME COLUMN alt_origin TO alt;  -- {token, fingerprint, attempt, epoch}; the token sealed, in hexadecimal
