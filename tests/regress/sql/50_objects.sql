-- Every object of the extension: a new one has to be added here on purpose, and needs a comment.
SELECT pg_describe_object(classid, objid, 0) AS object,
       obj_description(objid, classid::regclass::text::name) IS NOT NULL AS has_comment
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_safe_backfill')
AND classid <> 'pg_type'::regclass
ORDER BY 1;
-- Columns without a comment.
SELECT a.attrelid::regclass, a.attname FROM pg_attribute a
WHERE a.attrelid IN ('safe_backfill_job'::regclass, 'safe_backfill_part'::regclass, 'safe_backfill_step'::regclass, 'safe_backfill_progress'::regclass) AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL;
-- Everybody may look, nobody may write.
SELECT c.relname, coalesce(c.relacl::text, '') NOT LIKE '%=_w%' AS not_writable, has_any_column_privilege('pg_monitor', c.oid, 'SELECT') AS readable
FROM pg_class c WHERE c.relname LIKE 'safe\_backfill\_%' AND c.relkind IN ('r', 'v') ORDER BY c.relname;
-- There is a way from every released version to this one.
SELECT source, target, path FROM pg_extension_update_paths('pg_safe_backfill')
WHERE target = (SELECT extversion FROM pg_extension WHERE extname = 'pg_safe_backfill') AND path IS NULL;
ALTER EXTENSION pg_safe_backfill UPDATE;
-- It goes without a trace.
DROP EXTENSION pg_safe_backfill;
SELECT count(*) FROM pg_class WHERE relname LIKE 'safe\_%';
CREATE SCHEMA elsewhere;
CREATE EXTENSION pg_safe_backfill SCHEMA elsewhere;
CREATE TABLE t (id int, c text);
INSERT INTO t SELECT generate_series(1, 10);
SET client_min_messages = warning;
CALL elsewhere.safe_backfill('t', 'c', 'x');
SELECT state, rows_filled FROM elsewhere.safe_backfill_progress;
DROP TABLE t;
DROP SCHEMA elsewhere CASCADE;
