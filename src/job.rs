//! The job as it is stored, so that the same CALL goes on where the last one stopped.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys;

use crate::error::Error;
use crate::filling::{Filling, Recipe};
use crate::home::Home;
use crate::pg::lock::ColumnLock;
use crate::pg::spi::{self, Row, Statement, argument};
use crate::pg::transaction::commit_after;
use crate::pg::{role, server, usage};
use crate::target::Target;

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

impl Progress {
    /// Adds what another batch did.
    pub fn add(&mut self, other: &Progress) {
        self.rows += other.rows;
        self.hot += other.hot;
        self.batches += other.batches;
        self.wal += other.wal;
    }
}

/// Where a run begins, or begins again, with a leaf table.
#[derive(Debug)]
pub struct Start {
    /// The first block, and the file it is a block of.
    pub position: Position,
    /// How many blocks the table has.
    pub end_block: u32,
}

/// A job: one CALL, or several that take it up from each other.
///
/// Nothing is stored before [`Job::begin`], which is part of the first transaction that has done something.
pub struct Job {
    home: Home,
    what: What,
    /// Its number, once it is stored.
    id: Cell<Option<i64>>,
    begun: Cell<bool>,
    positions: RefCell<HashMap<pg_sys::Oid, Position>>,
    record: RefCell<Option<Record>>,
    /// A publication would send it to subscribers: nothing is stored before that has been stopped.
    published: Cell<bool>,
}

/// What a job fills, with what, as it is stored.
struct What {
    root: pg_sys::Oid,
    leaves: Vec<pg_sys::Oid>,
    column: String,
    number: i16,
    filling: String,
    filter: Option<String>,
    batch_size: i32,
}

/// The statement that stores what a batch did, and the name of the table that it was prepared with.
struct Record {
    table_name: String,
    statement: Statement,
}

const UNFINISHED: &str = "state IN ('pending', 'running')";

impl Job {
    /// Finds the unfinished job for this column and filling, or makes a new one. Must be called between transactions.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::ExtensionDropped`], [`Error::JobTablePublished`],
    /// [`Error::LockNotAvailable`], [`Error::StoredJob`].
    pub fn open(target: &Target, filling: &Filling, batch_size: i32) -> Result<Self, Error> {
        let home = commit_after(Home::find)?;
        home.keep_unpublished()?;
        let (id, positions) = home.patiently(|| {
            let id = find_unfinished(&home, target, filling)?;
            let positions = match id {
                Some(id) => positions(&home, id)?,
                None => HashMap::new(),
            };
            Ok((id, positions))
        })?;
        Ok(Job {
            what: What {
                root: target.table,
                leaves: target.leaves.clone(),
                column: target.column.clone(),
                number: target.number,
                filling: serde_json::to_string(&filling.recipe)?,
                filter: filling.filter.clone(),
                batch_size,
            },
            home,
            id: Cell::new(id),
            begun: Cell::new(false),
            positions: RefCell::new(positions),
            record: RefCell::new(None),
            published: Cell::new(false),
        })
    }

    /// Where the extension's own tables are.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Where to go on with a leaf table.
    pub fn position(&self, leaf: pg_sys::Oid) -> Position {
        let positions = self.positions.borrow();
        positions.get(&leaf).cloned().unwrap_or_default()
    }

