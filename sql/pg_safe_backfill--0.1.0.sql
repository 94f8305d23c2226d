-- The objects of pg_safe_backfill 0.1.0. Written by 'make script'.

\echo Use "CREATE EXTENSION pg_safe_backfill" to load this file. \quit

-- The jobs: written by the extension alone, read by whoever may read the table that a job fills.

-- Names of functions, operators and types have their schema: others may have made some of the same name that fit better.
-- IN, BETWEEN, LIKE, NULLIF, JOIN USING, CASE x WHEN y and IS DISTINCT FROM are not used: they look for an operator too.

CREATE SEQUENCE @extschema@.safe_backfill_job_id AS bigint;

CREATE TABLE @extschema@.safe_backfill_job (
    system_identifier pg_catalog.int8        NOT NULL,
    job_id            pg_catalog.int8        NOT NULL,
    table_name        pg_catalog.regclass    NOT NULL,
    column_name       pg_catalog.name        NOT NULL,
    column_number     pg_catalog.int2        NOT NULL,
    value             pg_catalog.jsonb       NOT NULL,
    filter            pg_catalog.text,
    method            pg_catalog.text        NOT NULL DEFAULT 'batch'
                      CHECK (method OPERATOR(pg_catalog.=) ANY (ARRAY['batch', 'instant']::pg_catalog.text[])),
    batch_size        pg_catalog.int4        NOT NULL,
    workers           pg_catalog.int4        NOT NULL DEFAULT 1,
    state             pg_catalog.text        NOT NULL DEFAULT 'running'
                      CHECK (state OPERATOR(pg_catalog.=) ANY
                          (ARRAY['running', 'paused', 'cancelled', 'failed', 'completed', 'incomplete', 'superseded']
                           ::pg_catalog.text[])),
    role              pg_catalog.regrole     NOT NULL,
    pid               pg_catalog.int4,
    background        pg_catalog.bool        NOT NULL DEFAULT false,
    settings          pg_catalog.jsonb,
    waits_for         pg_catalog.text,
    waits_since       pg_catalog.timestamptz,
    error             pg_catalog.jsonb,
    created_at        pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at        pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at       pg_catalog.timestamptz,
    PRIMARY KEY (system_identifier, job_id)
) WITH (fillfactor = 50);

CREATE INDEX safe_backfill_job_table_name_idx ON @extschema@.safe_backfill_job (table_name, column_number);

CREATE TABLE @extschema@.safe_backfill_part (
    system_identifier pg_catalog.int8        NOT NULL,
    job_id            pg_catalog.int8        NOT NULL,
    table_name        pg_catalog.regclass    NOT NULL,
    root_table        pg_catalog.regclass    NOT NULL,
    state             pg_catalog.text        NOT NULL DEFAULT 'pending'
                      CHECK (state OPERATOR(pg_catalog.=) ANY
                          (ARRAY['pending', 'filling', 'verifying', 'completed', 'incomplete', 'dropped']
                           ::pg_catalog.text[])),
    file_node         pg_catalog.oid,
    next_block        pg_catalog.int8        NOT NULL DEFAULT 0,
    blocks_done       pg_catalog.int8        NOT NULL DEFAULT 0,
    end_block         pg_catalog.int8        NOT NULL DEFAULT 0,
    rows_found        pg_catalog.int8        NOT NULL DEFAULT 0,
    rows_without_value pg_catalog.int8       NOT NULL DEFAULT 0,
    rows_filled       pg_catalog.int8        NOT NULL DEFAULT 0,
    rows_hot          pg_catalog.int8        NOT NULL DEFAULT 0,
    batches           pg_catalog.int8        NOT NULL DEFAULT 0,
    wal_bytes         pg_catalog.int8        NOT NULL DEFAULT 0,
    processes         pg_catalog.jsonb,
    active_time       pg_catalog.interval    NOT NULL DEFAULT '0',
    time_left         pg_catalog.interval,
    started_at        pg_catalog.timestamptz,
    updated_at        pg_catalog.timestamptz,
    finished_at       pg_catalog.timestamptz,
    PRIMARY KEY (system_identifier, job_id, table_name)
) WITH (fillfactor = 50);

-- The steps before and after a backfill, while they wait for a lock or validate.
CREATE TABLE @extschema@.safe_backfill_step (
    system_identifier pg_catalog.int8        NOT NULL,
    table_name        pg_catalog.regclass    NOT NULL,
    column_name       pg_catalog.name        NOT NULL,
    command           pg_catalog.text        NOT NULL,
    pid               pg_catalog.int4        NOT NULL,
    query_start       pg_catalog.timestamptz NOT NULL,
    state             pg_catalog.text        NOT NULL
                      CHECK (state OPERATOR(pg_catalog.=) ANY
                          (ARRAY['running', 'waiting', 'validating']::pg_catalog.text[])),
    waits_for         pg_catalog.text,
    waits_since       pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at        pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (system_identifier, table_name, column_name, pid)
) WITH (fillfactor = 50);

ALTER TABLE @extschema@.safe_backfill_job ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.safe_backfill_step ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.safe_backfill_part ENABLE ROW LEVEL SECURITY;

