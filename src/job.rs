//! The job as it is stored, so that the same CALL goes on where the last one stopped.

use std::time::Duration;

use pgrx::pg_sys;

use crate::error::Error;
use crate::filling::{Filling, Recipe};
use crate::pg::lock::ColumnLock;
use crate::pg::role::acting_as;
use crate::pg::spi::{self, Statement, argument};
use crate::pg::usage;
use crate::target::Target;

/// Where the extension's own tables are, and whose they are.
#[derive(Debug, Clone)]
struct Home {
    schema: String,
    owner: pg_sys::Oid,
}

impl Home {
    fn find() -> Result<Self, Error> {
        const HOME: &str = "
            SELECT n.nspname::text, c.relowner
            FROM pg_extension e
            JOIN pg_namespace n ON n.oid = e.extnamespace
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'safe_backfill_job'
            WHERE e.extname = 'pg_safe_backfill'";
        let rows = spi::catalog(HOME, &[]);
        let row = rows.first().ok_or(Error::NotInstalled)?;
        let (Some(schema), Some(owner)) = (row.get::<String>(1), row.get(2)) else {
            return Err(Error::NotInstalled);
        };
        Ok(Home {
            schema: spi::quote(&schema),
            owner,
        })
    }

    /// Runs one statement on the extension's own tables, with their owner's rights; `@` stands for their schema.
    fn execute(&self, sql: &str, arguments: &[spi::Argument]) -> spi::Rows {
        acting_as(self.owner, || {
            spi::execute(&sql.replace('@', &self.schema), arguments)
        })
    }
}

/// How far a job has come with one leaf table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The file that the blocks below are blocks of; `None` before the first batch.
    pub file_node: Option<pg_sys::Oid>,
    /// All blocks before this one are done.
    pub next_block: u32,
    /// All blocks were done and the leaf was looked at as a whole.
    pub finished: bool,
}

/// How a leaf table came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A last look at the whole table found no row to fill.
    Completed,
    /// Rows are NULL still: they refused, or new ones keep coming.
    Incomplete,
    /// The leaf was dropped, and the table it belonged to is still there.
    Dropped,
}

impl End {
    fn state(self) -> &'static str {
        match self {
            End::Completed => "completed",
            End::Incomplete => "incomplete",
            End::Dropped => "dropped",
        }
    }
}

/// What one batch did, to be added to the job in the batch's own transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Rows filled.
    pub rows: u64,
    /// Of those, by HOT updates.
    pub hot: u64,
    /// Batches that filled any.
    pub batches: u64,
    /// Bytes of WAL written.
    pub wal: u64,
}

/// A job: one CALL, or several that take it up from each other.
pub struct Job {
    /// Its number.
    pub id: i64,
    home: Home,
    record: Statement,
}

const UNFINISHED: &str = "state IN ('pending', 'running')";

impl Job {
    /// Takes up the unfinished job for this column and filling, or starts a new one.
    ///
    /// # Errors
    /// [`Error::NotInstalled`].
    pub fn open(target: &Target, filling: &Filling, batch_size: i32) -> Result<Self, Error> {
        let home = Home::find()?;
        let id = match find_unfinished(&home, target, filling)? {
            Some(id) => id,
            None => start_new(&home, target)?,
        };
        let record = acting_as(home.owner, || {
            Statement::prepare(
                &RECORD.replace('@', &home.schema),
                &[
                    pg_sys::INT8OID,
                    pg_sys::OIDOID,
                    pg_sys::INT8OID,
                    pg_sys::INT8OID,
                    pg_sys::INT8OID,
                    pg_sys::INT8OID,
                    pg_sys::INT8OID,
                    pg_sys::INT8OID,
                ],
            )
        });
        let job = Job { id, home, record };
        for &leaf in &target.leaves {
            job.add_leaf(leaf, target, filling, batch_size)?;
        }
        Ok(job)
    }