    /// Whether the job can be stored in this transaction without waiting; locks the job table then.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn is_free(&self) -> Result<bool, Error> {
        if !self.home.try_lock()? {
            return Ok(false);
        }
        self.published.set(self.home.is_published());
        Ok(!self.published.get())
    }

    /// Does what [`Job::is_free`] has found to be necessary. Must be called between transactions.
    ///
    /// # Errors
    /// Those of [`Home::keep_unpublished`].
    pub fn keep_unpublished(&self) -> Result<(), Error> {
        if self.published.take() {
            self.home.keep_unpublished()?;
        }
        Ok(())
    }

    /// Runs `work`, which stores something, in a transaction of its own, waiting for the job table.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`], and those of `work`.
    pub fn patiently<T>(&self, work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        self.home.patiently(work)
    }

    /// Stores the job with all its leaf tables, unless that was done. Returns its number.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn begin(&self) -> Result<i64, Error> {
        if let (Some(id), true) = (self.id.get(), self.begun.get()) {
            return Ok(id);
        }
        let id = match self.id.get() {
            Some(id) => id,
            None => {
                self.supersede()?;
                self.next_id()?
            }
        };
        self.add(id, &self.what.leaves)?;
        Ok(id)
    }

    /// Tells that the transaction that began the job with this number goes through.
    pub fn has_begun(&self, id: i64) {
        self.id.set(Some(id));
        self.begun.set(true);
    }

    /// Tells that a leaf table was verified, so that it will only have to be looked at again.
    pub fn has_finished(&self, leaf: pg_sys::Oid) {
        let mut positions = self.positions.borrow_mut();
        positions.entry(leaf).or_default().finished = true;
    }

    fn supersede(&self) -> Result<(), Error> {
        let sql = format!(
            "UPDATE @ SET state = 'superseded', finished_at = clock_timestamp()
             WHERE system_identifier = $1 AND root_table = $2 AND column_number = $3 AND {UNFINISHED}"
        );
        let what = &self.what;
        let arguments = [
            argument(server::system_identifier()),
            argument(what.root),
            argument(what.number),
        ];
        self.home.execute(&sql, &arguments).map(drop)
    }

    fn next_id(&self) -> Result<i64, Error> {
        self.home
            .execute(
                "SELECT nextval($1::regclass)",
                &[argument(self.home.sequence)],
            )?
            .first()
            .and_then(|row| row.get(1))
            .ok_or(Error::ExtensionDropped)
    }

    /// Adds leaf tables, those that are not in the job yet, and says that this backend works on all of them.
    fn add(&self, id: i64, leaves: &[pg_sys::Oid]) -> Result<(), Error> {
        const ADD: &str = "
            INSERT INTO @ AS j
                (system_identifier, job_id, table_name, root_table, column_name, column_number, filling, filter,
                 batch_size, role, pid)
            SELECT $1, $2, leaf::regclass, $4::regclass, $5::name, $6, $7::jsonb, $8, $9, $10::regrole, $11
            FROM unnest($3) AS leaf
            ON CONFLICT (system_identifier, job_id, table_name) DO UPDATE
            SET pid = excluded.pid, batch_size = excluded.batch_size, role = excluded.role";
        let what = &self.what;
        let arguments = [
            argument(server::system_identifier()),
            argument(id),
            argument(leaves.to_vec()),
            argument(what.root),
            argument(what.column.as_str()),
            argument(what.number),
            argument(what.filling.as_str()),
            argument(what.filter.clone()),
            argument(what.batch_size),
            argument(role::session_user()),
            argument(usage::pid()),
        ];
        self.home.execute(ADD, &arguments).map(drop)
    }

    /// Says that this backend begins, or begins again, with a leaf table; begins the job. Returns its number.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn start_leaf(&self, leaf: pg_sys::Oid, start: &Start) -> Result<i64, Error> {
        const START: &str = "
            UPDATE @
            SET state = 'running', started_at = clock_timestamp(), updated_at = clock_timestamp(),
                file_node = $4, next_block = $5, end_block = $6
            WHERE system_identifier = $1 AND job_id = $2 AND table_name = $3";
        let id = self.begin()?;
        // A partition may have been attached since.
        if !self.what.leaves.contains(&leaf) {
            self.add(id, &[leaf])?;
        }
        let arguments = [
            argument(server::system_identifier()),
            argument(id),
            argument(leaf),
            argument(start.position.file_node),
            argument(i64::from(start.position.next_block)),
            argument(i64::from(start.end_block)),
        ];
        self.home.execute(START, &arguments)?;
        Ok(id)
    }

    /// Adds what batches did, and the time they took; part of a batch's transaction. `false` if somebody has the row
    /// locked.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn record(
        &self,
        leaf: pg_sys::Oid,
        next_block: u32,
        progress: &Progress,
        active: Duration,
    ) -> Result<bool, Error> {
        let mut record = self.record.borrow_mut();
        let table_name = self.home.table_name()?;
        let record = match &mut *record {
            Some(record) if record.table_name == table_name => record,
            outdated => outdated.insert(Record {
                statement: self.home.prepare(RECORD, &RECORD_TYPES)?,
                table_name,
            }),
        };
        let rows = self.home.run(
            &record.statement,
            &[
                argument(server::system_identifier()),
                argument(self.id.get()),
                argument(leaf),
                argument(i64::from(next_block)),
                argument(progress.rows as i64),
                argument(progress.hot as i64),
                argument(progress.batches as i64),
                argument(progress.wal as i64),
                argument(active.as_micros() as i64),
            ],
        );
        Ok(rows.processed() > 0)
    }

    /// Says that a leaf table is gone, if the job has got as far as being stored.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`].
    pub fn drop_leaf(&self, leaf: pg_sys::Oid) -> Result<(), Error> {
        match self.id.get() {
            Some(id) => self.patiently(|| self.finish_leaf(id, leaf, End::Dropped)),
            None => Ok(()),
        }
    }

    /// Says how a leaf table of job `id` came out.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn finish_leaf(&self, id: i64, leaf: pg_sys::Oid, end: End) -> Result<(), Error> {
        const FINISH: &str = "
            UPDATE @
            SET state = $4, next_block = end_block, updated_at = clock_timestamp(), finished_at = clock_timestamp()
            WHERE system_identifier = $1 AND job_id = $2 AND table_name = $3";
        let arguments = [
            argument(server::system_identifier()),
            argument(id),
            argument(leaf),
            argument(end.state()),
        ];
        self.home.execute(FINISH, &arguments).map(drop)
    }
}