CREATE POLICY safe_backfill_part_readers ON @extschema@.safe_backfill_part FOR SELECT
    USING (pg_catalog.has_table_privilege(table_name::pg_catalog.oid, 'SELECT'::pg_catalog.text)
           OR pg_catalog.has_table_privilege(root_table::pg_catalog.oid, 'SELECT'::pg_catalog.text)
           OR pg_catalog.pg_has_role('pg_monitor'::pg_catalog.name, 'USAGE'::pg_catalog.text));

CREATE POLICY safe_backfill_job_readers ON @extschema@.safe_backfill_job FOR SELECT
    USING (pg_catalog.has_table_privilege(table_name::pg_catalog.oid, 'SELECT'::pg_catalog.text)
           OR pg_catalog.pg_has_role('pg_monitor'::pg_catalog.name, 'USAGE'::pg_catalog.text)
           OR EXISTS (SELECT FROM @extschema@.safe_backfill_part p
                      WHERE p.system_identifier OPERATOR(pg_catalog.=) safe_backfill_job.system_identifier
                      AND p.job_id OPERATOR(pg_catalog.=) safe_backfill_job.job_id));

CREATE POLICY safe_backfill_step_readers ON @extschema@.safe_backfill_step FOR SELECT
    USING (pg_catalog.has_table_privilege(table_name::pg_catalog.oid, 'SELECT'::pg_catalog.text)
           OR pg_catalog.pg_has_role('pg_monitor'::pg_catalog.name, 'USAGE'::pg_catalog.text));

GRANT SELECT ON @extschema@.safe_backfill_part, @extschema@.safe_backfill_step TO PUBLIC;

-- Not its settings, among which an application may have secrets.
GRANT SELECT (system_identifier, job_id, table_name, column_name, column_number, value, filter, method, batch_size, workers, state,
              role, pid, background, waits_for, waits_since, error, created_at, started_at, finished_at)
    ON @extschema@.safe_backfill_job TO PUBLIC;