    /// Adds a leaf table to the job, if it is not in it yet, and says that this backend works on it.
    ///
    /// # Errors
    /// [`Error::StoredJob`].
    pub fn add_leaf(
        &self,
        leaf: pg_sys::Oid,
        target: &Target,
        filling: &Filling,
        batch_size: i32,
    ) -> Result<(), Error> {
        const ADD: &str = "
            INSERT INTO @.safe_backfill_job AS j
                (job_id, table_name, root_table, column_name, column_number, filling, filter, batch_size, role, pid)
            VALUES ($1, $2::regclass, $3::regclass, $4::name, $5, $6::jsonb, $7, $8,
                    (SELECT oid FROM pg_roles WHERE rolname = session_user)::regrole, $9)
            ON CONFLICT (job_id, table_name) DO UPDATE
            SET pid = excluded.pid, batch_size = excluded.batch_size, role = excluded.role";
        self.home.execute(
            ADD,
            &[
                argument(self.id),
                argument(leaf),
                argument(target.table),
                argument(target.column.as_str()),
                argument(target.number),
                argument(serde_json::to_string(&filling.recipe)?),
                argument(filling.filter.clone()),
                argument(batch_size),
                argument(usage::pid()),
            ],
        );
        Ok(())
    }

    /// Where to go on with a leaf table.
    pub fn position(&self, leaf: pg_sys::Oid) -> Position {
        let sql = format!(
            "SELECT file_node, next_block, NOT ({UNFINISHED}) FROM @.safe_backfill_job
             WHERE job_id = $1 AND table_name = $2"
        );
        let rows = self
            .home
            .execute(&sql, &[argument(self.id), argument(leaf)]);
        let Some(row) = rows.first() else {
            return Position::default();
        };
        let next_block: Option<i64> = row.get(2);
        Position {
            file_node: row.get(1),
            next_block: next_block
                .and_then(|block| u32::try_from(block).ok())
                .unwrap_or(0),
            finished: row.get(3).unwrap_or(false),
        }
    }

    /// Says that this backend begins, or begins again, with a leaf table.
    pub fn start_leaf(&self, leaf: pg_sys::Oid, position: &Position, end_block: u32) {
        const START: &str = "
            UPDATE @.safe_backfill_job
            SET state = 'running', started_at = clock_timestamp(), updated_at = clock_timestamp(),
                file_node = $3, next_block = $4, end_block = $5
            WHERE job_id = $1 AND table_name = $2";
        self.home.execute(
            START,
            &[
                argument(self.id),
                argument(leaf),
                argument(position.file_node),
                argument(i64::from(position.next_block)),
                argument(i64::from(end_block)),
            ],
        );
    }

    /// Adds what a batch did, and the time since the last one; part of the batch's transaction.
    pub fn record(
        &self,
        leaf: pg_sys::Oid,
        next_block: u32,
        progress: &Progress,
        active: Duration,
    ) {
        acting_as(self.home.owner, || {
            self.record.execute(&[
                argument(self.id),
                argument(leaf),
                argument(i64::from(next_block)),
                argument(progress.rows as i64),
                argument(progress.hot as i64),
                argument(progress.batches as i64),
                argument(progress.wal as i64),
                argument(active.as_micros() as i64),
            ]);
        });
    }

    /// Says how a leaf table came out.
    pub fn finish_leaf(&self, leaf: pg_sys::Oid, end: End) {
        const FINISH: &str = "
            UPDATE @.safe_backfill_job
            SET state = $3, next_block = end_block, updated_at = clock_timestamp(), finished_at = clock_timestamp()
            WHERE job_id = $1 AND table_name = $2";
        self.home.execute(
            FINISH,
            &[argument(self.id), argument(leaf), argument(end.state())],
        );
    }

    /// Who holds the xmin horizon back, described for a person, and what to do about it.
    pub fn horizon_holder(&self) -> Option<(String, String)> {
        let rows = self.home.execute(HORIZON_HOLDER, &[]);
        let row = rows.first()?;
        Some((row.get(1)?, row.get(2)?))
    }

    /// Who holds locks on rows of `table` and has waited or worked longest, described for a person.
    pub fn row_lock_holders(&self, table: pg_sys::Oid) -> Option<String> {
        self.home
            .execute(ROW_LOCK_HOLDERS, &[argument(table)])
            .first()
            .and_then(|row| row.get(1))
    }
}

const RECORD: &str = "
    UPDATE @.safe_backfill_job
    SET next_block = greatest(next_block, $3), rows_filled = rows_filled + $4, rows_hot = rows_hot + $5,
        batches = batches + $6, wal_bytes = wal_bytes + $7,
        active_time = active_time + $8 * interval '1 microsecond', updated_at = clock_timestamp()
    WHERE job_id = $1 AND table_name = $2";

