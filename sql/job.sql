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
    batch_size        pg_catalog.int4        NOT NULL,
    state             pg_catalog.text        NOT NULL DEFAULT 'running'
                      CHECK (state OPERATOR(pg_catalog.=) ANY
                          (ARRAY['running', 'completed', 'incomplete', 'superseded']::pg_catalog.text[])),
    role              pg_catalog.regrole     NOT NULL,
    pid               pg_catalog.int4        NOT NULL,
    created_at        pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at        pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at       pg_catalog.timestamptz,
    PRIMARY KEY (system_identifier, job_id)
);

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
    end_block         pg_catalog.int8        NOT NULL DEFAULT 0,
    rows_found        pg_catalog.int8        NOT NULL DEFAULT 0,
    rows_without_value pg_catalog.int8       NOT NULL DEFAULT 0,
    rows_filled       pg_catalog.int8        NOT NULL DEFAULT 0,
    rows_hot          pg_catalog.int8        NOT NULL DEFAULT 0,
    batches           pg_catalog.int8        NOT NULL DEFAULT 0,
    wal_bytes         pg_catalog.int8        NOT NULL DEFAULT 0,
    active_time       pg_catalog.interval    NOT NULL DEFAULT '0',
    time_left         pg_catalog.interval,
    started_at        pg_catalog.timestamptz,
    updated_at        pg_catalog.timestamptz,
    finished_at       pg_catalog.timestamptz,
    PRIMARY KEY (system_identifier, job_id, table_name)
) WITH (fillfactor = 50);

ALTER TABLE @extschema@.safe_backfill_job ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.safe_backfill_part ENABLE ROW LEVEL SECURITY;

CREATE POLICY safe_backfill_part_readers ON @extschema@.safe_backfill_part FOR SELECT
    USING (pg_catalog.has_table_privilege(table_name::pg_catalog.oid, 'SELECT'::pg_catalog.text)
           OR pg_catalog.has_table_privilege(root_table::pg_catalog.oid, 'SELECT'::pg_catalog.text));

CREATE POLICY safe_backfill_job_readers ON @extschema@.safe_backfill_job FOR SELECT
    USING (pg_catalog.has_table_privilege(table_name::pg_catalog.oid, 'SELECT'::pg_catalog.text)
           OR EXISTS (SELECT FROM @extschema@.safe_backfill_part p
                      WHERE p.system_identifier OPERATOR(pg_catalog.=) safe_backfill_job.system_identifier
                      AND p.job_id OPERATOR(pg_catalog.=) safe_backfill_job.job_id));

GRANT SELECT ON @extschema@.safe_backfill_job, @extschema@.safe_backfill_part TO PUBLIC;

CREATE VIEW @extschema@.safe_backfill_progress WITH (security_invoker = true) AS
SELECT job_id,
       root_table,
       table_name,
       column_name,
       CASE WHEN NOT unfinished THEN part_state
            WHEN superseded THEN 'superseded'::pg_catalog.text
            WHEN NOT alive THEN 'interrupted'::pg_catalog.text
            ELSE part_state END AS state,
       pg_catalog.round((100::pg_catalog.float8 OPERATOR(pg_catalog.*) share)::pg_catalog.numeric, 1) AS percent,
       rows_filled,
       batches,
       CASE WHEN seconds OPERATOR(pg_catalog.<>) 0::pg_catalog.float8
            THEN pg_catalog.round((rows_filled::pg_catalog.float8 OPERATOR(pg_catalog./) seconds)::pg_catalog.numeric)
       END AS rows_per_second,
       CASE WHEN NOT unfinished THEN '0'::pg_catalog.interval
            WHEN NOT superseded THEN pg_catalog.date_trunc('second'::pg_catalog.text, time_left)
       END AS time_left,
       CASE WHEN rows_filled OPERATOR(pg_catalog.<>) 0::pg_catalog.int8
            THEN pg_catalog.round((100.0 OPERATOR(pg_catalog.*) rows_hot::pg_catalog.numeric)
                                  OPERATOR(pg_catalog./) rows_filled::pg_catalog.numeric, 1)
       END AS hot_percent,
       CASE WHEN unfinished AND alive AND NOT superseded THEN pid END AS pid,
       wal_bytes,
       active_time,
       started_at,
       updated_at,
       finished_at
FROM (
    SELECT p.job_id, p.root_table, p.table_name, j.column_name, p.state AS part_state, j.pid,
           p.rows_filled, p.rows_hot, p.batches, p.wal_bytes, p.active_time, p.time_left, p.started_at, p.updated_at, p.finished_at,
           j.state OPERATOR(pg_catalog.=) 'superseded'::pg_catalog.text AS superseded,
           p.state OPERATOR(pg_catalog.=) ANY (ARRAY['pending', 'filling', 'verifying']::pg_catalog.text[]) AS unfinished,
           EXISTS (SELECT FROM pg_catalog.pg_locks l
                   WHERE l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text
                   AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
                   AND l.database OPERATOR(pg_catalog.=)
                       (SELECT d.oid FROM pg_catalog.pg_database d
                        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
                   AND l.objid OPERATOR(pg_catalog.=) j.table_name::pg_catalog.oid
                   AND l.objsubid OPERATOR(pg_catalog.=) j.column_number
                   AND l.granted AND l.pid OPERATOR(pg_catalog.=) j.pid) AS alive,
           CASE WHEN p.state OPERATOR(pg_catalog.=)
                     ANY (ARRAY['completed', 'incomplete', 'dropped']::pg_catalog.text[]) THEN 1::pg_catalog.float8
                WHEN p.end_block OPERATOR(pg_catalog.>) 0::pg_catalog.int8
                THEN least(1::pg_catalog.float8,
                           p.next_block::pg_catalog.float8 OPERATOR(pg_catalog./) p.end_block::pg_catalog.float8)
                ELSE 0::pg_catalog.float8 END AS share,
           extract(epoch FROM p.active_time)::pg_catalog.float8 AS seconds
    FROM @extschema@.safe_backfill_part p
    JOIN @extschema@.safe_backfill_job j
         ON j.system_identifier OPERATOR(pg_catalog.=) p.system_identifier AND j.job_id OPERATOR(pg_catalog.=) p.job_id
    -- Replication may have copied rows of another cluster.
    WHERE p.system_identifier OPERATOR(pg_catalog.=) (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)
) part;

GRANT SELECT ON @extschema@.safe_backfill_progress TO PUBLIC;
