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