const RECORD: &str = "
    UPDATE @
    SET next_block = greatest(next_block, $4), rows_filled = rows_filled + $5, rows_hot = rows_hot + $6,
        batches = batches + $7, wal_bytes = wal_bytes + $8,
        active_time = active_time + $9 * interval '1 microsecond', updated_at = clock_timestamp()
    WHERE ctid = (SELECT ctid FROM @ WHERE system_identifier = $1 AND job_id = $2 AND table_name = $3
                  FOR NO KEY UPDATE SKIP LOCKED)";

const RECORD_TYPES: [pg_sys::Oid; 9] = [
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::OIDOID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
];

fn find_unfinished(home: &Home, target: &Target, filling: &Filling) -> Result<Option<i64>, Error> {
    let sql = format!(
        "SELECT job_id, filling::text FROM @
         WHERE system_identifier = $1 AND root_table = $2 AND column_number = $3
         AND filter IS NOT DISTINCT FROM $4 AND {UNFINISHED}
         ORDER BY job_id DESC"
    );
    let arguments = [
        argument(server::system_identifier()),
        argument(target.table),
        argument(target.number),
        argument(filling.filter.clone()),
    ];
    for row in home.execute(&sql, &arguments)?.iter() {
        let stored: String = row.get(2).unwrap_or_default();
        if serde_json::from_str::<Recipe>(&stored)? == filling.recipe {
            return Ok(row.get(1));
        }
    }
    Ok(None)
}

/// How far job `id` has come with each of its leaf tables.
fn positions(home: &Home, id: i64) -> Result<HashMap<pg_sys::Oid, Position>, Error> {
    let sql = format!(
        "SELECT table_name::oid, file_node, next_block, NOT ({UNFINISHED}) FROM @
         WHERE system_identifier = $1 AND job_id = $2"
    );
    let arguments = [argument(server::system_identifier()), argument(id)];
    let rows = home.execute(&sql, &arguments)?;
    let position = |row: Row<'_>| {
        let next_block: Option<i64> = row.get(3);
        let position = Position {
            file_node: row.get(2),
            next_block: next_block
                .and_then(|block| u32::try_from(block).ok())
                .unwrap_or(0),
            finished: row.get(4).unwrap_or(false),
        };
        Some((row.get(1)?, position))
    };
    Ok(rows.iter().filter_map(position).collect())
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
