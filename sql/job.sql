-- The jobs: written by the extension alone, read by whoever may read the table that a job fills.

CREATE SEQUENCE safe_backfill_job_id AS bigint;

CREATE TABLE safe_backfill_job (
    job_id         bigint      NOT NULL,
    table_name     regclass    NOT NULL,
    root_table     regclass    NOT NULL,
    column_name    name        NOT NULL,
    column_number  smallint    NOT NULL,
    filling        jsonb       NOT NULL,
    filter         text,
    batch_size     integer     NOT NULL,
    state          text        NOT NULL DEFAULT 'pending'
                   CHECK (state IN ('pending', 'running', 'completed', 'incomplete', 'dropped', 'superseded')),
    file_node      oid,
    next_block     bigint      NOT NULL DEFAULT 0,
    end_block      bigint      NOT NULL DEFAULT 0,
    rows_filled    bigint      NOT NULL DEFAULT 0,
    rows_hot       bigint      NOT NULL DEFAULT 0,
    batches        bigint      NOT NULL DEFAULT 0,
    wal_bytes      bigint      NOT NULL DEFAULT 0,
    active_time    interval    NOT NULL DEFAULT '0',
    role           regrole     NOT NULL,
    pid            integer,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at     timestamptz,
    updated_at     timestamptz,
    finished_at    timestamptz,
    PRIMARY KEY (job_id, table_name)
) WITH (fillfactor = 50);

CREATE INDEX safe_backfill_job_root_table_idx ON safe_backfill_job (root_table, column_number);

ALTER TABLE safe_backfill_job ENABLE ROW LEVEL SECURITY;

CREATE POLICY safe_backfill_job_readers ON safe_backfill_job FOR SELECT
    USING (has_table_privilege(table_name::oid, 'SELECT') OR has_table_privilege(root_table::oid, 'SELECT'));

GRANT SELECT ON safe_backfill_job TO PUBLIC;

CREATE VIEW safe_backfill_progress WITH (security_invoker = true) AS
SELECT job_id,
       root_table,
       table_name,
       column_name,
       CASE WHEN unfinished AND NOT alive THEN 'interrupted' ELSE state END AS state,
       round((100 * share)::numeric, 1) AS percent,
       rows_filled,
       batches,
       round((rows_filled / nullif(seconds, 0))::numeric) AS rows_per_second,
       CASE WHEN NOT unfinished THEN interval '0'
            WHEN share > 0 THEN date_trunc('second', active_time * ((1 - share) / share)) END AS time_left,
       round(100.0 * rows_hot / nullif(rows_filled, 0), 1) AS hot_percent,
       CASE WHEN unfinished AND alive THEN pid END AS pid,
       wal_bytes,
       active_time,
       started_at,
       updated_at,
       finished_at
FROM (
    SELECT j.*,
           j.state IN ('pending', 'running') AS unfinished,
           EXISTS (SELECT FROM pg_locks l
                   WHERE l.locktype = 'object' AND l.classid = 'pg_class'::regclass
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                   AND l.objid = j.root_table::oid AND l.objsubid = j.column_number
                   AND l.granted AND l.pid = j.pid) AS alive,
           CASE WHEN j.state IN ('completed', 'incomplete', 'dropped') THEN 1.0
                WHEN j.end_block > 0 THEN least(1.0, j.next_block::float8 / j.end_block)
                ELSE 0.0 END AS share,
           extract(epoch FROM j.active_time)::float8 AS seconds
    FROM safe_backfill_job j
) job;

GRANT SELECT ON safe_backfill_progress TO PUBLIC;