-- One row per leaf table, and one for a job as a whole where it has several of them, or none yet; then one per step that
-- waits or validates.
CREATE VIEW @extschema@.safe_backfill_progress WITH (security_invoker = true) AS
WITH job AS (
    SELECT j.job_id, j.table_name, j.column_name, j.column_number, j.state, j.pid, j.background, j.waits_for,
           j.waits_since, j.error, j.started_at, j.finished_at,
           j.state OPERATOR(pg_catalog.=)
               ANY (ARRAY['running', 'paused', 'cancelled', 'failed']::pg_catalog.text[]) AS unfinished,
           pg_catalog.pg_is_in_recovery() AS elsewhere,
           NOT EXISTS (SELECT FROM @extschema@.safe_backfill_part p
                       WHERE p.system_identifier OPERATOR(pg_catalog.=) j.system_identifier
                       AND p.job_id OPERATOR(pg_catalog.=) j.job_id
                       AND p.state OPERATOR(pg_catalog.<>) 'pending'::pg_catalog.text) AS untouched,
           EXISTS (SELECT FROM pg_catalog.pg_locks l
                   WHERE l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text
                   AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
                   AND l.database OPERATOR(pg_catalog.=)
                       (SELECT d.oid FROM pg_catalog.pg_database d
                        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
                   AND l.objid OPERATOR(pg_catalog.=) j.table_name::pg_catalog.oid
                   AND l.objsubid OPERATOR(pg_catalog.=) j.column_number
                   AND l.granted AND l.pid OPERATOR(pg_catalog.=) j.pid) AS alive,
           -- The time of the next batch is known, so that the time left is, too.
           j.waits_for IS NOT NULL
               AND NOT pg_catalog.starts_with(j.waits_for, 'the next batch'::pg_catalog.text) AS stands_still
    FROM @extschema@.safe_backfill_job j
    -- Replication may have copied rows of another cluster.
    WHERE j.system_identifier OPERATOR(pg_catalog.=) (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)
),
part AS (
    SELECT p.*,
           p.state OPERATOR(pg_catalog.=)
               ANY (ARRAY['completed', 'incomplete', 'dropped']::pg_catalog.text[]) AS finished,
           -- Nothing of it is left to be filled; it is to be verified.
           p.state OPERATOR(pg_catalog.=) 'filling'::pg_catalog.text
               AND p.next_block OPERATOR(pg_catalog.>=) p.end_block AS filled
    FROM @extschema@.safe_backfill_part p
    WHERE p.system_identifier OPERATOR(pg_catalog.=) (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)
),
tree AS (
    SELECT p.job_id, pg_catalog.count(*) AS leaf_tables, pg_catalog.min(p.table_name::pg_catalog.oid) AS first_table,
           pg_catalog.bool_and(p.filled OR p.finished OR p.state OPERATOR(pg_catalog.=) 'verifying'::pg_catalog.text)
               AS filled,
           pg_catalog.sum(p.end_block)::pg_catalog.float8 AS blocks,
           pg_catalog.sum(CASE WHEN p.finished OR p.state OPERATOR(pg_catalog.=) 'verifying'::pg_catalog.text
                               THEN p.end_block ELSE p.blocks_done END)::pg_catalog.float8 AS blocks_filled,
           pg_catalog.sum(CASE WHEN p.finished THEN p.end_block
                               WHEN p.state OPERATOR(pg_catalog.=) 'verifying'::pg_catalog.text THEN p.blocks_done
                               ELSE 0::pg_catalog.int8 END)::pg_catalog.float8 AS blocks_verified,
           pg_catalog.sum(p.rows_filled)::pg_catalog.int8 AS rows_filled,
           pg_catalog.sum(p.rows_hot)::pg_catalog.int8 AS rows_hot,
           pg_catalog.sum(p.batches)::pg_catalog.int8 AS batches,
           pg_catalog.sum(p.wal_bytes)::pg_catalog.int8 AS wal_bytes,
           pg_catalog.sum(p.active_time) AS active_time,
           pg_catalog.max(p.updated_at) AS updated_at,
           -- Of the leaf that is being verified.
           pg_catalog.max(CASE WHEN p.state OPERATOR(pg_catalog.=) 'verifying'::pg_catalog.text
                                    AND p.end_block OPERATOR(pg_catalog.>) p.blocks_done
                               THEN p.time_left OPERATOR(pg_catalog./)
                                    (p.end_block OPERATOR(pg_catalog.-) p.blocks_done)::pg_catalog.float8
                          END) AS time_per_block
    FROM part p
    GROUP BY p.job_id
),
progress AS (
    SELECT p.job_id, p.root_table, p.table_name, NULL::pg_catalog.int8 AS leaf_tables, p.state AS part_state,
           NOT p.finished AS unfinished,
           CASE WHEN p.finished THEN 1::pg_catalog.float8
                WHEN p.end_block OPERATOR(pg_catalog.>) 0::pg_catalog.int8
                THEN least(1::pg_catalog.float8,
                           p.blocks_done::pg_catalog.float8 OPERATOR(pg_catalog./) p.end_block::pg_catalog.float8)
                ELSE 0::pg_catalog.float8 END AS share,
           p.rows_filled, p.rows_hot, p.batches, p.wal_bytes, p.processes, p.active_time, p.time_left,
           p.started_at, p.updated_at, p.finished_at
    FROM part p
    UNION ALL
    SELECT t.job_id, t.table_name, t.table_name, t.leaf_tables, t.part_state, t.unfinished,
           t.share, t.rows_filled, t.rows_hot, t.batches, t.wal_bytes, NULL::pg_catalog.jsonb, t.active_time,
           -- The time so far is a measure only while all that was done is of the same kind.
           CASE WHEN t.part_state OPERATOR(pg_catalog.=) 'filling'::pg_catalog.text
                     AND t.share OPERATOR(pg_catalog.>) 0::pg_catalog.float8
                THEN t.active_time OPERATOR(pg_catalog.*)
                     ((1::pg_catalog.float8 OPERATOR(pg_catalog.-) t.share) OPERATOR(pg_catalog./) t.share)
                WHEN t.part_state OPERATOR(pg_catalog.=) 'verifying'::pg_catalog.text
                THEN t.time_per_block OPERATOR(pg_catalog.*)
                     ((1::pg_catalog.float8 OPERATOR(pg_catalog.-) t.share) OPERATOR(pg_catalog.*) t.blocks) END,
           t.started_at, t.updated_at, t.finished_at
    FROM (
        SELECT j.job_id, j.table_name, coalesce(t.leaf_tables, 0::pg_catalog.int8) AS leaf_tables,
               CASE WHEN NOT j.unfinished THEN j.state
                    WHEN t.job_id IS NULL OR j.untouched THEN 'pending'::pg_catalog.text
                    WHEN t.filled THEN 'verifying'::pg_catalog.text
                    ELSE 'filling'::pg_catalog.text END AS part_state,
               j.unfinished,
               CASE WHEN NOT j.unfinished THEN 1::pg_catalog.float8
                    WHEN t.blocks OPERATOR(pg_catalog.>) 0::pg_catalog.float8
                    THEN least(1::pg_catalog.float8,
                               CASE WHEN t.filled THEN t.blocks_verified ELSE t.blocks_filled END
                               OPERATOR(pg_catalog./) t.blocks)
                    ELSE 0::pg_catalog.float8 END AS share,
               coalesce(t.rows_filled, 0::pg_catalog.int8) AS rows_filled,
               coalesce(t.rows_hot, 0::pg_catalog.int8) AS rows_hot,
               coalesce(t.batches, 0::pg_catalog.int8) AS batches,
               coalesce(t.wal_bytes, 0::pg_catalog.int8) AS wal_bytes,
               coalesce(t.active_time, '0'::pg_catalog.interval) AS active_time,
               t.time_per_block, t.blocks, j.started_at, coalesce(t.updated_at, j.started_at) AS updated_at, j.finished_at
        FROM job j
        LEFT JOIN tree t ON t.job_id OPERATOR(pg_catalog.=) j.job_id
        WHERE t.job_id IS NULL
        OR t.leaf_tables OPERATOR(pg_catalog.<>) 1::pg_catalog.int8
        OR t.first_table OPERATOR(pg_catalog.<>) j.table_name::pg_catalog.oid
    ) t
)
SELECT p.job_id,
       p.root_table,
       p.table_name,
       p.leaf_tables,
       j.column_name,
       'safe_backfill'::pg_catalog.text AS command,
       CASE WHEN j.state OPERATOR(pg_catalog.=) 'superseded'::pg_catalog.text
                 AND p.part_state OPERATOR(pg_catalog.=) 'incomplete'::pg_catalog.text THEN j.state
            WHEN NOT p.unfinished THEN p.part_state
            WHEN j.elsewhere AND j.state OPERATOR(pg_catalog.<>) 'running'::pg_catalog.text THEN j.state
            WHEN j.elsewhere AND j.waits_for IS NOT NULL THEN 'waiting'::pg_catalog.text
            WHEN j.elsewhere THEN p.part_state
            WHEN NOT j.alive AND j.state OPERATOR(pg_catalog.<>) 'running'::pg_catalog.text THEN j.state
            WHEN NOT j.alive AND j.background AND j.pid IS NULL
                 AND j.finished_at IS NULL
                 AND j.started_at OPERATOR(pg_catalog.>)
                     (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval)
            THEN 'starting'::pg_catalog.text
            WHEN NOT j.alive THEN 'interrupted'::pg_catalog.text
            WHEN j.state OPERATOR(pg_catalog.=) 'paused'::pg_catalog.text THEN j.state
            WHEN j.waits_for IS NOT NULL
                 AND (j.untouched OR p.part_state OPERATOR(pg_catalog.<>) 'pending'::pg_catalog.text)
            THEN 'waiting'::pg_catalog.text
            ELSE p.part_state END AS state,
       pg_catalog.round((100::pg_catalog.float8 OPERATOR(pg_catalog.*) p.share)::pg_catalog.numeric, 1) AS percent,
       p.rows_filled,
       p.batches,
       CASE WHEN p.active_time OPERATOR(pg_catalog.<>) '0'::pg_catalog.interval
            THEN pg_catalog.round((p.rows_filled::pg_catalog.float8 OPERATOR(pg_catalog./)
                                   extract(epoch FROM p.active_time)::pg_catalog.float8)::pg_catalog.numeric)
       END AS rows_per_second,
       CASE WHEN NOT p.unfinished THEN '0'::pg_catalog.interval
            WHEN j.state OPERATOR(pg_catalog.=) 'running'::pg_catalog.text AND (j.alive OR j.elsewhere)
                 AND NOT j.stands_still
            THEN pg_catalog.date_trunc('second'::pg_catalog.text, p.time_left)
       END AS time_left,
       CASE WHEN p.rows_filled OPERATOR(pg_catalog.<>) 0::pg_catalog.int8
            THEN pg_catalog.round((100.0 OPERATOR(pg_catalog.*) p.rows_hot::pg_catalog.numeric)
                                  OPERATOR(pg_catalog./) p.rows_filled::pg_catalog.numeric, 1)
       END AS hot_percent,
       CASE WHEN p.unfinished AND j.alive AND NOT j.elsewhere THEN j.pid END AS pid,
       CASE WHEN p.unfinished AND (j.alive OR j.elsewhere) THEN j.waits_for END AS waits_for,
       CASE WHEN p.unfinished AND (j.alive OR j.elsewhere) THEN j.waits_since END AS waits_since,
       CASE WHEN p.unfinished THEN j.error OPERATOR(pg_catalog.->>) 'message'::pg_catalog.text END AS last_error,
       CASE WHEN p.unfinished AND (j.alive OR j.elsewhere) THEN p.processes END AS processes,
       j.background,
       p.wal_bytes,
       p.active_time,
       p.started_at,
       p.updated_at,
       p.finished_at
FROM progress p
JOIN job j ON j.job_id OPERATOR(pg_catalog.=) p.job_id
UNION ALL
SELECT NULL::pg_catalog.int8, s.table_name, s.table_name, NULL::pg_catalog.int8, s.column_name, s.command, s.state,
       NULL::pg_catalog.numeric, NULL::pg_catalog.int8, NULL::pg_catalog.int8, NULL::pg_catalog.numeric,
       NULL::pg_catalog.interval, NULL::pg_catalog.numeric, s.pid, s.waits_for,
       CASE WHEN s.waits_for IS NOT NULL THEN s.waits_since END,
       NULL::pg_catalog.text, NULL::pg_catalog.jsonb, false, NULL::pg_catalog.int8,
       pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.started_at, s.started_at, s.waits_since,
       NULL::pg_catalog.timestamptz
FROM @extschema@.safe_backfill_step s
WHERE s.system_identifier OPERATOR(pg_catalog.=) (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c)
AND (pg_catalog.pg_is_in_recovery()
     -- A process that was killed has left its row behind. PostgreSQL shows what others run to some roles only.
     OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
                WHERE a.pid OPERATOR(pg_catalog.=) s.pid
                AND coalesce(a.query_start, s.query_start) OPERATOR(pg_catalog.=) s.query_start
                AND coalesce(a.state, 'active'::pg_catalog.text) OPERATOR(pg_catalog.=) 'active'::pg_catalog.text));

