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
