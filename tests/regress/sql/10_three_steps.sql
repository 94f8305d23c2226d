-- The migration that the project exists for, as typed at a psql prompt.
SET client_min_messages = warning;
CREATE TABLE large_user (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(100) NOT NULL);
INSERT INTO large_user (name) SELECT 'user ' || i FROM generate_series(1, 5000) AS i;
-- Step 1: metadata only.
CALL safe_add_column('large_user', 'status', 'varchar(20)');
ALTER TABLE large_user ALTER COLUMN status SET DEFAULT 'active';
UPDATE large_user SET status = 'banned' WHERE id <= 3;
-- Step 2: a commit per batch.
CALL safe_backfill('large_user', 'status', 'active', 1000);
SELECT status, count(*) FROM large_user GROUP BY status ORDER BY status;
-- Step 3: validated while others read and write, so that SET NOT NULL need not look.
SET client_min_messages = notice;
CALL safe_set_not_null('large_user', 'status');
\d large_user
-- Calling any of them again is harmless.
CALL safe_add_column('large_user', 'status', 'varchar(20)');
CALL safe_set_not_null('large_user', 'status');
CALL safe_backfill('large_user', 'status', 'active', 1000);
SET client_min_messages = warning;
SELECT table_name, column_name, state, percent, rows_filled, time_left, pid FROM safe_backfill_progress;
SELECT value, filter, batch_size, state FROM safe_backfill_job;
SELECT rows_hot <= rows_filled AS hot_is_a_part, batches >= 5 AS batched, state FROM safe_backfill_part;
DROP TABLE large_user;
