-- What is known before a backfill.
SET client_min_messages = warning;
CREATE TABLE large_user (id bigint PRIMARY KEY, name varchar(100) NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO large_user SELECT i, 'user ' || i FROM generate_series(1, 5000) AS i;
ALTER TABLE large_user ADD status varchar(20);
INSERT INTO large_user SELECT i, 'user ' || i, 'app' FROM generate_series(5001, 6000) AS i;
-- Times and batches differ from server to server.
SELECT topic, verdict, CASE WHEN topic NOT IN ('time', 'batches', 'WAL', 'disk space', 'xmin horizon') THEN finding END AS finding
FROM safe_backfill_plan('large_user', 'status', 'active');
\x on
SELECT * FROM safe_backfill_plan('large_user', 'status', 'a value that is longer than twenty characters');
SELECT * FROM safe_backfill_plan('large_user', 'state', 'active');
\x off
ALTER TABLE large_user ALTER status SET DEFAULT 'active', ADD CHECK (status <> '');
CREATE INDEX ON large_user (status);
SELECT topic, verdict, finding, advice FROM safe_backfill_plan('large_user', 'status', filter => 'id % 2 = 0')
WHERE topic IN ('rows to fill', 'instant', 'HOT updates', 'new rows', 'checks');
SELECT topic, verdict, finding FROM safe_backfill_plan('large_user', 'status', expression => 'left(name, 3)')
WHERE topic IN ('safe_backfill', 'rows to fill');
CALL safe_backfill('large_user', 'status', 'active');
SELECT topic, verdict, finding, advice FROM safe_backfill_plan('large_user', 'status', 'active')
WHERE topic IN ('rows to fill', 'instant', 'table size');
SELECT * FROM safe_backfill_plan('large_user', 'status', 'active', expression => 'name');
DROP TABLE large_user;