GRANT SELECT ON @extschema@.safe_backfill_progress TO PUBLIC;

CREATE PROCEDURE @extschema@.safe_add_column(
    table_name pg_catalog.regclass, column_name pg_catalog.name, column_type pg_catalog.text,
    default_value pg_catalog.text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'safe_add_column_text_wrapper';

CREATE PROCEDURE @extschema@.safe_add_column(
    table_name pg_catalog.regclass, column_name pg_catalog.name, column_type pg_catalog.text,
    default_value pg_catalog.anyelement)
LANGUAGE c AS 'MODULE_PATHNAME', 'safe_add_column_value_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_cancel(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_cancel_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_forget(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_forget_job_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_forget(older_than pg_catalog.interval) RETURNS pg_catalog.int8
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_forget_older_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_pause(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_pause_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_plan(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text DEFAULT NULL,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL,
    expression pg_catalog.text DEFAULT NULL)
RETURNS TABLE (topic pg_catalog.text, verdict pg_catalog.text, finding pg_catalog.text, advice pg_catalog.text)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 COST 1000000 AS 'MODULE_PATHNAME', 'safe_backfill_plan_text_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_plan(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL)
RETURNS TABLE (topic pg_catalog.text, verdict pg_catalog.text, finding pg_catalog.text, advice pg_catalog.text)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 COST 1000000 AS 'MODULE_PATHNAME', 'safe_backfill_plan_value_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_resume(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_resume_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_start(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1) RETURNS pg_catalog.int8
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_start_text_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_start_using(
    table_name pg_catalog.regclass, column_name pg_catalog.name, expression pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL,
    workers pg_catalog.int4 DEFAULT 1) RETURNS pg_catalog.int8
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_start_using_wrapper';

CREATE FUNCTION @extschema@.safe_backfill_start(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1) RETURNS pg_catalog.int8
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'safe_backfill_start_value_wrapper';

CREATE PROCEDURE @extschema@.safe_backfill(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1)
LANGUAGE c AS 'MODULE_PATHNAME', 'safe_backfill_text_wrapper';

CREATE PROCEDURE @extschema@.safe_backfill_using(
    table_name pg_catalog.regclass, column_name pg_catalog.name, expression pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL,
    workers pg_catalog.int4 DEFAULT 1)
LANGUAGE c AS 'MODULE_PATHNAME', 'safe_backfill_using_wrapper';

CREATE PROCEDURE @extschema@.safe_backfill(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1)
LANGUAGE c AS 'MODULE_PATHNAME', 'safe_backfill_value_wrapper';

CREATE PROCEDURE @extschema@.safe_set_not_null(
    table_name pg_catalog.regclass, column_name pg_catalog.name)
LANGUAGE c AS 'MODULE_PATHNAME', 'safe_set_not_null_wrapper';

COMMENT ON PROCEDURE @extschema@.safe_add_column(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.text) IS
'Adds a nullable column without rewriting the table. column_type: as in ALTER TABLE, such as varchar(20). default_value: read as a literal of that type, for existing rows and new ones; NULL for none. Waits for its lock no longer than safe_backfill.lock_timeout at a time. A column of that name and type is left as it is. Call it outside a transaction block.';
COMMENT ON PROCEDURE @extschema@.safe_add_column(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.anyelement) IS
'Adds a nullable column without rewriting the table. column_type: as in ALTER TABLE, such as varchar(20). default_value: converted to that type by assignment, for existing rows and new ones. Waits for its lock no longer than safe_backfill.lock_timeout at a time. A column of that name and type is left as it is. Call it outside a transaction block.';
COMMENT ON PROCEDURE @extschema@.safe_set_not_null(
    pg_catalog.regclass, pg_catalog.name) IS
'Makes a column NOT NULL: adds a constraint that is not valid yet, validates it while others read and write, sets NOT NULL without reading the table again. Fails before anything is touched when it finds rows that are NULL. Waits for its locks no longer than safe_backfill.lock_timeout at a time. The same CALL goes on where an interrupted one stopped. Call it outside a transaction block.';
COMMENT ON PROCEDURE @extschema@.safe_backfill(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text,
    pg_catalog.int4) IS
'Fills the NULLs of a column with one value, in batches that are committed one by one. value: read as a literal of the column''s type. batch_size: rows, 1 to 1000000. method: batch, or instant, which gives the value to rows that lack the column without writing them. filter: SQL condition over the row, NULL for every row. workers: processes that fill the table, 1 to 64; all but one are background workers. Call it outside a transaction block. The same CALL resumes an interrupted one.';
COMMENT ON PROCEDURE @extschema@.safe_backfill(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.anyelement, pg_catalog.int4, pg_catalog.text, pg_catalog.text,
    pg_catalog.int4) IS
'Fills the NULLs of a column with one value, in batches that are committed one by one. value: converted to the column''s type by assignment. batch_size: rows, 1 to 1000000. method: batch, or instant, which gives the value to rows that lack the column without writing them. filter: SQL condition over the row, NULL for every row. workers: processes that fill the table, 1 to 64; all but one are background workers. Call it outside a transaction block. The same CALL resumes an interrupted one.';
COMMENT ON PROCEDURE @extschema@.safe_backfill_using(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.int4) IS
'Fills the NULLs of a column with an SQL expression over the row, in batches that are committed one by one. Rows for which it yields NULL are counted and left. batch_size: rows, 1 to 1000000. filter: SQL condition over the row, NULL for every row. workers: processes that fill the table, 1 to 64; all but one are background workers. Call it outside a transaction block. The same CALL resumes an interrupted one.';

COMMENT ON FUNCTION @extschema@.safe_backfill_plan(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text) IS
'Tells what a backfill would do and cost, from at most 2048 blocks of the table and as many of its indexes; writes nothing, and works on a standby. value: read as a literal of the column''s type, NULL if it is not known. batch_size, filter: as of safe_backfill. expression: as of safe_backfill_using, instead of a value. Returns a row for each finding; verdict: ok, note, warning, or blocker where the backfill would be refused or fail.';
COMMENT ON FUNCTION @extschema@.safe_backfill_plan(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.anyelement, pg_catalog.int4, pg_catalog.text) IS
'Tells what a backfill would do and cost, from at most 2048 blocks of the table and as many of its indexes; writes nothing, and works on a standby. value: converted to the column''s type by assignment. batch_size, filter: as of safe_backfill. Returns a row for each finding; verdict: ok, note, warning, or blocker where the backfill would be refused or fail.';

COMMENT ON FUNCTION @extschema@.safe_backfill_start(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.text,
    pg_catalog.int4) IS
'Does what safe_backfill does in a background worker, as the current user. Arguments: those of safe_backfill. Returns the number of the job at once; the worker begins when the transaction is committed. An unfinished job that does the same is resumed. Raises an error (53400) when no background worker slot is free.';
COMMENT ON FUNCTION @extschema@.safe_backfill_start(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.anyelement, pg_catalog.int4, pg_catalog.text, pg_catalog.text,
    pg_catalog.int4) IS
'Does what safe_backfill does in a background worker, as the current user. Arguments: those of safe_backfill. Returns the number of the job at once; the worker begins when the transaction is committed. An unfinished job that does the same is resumed. Raises an error (53400) when no background worker slot is free.';
COMMENT ON FUNCTION @extschema@.safe_backfill_start_using(
    pg_catalog.regclass, pg_catalog.name, pg_catalog.text, pg_catalog.int4, pg_catalog.text, pg_catalog.int4) IS
'Does what safe_backfill_using does in a background worker, as the current user. Arguments: those of safe_backfill_using. Returns the number of the job at once; the worker begins when the transaction is committed. An unfinished job that does the same is resumed. Raises an error (53400) when no background worker slot is free.';
COMMENT ON FUNCTION @extschema@.safe_backfill_pause(pg_catalog.int8) IS
'Has a job wait before its next batch; it holds no transaction and no row meanwhile. Takes effect when the transaction is committed. Returns false if the job is paused already, was cancelled or has ended. For the role that started the job, the owner of the table and superusers.';
COMMENT ON FUNCTION @extschema@.safe_backfill_resume(pg_catalog.int8) IS
'Has a job go on that was paused, cancelled, interrupted or has failed: in its own process if that is still there, or else in a background worker, as the role that started it. Returns false if the job is running or has ended. For the role that started the job, the owner of the table and superusers.';
COMMENT ON FUNCTION @extschema@.safe_backfill_cancel(pg_catalog.int8) IS
'Has a job end before its next batch, with error 57014; what is filled stays filled, and safe_backfill_resume or the same CALL resumes it. Takes effect when the transaction is committed. Returns false if the job was cancelled already or has ended. For the role that started the job, the owner of the table and superusers.';
COMMENT ON FUNCTION @extschema@.safe_backfill_forget(pg_catalog.int8) IS
'Removes a job, whatever its state, from the tables of jobs. Raises an error (55006) while a process works on it. For the role that started the job, the owner of the table and superusers.';
COMMENT ON FUNCTION @extschema@.safe_backfill_forget(pg_catalog.interval) IS
'Removes the jobs that are completed, incomplete or superseded since longer than that, of those that the current user may steer. Jobs that can be resumed stay. Returns how many were removed.';

COMMENT ON TABLE @extschema@.safe_backfill_job IS
'One row per job: what is filled, with what, by whom. Written by the extension alone; a role sees the jobs of tables it may select from.';
COMMENT ON COLUMN @extschema@.safe_backfill_job.system_identifier IS 'the cluster whose jobs these are: its system identifier as pg_control_system() gives it; rows that replication copied from another cluster are ignored';
COMMENT ON COLUMN @extschema@.safe_backfill_job.job_id IS 'number of the job; calls that resume one another share it';
COMMENT ON COLUMN @extschema@.safe_backfill_job.table_name IS 'the table that was named in the CALL';
COMMENT ON COLUMN @extschema@.safe_backfill_job.column_name IS 'the column being filled';
COMMENT ON COLUMN @extschema@.safe_backfill_job.column_number IS 'its number in that table';
COMMENT ON COLUMN @extschema@.safe_backfill_job.value IS '{"constant": text of the value} or {"expression": SQL}';
COMMENT ON COLUMN @extschema@.safe_backfill_job.filter IS 'SQL condition over the row, or NULL for every row';
COMMENT ON COLUMN @extschema@.safe_backfill_job.method IS 'how rows get their value: batch (by UPDATEs), or instant (those that lack the column by a change of the catalogs, the others by UPDATEs)';
COMMENT ON COLUMN @extschema@.safe_backfill_job.batch_size IS 'most rows of a batch';
COMMENT ON COLUMN @extschema@.safe_backfill_job.workers IS 'processes that fill the table: the one that leads, and background workers';
COMMENT ON COLUMN @extschema@.safe_backfill_job.state IS 'running (also when it was interrupted: see safe_backfill_progress), paused, cancelled, failed (with an error), completed (verified), incomplete (rows are NULL still), superseded (by a CALL with another filling)';
COMMENT ON COLUMN @extschema@.safe_backfill_job.role IS 'the role with whose rights it runs: the current user of the last CALL, or of safe_backfill_start';
COMMENT ON COLUMN @extschema@.safe_backfill_job.pid IS 'process that works on it: of a CALL or a background worker; one that was killed or terminated stays, one that has ended otherwise does not';
COMMENT ON COLUMN @extschema@.safe_backfill_job.background IS 'whether it last ran in a background worker';
COMMENT ON COLUMN @extschema@.safe_backfill_job.settings IS 'of a job in the background: settings of the session that started it, such as search_path, with which its SQL is read; other roles cannot read them';
COMMENT ON COLUMN @extschema@.safe_backfill_job.waits_for IS 'what it waits for, or NULL';
COMMENT ON COLUMN @extschema@.safe_backfill_job.waits_since IS 'since when it waits';
COMMENT ON COLUMN @extschema@.safe_backfill_job.error IS 'the error that ended its last run: {"sqlstate": …, "message": …, "detail": …, "hint": …}';
COMMENT ON COLUMN @extschema@.safe_backfill_job.created_at IS 'when the job was created';
COMMENT ON COLUMN @extschema@.safe_backfill_job.started_at IS 'when it was last started or resumed';
COMMENT ON COLUMN @extschema@.safe_backfill_job.finished_at IS 'when the job, or its last run, ended';
COMMENT ON TABLE @extschema@.safe_backfill_part IS
'One row per job and leaf table: how far, since when. Written when the job begins or ends with the table, when it has filled a window of blocks, and after a second. Written by the extension alone; a role sees the parts of tables it may select from.';
COMMENT ON COLUMN @extschema@.safe_backfill_part.system_identifier IS 'the cluster whose jobs these are: its system identifier as pg_control_system() gives it; rows that replication copied from another cluster are ignored';
COMMENT ON COLUMN @extschema@.safe_backfill_part.job_id IS 'the job, as in safe_backfill_job';
COMMENT ON COLUMN @extschema@.safe_backfill_part.table_name IS 'the leaf table: the table itself, a partition or a child';
COMMENT ON COLUMN @extschema@.safe_backfill_part.root_table IS 'the table that was named in the CALL';
COMMENT ON COLUMN @extschema@.safe_backfill_part.state IS 'pending, filling, verifying (all rows were filled, and are looked at again), completed (verified), incomplete (rows are NULL still), dropped (the leaf table was, meanwhile)';
COMMENT ON COLUMN @extschema@.safe_backfill_part.file_node IS 'the file that the block numbers belong to, as in pg_class.relfilenode';
COMMENT ON COLUMN @extschema@.safe_backfill_part.next_block IS 'all blocks before this one are done';
COMMENT ON COLUMN @extschema@.safe_backfill_part.blocks_done IS 'blocks that are done, those behind next_block included';
COMMENT ON COLUMN @extschema@.safe_backfill_part.end_block IS 'blocks of the table when this state began';
COMMENT ON COLUMN @extschema@.safe_backfill_part.rows_found IS 'in state verifying: rows that were to be filled yet, on the blocks that are done';
COMMENT ON COLUMN @extschema@.safe_backfill_part.rows_without_value IS 'in state verifying: rows whose expression is NULL, on the blocks that are done';
COMMENT ON COLUMN @extschema@.safe_backfill_part.rows_filled IS 'rows filled and committed; after a crash of the server, or when the process is killed or terminated, rows filled since updated_at are not counted';
COMMENT ON COLUMN @extschema@.safe_backfill_part.rows_hot IS 'of those, by HOT updates, which touch no index';
COMMENT ON COLUMN @extschema@.safe_backfill_part.batches IS 'batches committed';
COMMENT ON COLUMN @extschema@.safe_backfill_part.wal_bytes IS 'bytes of WAL written by the batches';
COMMENT ON COLUMN @extschema@.safe_backfill_part.processes IS 'where several processes fill the table, each of them: [{"pid": …, "rows_filled": rows since it began with the job}, …]';
COMMENT ON COLUMN @extschema@.safe_backfill_part.active_time IS 'time spent on the table, over all calls';
COMMENT ON COLUMN @extschema@.safe_backfill_part.time_left IS 'time that the rest of this state would take at the speed of the last CALL, or NULL while that is not known';
COMMENT ON COLUMN @extschema@.safe_backfill_part.started_at IS 'when the last CALL began with this table';
COMMENT ON COLUMN @extschema@.safe_backfill_part.updated_at IS 'when this row was last written';
COMMENT ON COLUMN @extschema@.safe_backfill_part.finished_at IS 'when the job was done with this table';
COMMENT ON INDEX @extschema@.safe_backfill_job_table_name_idx IS 'Finds the jobs on a column.';
COMMENT ON SEQUENCE @extschema@.safe_backfill_job_id IS 'Numbers for safe_backfill_job.job_id.';
COMMENT ON POLICY safe_backfill_job_readers ON @extschema@.safe_backfill_job IS 'A role sees the jobs of tables it may select from; pg_monitor sees all.';
COMMENT ON POLICY safe_backfill_part_readers ON @extschema@.safe_backfill_part IS 'A role sees the parts of tables it may select from; pg_monitor sees all.';

COMMENT ON TABLE @extschema@.safe_backfill_step IS
'safe_add_column and safe_set_not_null while they wait for a lock or validate; a row is removed when its step ends. See safe_backfill_progress.';
COMMENT ON COLUMN @extschema@.safe_backfill_step.system_identifier IS 'the cluster, as in safe_backfill_job';
COMMENT ON COLUMN @extschema@.safe_backfill_step.table_name IS 'the table that was named in the CALL';
COMMENT ON COLUMN @extschema@.safe_backfill_step.column_name IS 'the column';
COMMENT ON COLUMN @extschema@.safe_backfill_step.command IS 'safe_add_column or safe_set_not_null';
COMMENT ON COLUMN @extschema@.safe_backfill_step.pid IS 'the process that takes the step';
COMMENT ON COLUMN @extschema@.safe_backfill_step.query_start IS 'when the statement began, as in pg_stat_activity: a row of a statement that has ended otherwise is ignored';
COMMENT ON COLUMN @extschema@.safe_backfill_step.state IS 'waiting (see waits_for), validating, running (the wait is over)';
COMMENT ON COLUMN @extschema@.safe_backfill_step.waits_for IS 'what it waits for, or NULL';
COMMENT ON COLUMN @extschema@.safe_backfill_step.waits_since IS 'since when it is in this state';
COMMENT ON COLUMN @extschema@.safe_backfill_step.started_at IS 'when the row was made';
COMMENT ON POLICY safe_backfill_step_readers ON @extschema@.safe_backfill_step IS 'A role sees the steps on tables it may select from; pg_monitor sees all.';

COMMENT ON VIEW @extschema@.safe_backfill_progress IS
'How each job stands: one row per leaf table, and one for the whole job where it has several of them, or none yet. Watch it with \watch in psql.';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.job_id IS 'number of the job, for safe_backfill_pause and its like';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.root_table IS 'the table that was named in the CALL';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.table_name IS 'the leaf table: the table itself, a partition or a child; in the row of the whole job, the table that was named';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.leaf_tables IS 'how many leaf tables the row is the total of, or NULL in the row of one of them';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.column_name IS 'the column being filled';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.command IS 'safe_backfill for a job, whichever procedure or function started it; safe_add_column or safe_set_not_null for a step that waits for a lock or validates, whose job_id is NULL';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.state IS 'as in safe_backfill_part; or waiting (see waits_for), paused, cancelled, failed (see last_error), superseded (by a later CALL on the column: with another value or filter, or after it had ended incomplete), starting (its background worker is about to begin), interrupted (unfinished, and no process works on it). The same CALL or safe_backfill_resume resumes a job that is paused, cancelled, failed or interrupted. On a standby it is as last received from the primary, and never interrupted. Of safe_add_column and safe_set_not_null: waiting, validating, running';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.percent IS 'share of the table''s blocks that is filled, or verified in state verifying, 0 to 100';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.rows_filled IS 'rows filled and committed, over all calls';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.batches IS 'batches committed, over all calls';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.rows_per_second IS 'rows filled per second of active time';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.time_left IS 'at the speed so far, for the state it is in; NULL while that is not known, and while the job waits for something of which nobody knows when it ends';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.hot_percent IS 'share of the rows filled by HOT updates, 0 to 100';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.pid IS 'the process that works on the job now, or NULL';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.waits_for IS 'what the job or the step waits for, or NULL';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.waits_since IS 'since when it waits';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.last_error IS 'of an unfinished job, the error that ended its last run';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.processes IS 'as in safe_backfill_part, while the job runs';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.background IS 'whether the job runs, or last ran, in a background worker';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.wal_bytes IS 'bytes of WAL written by the batches';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.active_time IS 'time spent on the table, over all calls, waits included';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.started_at IS 'when the last CALL began with the table; in the row of the whole job, when the job was last started or resumed';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.updated_at IS 'when the figures of the row were last written';
COMMENT ON COLUMN @extschema@.safe_backfill_progress.finished_at IS 'when the job, or its last run, ended; in the row of a leaf table, when the job was done with it';

