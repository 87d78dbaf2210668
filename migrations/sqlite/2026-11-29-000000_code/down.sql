UPDATE grants SET code = NULL;
ALTER TABLE grants RENAME COLUMN alt TO alt_origin;
ALTER TABLE grants RENAME COLUMN code TO alt;
UPDATE grants SET alt = unhex(alt_origin ->> '$.token'), alt_origin = json_remove(alt_origin, '$.token')
    WHERE alt_origin IS NOT NULL;