/// Everything that `ComputeXidHorizons` looks at, oldest first; short transactions only delay pruning.
const HORIZON_HOLDER: &str = "
    SELECT description, hint FROM (
        SELECT greatest(age(backend_xmin), age(backend_xid)) AS age,
               CASE backend_type WHEN 'walsender'
                    THEN format('the standby or replication client of process %s (%s)', pid, application_name)
                    ELSE format('process %s (application \"%s\", user \"%s\"), whose transaction began %s ago', pid,
                                application_name, usename, date_trunc('second', clock_timestamp() - xact_start))
               END AS description,
               CASE backend_type WHEN 'walsender' THEN 'Turn off hot_standby_feedback there while the backfill runs.'
                    ELSE 'End that transaction, or go on: rows are filled all the same, at the cost of a plain UPDATE.'
               END AS hint
        FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
        AND pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum v)
        AND (backend_type = 'walsender'
             OR datname = current_database() AND clock_timestamp() - xact_start > interval '200 milliseconds')
        UNION ALL
        SELECT age(transaction), format('prepared transaction \"%s\" of %s', gid, prepared),
               'End it with COMMIT PREPARED or ROLLBACK PREPARED.'
        FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL
        SELECT age(xmin), format('replication slot \"%s\"', slot_name),
               'Let its consumer catch up, or drop it with pg_drop_replication_slot if nobody uses it.'
        FROM pg_replication_slots WHERE xmin IS NOT NULL) holder
    ORDER BY age DESC LIMIT 1";

/// Transactions that write and have a lock on the table: the candidates for the holders of its rows.
const ROW_LOCK_HOLDERS: &str = "
    SELECT string_agg(format('process %s (application \"%s\")', pid, application_name), ', ' ORDER BY xact_start)
    FROM (
        SELECT DISTINCT a.pid, a.application_name, a.xact_start
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.relation = $1 AND l.granted AND a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
        AND l.mode IN ('RowShareLock', 'RowExclusiveLock')
        ORDER BY a.xact_start LIMIT 5) holder";

fn find_unfinished(home: &Home, target: &Target, filling: &Filling) -> Result<Option<i64>, Error> {
    let sql = format!(
        "SELECT job_id, filling::text FROM @.safe_backfill_job
         WHERE root_table = $1 AND column_number = $2 AND filter IS NOT DISTINCT FROM $3 AND {UNFINISHED}
         ORDER BY job_id DESC"
    );
    let rows = home.execute(
        &sql,
        &[
            argument(target.table),
            argument(target.number),
            argument(filling.filter.clone()),
        ],
    );
    for row in rows.iter() {
        let stored: String = row.get(2).unwrap_or_default();
        if serde_json::from_str::<Recipe>(&stored)? == filling.recipe {
            return Ok(row.get(1));
        }
    }
    Ok(None)
}

fn start_new(home: &Home, target: &Target) -> Result<i64, Error> {
    let supersede = format!(
        "UPDATE @.safe_backfill_job SET state = 'superseded', finished_at = clock_timestamp()
         WHERE root_table = $1 AND column_number = $2 AND {UNFINISHED}"
    );
    home.execute(
        &supersede,
        &[argument(target.table), argument(target.number)],
    );
    let sequence = format!("{}.safe_backfill_job_id", home.schema);
    home.execute("SELECT nextval($1::regclass)", &[argument(sequence)])
        .first()
        .and_then(|row| row.get(1))
        .ok_or(Error::NotInstalled)
}

/// Takes the lock that keeps a second run off a column.
///
/// # Errors
/// [`Error::AlreadyRunning`].
pub fn lock_column(
    table: pg_sys::Oid,
    number: i16,
    table_name: &str,
    column_name: &str,
) -> Result<ColumnLock, Error> {
    ColumnLock::try_acquire(table, number).ok_or_else(|| Error::AlreadyRunning {
        table: table_name.into(),
        column: column_name.into(),
        pid: running_pid(table, number),
    })
}

/// The process that has the lock on a column, if it still has it.
fn running_pid(table: pg_sys::Oid, number: i16) -> Option<i32> {
    const HOLDER: &str = "
        SELECT pid FROM pg_locks
        WHERE locktype = 'object' AND classid = 'pg_class'::regclass AND objid = $1 AND objsubid = $2 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    spi::catalog(HOLDER, &[argument(table), argument(number)])
        .first()
        .and_then(|row| row.get(1))
}
