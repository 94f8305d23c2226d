-- For new rows only. In a transaction, as by default.
SET LOCAL lock_timeout = '1s';
ALTER TABLE large_user ALTER COLUMN status SET DEFAULT 'active';
