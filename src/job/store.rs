//! The job as it is stored: one row for it, and one for each leaf table.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pgrx::pg_sys;

use crate::error::Error;
use crate::job::assignment::Assignment;
use crate::job::home::{Home, Names};
use crate::job::part::{Counts, End, Entry, Position};
use crate::job::stored::{find_unfinished, finished, positions};
use crate::messages;
use crate::pg::lock::ExtensionLock;
use crate::pg::spi::Statement;
use crate::pg::tx::Tx;
use crate::pg::{role, server, usage};
use crate::run::driver::Driver;
use crate::run::membership::Membership;

/// A job: one CALL, or several that take it up from each other.
///
/// Nothing is stored before [`Job::begin`], which is part of the first transaction that has done something.
pub struct Job {
    pub(super) home: Home,
    /// Of the leader, for all processes of the run.
    lock: Option<ExtensionLock>,
    pub(super) what: Assignment,
    /// Its number, once it is stored.
    pub(super) id: Cell<Option<i64>>,
    pub(super) begun: Cell<bool>,
    /// This process has seen that it was cancelled.
    pub(super) is_cancelled: Cell<bool>,
    positions: RefCell<HashMap<pg_sys::Oid, Position>>,
    /// How many blocks each leaf table has.
    blocks: RefCell<HashMap<pg_sys::Oid, i64>>,
    /// What was done with leaf tables that the run has left, and is not stored yet.
    pub(super) unstored: RefCell<HashMap<pg_sys::Oid, Entry>>,
    store: RefCell<Option<(Names, Statement)>>,
    pub(super) order: RefCell<Option<(Names, Statement)>>,
    /// A publication would send it to subscribers: nothing is stored before that has been stopped.
    published: Cell<bool>,
}

impl Job {
    /// Takes up the job of that number, or else the unfinished one for this column and value, or makes a new one. Call it
    /// between transactions.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::ExtensionLocked`], [`Error::ExtensionDropped`], [`Error::JobTablePublished`],
    /// [`Error::LockNotAvailable`], [`Error::StoredJob`].
    pub fn open(driver: &Driver, what: Assignment, id: Option<i64>) -> Result<Self, Error> {
        let (home, lock) = driver.transaction(Home::hold)?;
        home.keep_unpublished(driver)?;
        let (id, positions) = home.patiently(driver, |tx| {
            let id = match id {
                None => find_unfinished(tx, &home, &what)?,
                known => known,
            };
            let positions = match id {
                Some(id) => positions(tx, &home, id)?,
                None => HashMap::new(),
            };
            Ok((id, positions))
        })?;
        let mut job = Self::of(home, what, id, positions);
        job.lock = Some(lock);
        Ok(job)
    }

    /// The job of that number, whose leader this process helps: nothing of it is stored by this one.
    pub fn joined(home: Home, what: Assignment, id: i64) -> Self {
        let job = Self::of(home, what, Some(id), HashMap::new());
        job.begun.set(true);
        job
    }

    fn of(
        home: Home,
        what: Assignment,
        id: Option<i64>,
        positions: HashMap<pg_sys::Oid, Position>,
    ) -> Self {
        Job {
            what,
            home,
            lock: None,
            id: Cell::new(id),
            begun: Cell::new(false),
            is_cancelled: Cell::new(false),
            positions: RefCell::new(positions),
            blocks: RefCell::default(),
            unstored: RefCell::default(),
            store: RefCell::new(None),
            order: RefCell::new(None),
            published: Cell::new(false),
        }
    }

    /// Tells how many blocks each leaf table has, so that the share of the tree that is done can be told.
    pub fn knows_blocks(&self, blocks: HashMap<pg_sys::Oid, i64>) {
        self.blocks.replace(blocks);
    }

    /// The role that owns the extension.
    pub fn owner(&self) -> pg_sys::Oid {
        self.home.owner
    }

    /// Where to go on with a leaf table.
    pub fn position(&self, leaf: pg_sys::Oid) -> Position {
        let positions = self.positions.borrow();
        positions.get(&leaf).copied().unwrap_or_default()
    }

    /// Whether the job can be stored in this transaction without waiting; locks its tables then.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn is_free(&self, tx: &Tx) -> Result<bool, Error> {
        if !self.home.try_lock(tx)? {
            return Ok(false);
        }
        self.published.set(self.home.is_published(tx));
        Ok(!self.published.get())
    }

    /// Does what [`Job::is_free`] has found to be necessary. Call it between transactions.
    ///
    /// # Errors
    /// Those of [`Home::keep_unpublished`].
    pub fn keep_unpublished(&self, driver: &Driver) -> Result<(), Error> {
        if self.published.take() {
            self.home.keep_unpublished(driver)?;
        }
        Ok(())
    }

    /// Runs `work`, which stores something, in a transaction of its own, waiting for the job's tables.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`], and those of `work`.
    pub fn patiently<T>(
        &self,
        driver: &Driver,
        work: impl FnMut(&Tx) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.home.patiently(driver, work)
    }

    /// Stores the job with all its leaf tables, unless that was done. Returns its number.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn begin(&self, tx: &Tx) -> Result<i64, Error> {
        const RESUME: &str = "
            UPDATE @job SET pid = $3, batch_size = $4, workers = $7, method = $8, role = $5::regrole, started_at = clock_timestamp(),
                state = CASE WHEN $6 THEN state ELSE 'running' END,
                background = $6, error = NULL, waits_for = NULL, waits_since = NULL, finished_at = NULL
            WHERE system_identifier = $1 AND job_id = $2";
        // Those of an earlier run.
        const FORGET_PROCESSES: &str = "
            UPDATE @part SET processes = NULL
            WHERE system_identifier = $1 AND job_id = $2 AND processes IS NOT NULL";
        if let (Some(id), true) = (self.id.get(), self.begun.get()) {
            return Ok(id);
        }
        let id = match self.id.get() {
            Some(id) => {
                let (cluster, role) = (server::system_identifier(), role::current_user());
                let (size, background) = (self.what.batch_size, server::is_background_worker());
                let workers = self.what.workers;
                self.home.execute(
                    tx,
                    RESUME,
                    &[
                        &cluster,
                        &id,
                        &usage::pid(),
                        &size,
                        &role,
                        &background,
                        &workers,
                        &self.what.method.name(),
                    ],
                )?;
                self.home.execute(tx, FORGET_PROCESSES, &[&cluster, &id])?;
                id
            }
            None => self.insert(tx)?,
        };
        self.add_parts(tx, id, &self.what.leaves)?;
        Ok(id)
    }

    /// Tells that the transaction that began the job with this number goes through.
    pub fn has_begun(&self, id: i64) {
        self.id.set(Some(id));
        self.begun.set(true);
    }

    /// Tells where the run has come to with a leaf table, which it leaves for now.
    pub fn has_come_to(&self, leaf: pg_sys::Oid, position: Position) {
        self.positions.borrow_mut().insert(leaf, position);
    }

    /// Tells that a leaf table was verified, so that it will only have to be looked at again.
    pub fn has_finished(&self, leaf: pg_sys::Oid) {
        self.has_come_to(leaf, finished());
    }

    /// What was done with a leaf table that the run has left, and is not stored yet.
    pub fn leave_unstored(&self, leaf: pg_sys::Oid, entry: Entry) {
        self.unstored.borrow_mut().insert(leaf, entry);
    }

    /// Adds what other processes of the run have done with such a leaf table.
    pub fn add_unstored(&self, leaf: pg_sys::Oid, membership: &Membership) {
        let done = membership.team().collect();
        if let Some(entry) = self.unstored.borrow_mut().get_mut(&leaf) {
            entry.counts.add(&done);
            entry.processes = membership.figures();
        }
    }

    /// Hands over what was done with a leaf table and is not stored yet.
    pub fn take_unstored(&self, leaf: pg_sys::Oid) -> Counts {
        let entry = self.unstored.borrow_mut().remove(&leaf);
        entry.map(|entry| entry.counts).unwrap_or_default()
    }

    fn insert(&self, tx: &Tx) -> Result<i64, Error> {
        insert(tx, &self.home, &self.what, Some(usage::pid()))
    }

    /// Adds leaf tables, those that the job does not have yet.
    fn add_parts(&self, tx: &Tx, id: i64, leaves: &[pg_sys::Oid]) -> Result<(), Error> {
        const ADD: &str = "
            INSERT INTO @part (system_identifier, job_id, table_name, root_table, end_block)
            SELECT $1, $2, leaf::regclass, $4::regclass, blocks FROM unnest($3, $5) AS part (leaf, blocks)
            ON CONFLICT (system_identifier, job_id, table_name) DO NOTHING";
        let (cluster, root) = (server::system_identifier(), self.what.root);
        let known = self.blocks.borrow();
        let of = |leaf| known.get(leaf).copied().unwrap_or_default();
        let blocks: Vec<i64> = leaves.iter().map(of).collect();
        self.home
            .execute(tx, ADD, &[&cluster, &id, &leaves.to_vec(), &root, &blocks])
            .map(drop)
    }

    /// Begins the job if that is yet to be done, and makes sure that it has this leaf table. Returns its number.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn begin_part(&self, tx: &Tx, leaf: pg_sys::Oid) -> Result<i64, Error> {
        let id = self.begin(tx)?;
        // A partition may have been attached since.
        if !self.what.leaves.contains(&leaf) {
            self.add_parts(tx, id, &[leaf])?;
        }
        Ok(id)
    }

    /// Stores how far job `id` has come with a leaf table. `false` if somebody has the row locked.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn store(&self, tx: &Tx, id: i64, leaf: pg_sys::Oid, entry: &Entry) -> Result<bool, Error> {
        let mut store = self.store.borrow_mut();
        let statement = self.home.prepared(tx, &mut store, STORE, &STORE_TYPES)?;
        let Entry {
            position, counts, ..
        } = entry;
        let time_left = entry.time_left.map(|left| left.as_micros() as i64);
        let rows = self.home.run(
            tx,
            statement,
            &[
                &server::system_identifier(),
                &id,
                &leaf,
                &position.activity.state(),
                &position.file_node,
                &i64::from(position.next_block),
                &i64::from(position.end_block),
                &(position.rows_found as i64),
                &(counts.rows as i64),
                &(counts.hot as i64),
                &(counts.batches as i64),
                &(counts.wal as i64),
                &(entry.active.as_micros() as i64),
                &time_left,
                &entry.begins,
                &(position.rows_without_value as i64),
                &entry.processes,
                &i64::from(position.blocks_done),
            ],
        );
        Ok(rows.processed() > 0)
    }

    /// Says that a leaf table is gone, if the job has got as far as being stored.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`].
    pub fn drop_part(&self, driver: &Driver, leaf: pg_sys::Oid) -> Result<(), Error> {
        self.take_unstored(leaf);
        match self.id.get() {
            Some(id) => self.patiently(driver, |tx| self.finish_part(tx, id, leaf, End::Dropped)),
            None => Ok(()),
        }
    }

    /// Says how a leaf table of job `id` came out.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn finish_part(&self, tx: &Tx, id: i64, leaf: pg_sys::Oid, end: End) -> Result<(), Error> {
        const FINISH: &str = "
            UPDATE @part
            SET state = $4, next_block = end_block, blocks_done = end_block, time_left = '0',
                updated_at = clock_timestamp(), finished_at = clock_timestamp()
            WHERE system_identifier = $1 AND job_id = $2 AND table_name = $3";
        let cluster = server::system_identifier();
        self.home
            .execute(tx, FINISH, &[&cluster, &id, &leaf, &end.state()])
            .map(drop)
    }

    /// Says that the job is done, with all its leaf tables.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`].
    pub fn finish(&self, driver: &Driver) -> Result<(), Error> {
        const FINISH: &str = "
            UPDATE @job
            SET state = CASE WHEN EXISTS (SELECT FROM @part p
                                          WHERE p.system_identifier = $1 AND p.job_id = $2 AND p.state = 'incomplete')
                             THEN 'incomplete' ELSE 'completed' END,
                waits_for = NULL, waits_since = NULL, finished_at = clock_timestamp()
            WHERE system_identifier = $1 AND job_id = $2";
        let cluster = server::system_identifier();
        self.patiently(driver, |tx| {
            let id = self.begin(tx)?;
            self.home.execute(tx, FINISH, &[&cluster, &id]).map(drop)
        })
    }
}

/// Stores a new job, which `pid` works on, or a background worker that is yet to begin. Returns its number.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn insert(tx: &Tx, home: &Home, what: &Assignment, pid: Option<i32>) -> Result<i64, Error> {
    // What an earlier job has left NULL is this one's to fill, if that looks at the same rows or at all.
    const SUPERSEDE: &str = "
        UPDATE @job j SET state = 'superseded', finished_at = coalesce(j.finished_at, clock_timestamp())
        FROM @job e
        WHERE e.system_identifier = $1 AND e.table_name = $2 AND e.column_number = $3
        AND (e.state IN ('running', 'paused', 'cancelled', 'failed')
             OR e.state = 'incomplete' AND ($4 IS NULL OR e.filter IS NOT DISTINCT FROM $4))
        AND j.system_identifier = e.system_identifier AND j.job_id = e.job_id
        RETURNING j.job_id, e.state <> 'incomplete' AND e.value <> $5::jsonb,
            (SELECT sum(p.rows_filled)::bigint FROM @part p WHERE p.system_identifier = $1 AND p.job_id = e.job_id)";
    const INSERT: &str = "
        INSERT INTO @job
            (system_identifier, job_id, table_name, column_name, column_number, value, filter, batch_size, role, pid,
             background, workers, method)
        SELECT $1, nextval($2::regclass), $3::regclass, $4::name, $5, $6::jsonb, $7, $8, $9::regrole, $10, $10 IS NULL, $11, $12
        RETURNING job_id";
    let cluster = server::system_identifier();
    let value = serde_json::to_string(&what.recipe)?;
    let superseded = home.execute(
        tx,
        SUPERSEDE,
        &[&cluster, &what.root, &what.number, &what.filter, &value],
    )?;
    for row in superseded.iter() {
        let (job, is_other, rows): (Option<i64>, Option<bool>, Option<i64>) =
            (row.get(1), row.get(2), row.get(3));
        if let (Some(job), Some(true), Some(rows @ 1..)) = (job, is_other, rows) {
            messages::say_other_value(&what.table_name, &what.column, job, rows.unsigned_abs());
        }
    }
    home.execute(
        tx,
        INSERT,
        &[
            &cluster,
            &home.sequence,
            &what.root,
            &what.column,
            &what.number,
            &value,
            &what.filter,
            &what.batch_size,
            &role::current_user(),
            &pid,
            &what.workers,
            &what.method.name(),
        ],
    )?
    .first()
    .and_then(|row| row.get(1))
    .ok_or(Error::ExtensionDropped)
}

const STORE: &str = "
    UPDATE @part
    SET state = $4, file_node = $5, next_block = $6, blocks_done = $18, end_block = $7, rows_found = $8, rows_without_value = $16, processes = $17::jsonb,
        rows_filled = rows_filled + $9, rows_hot = rows_hot + $10, batches = batches + $11, wal_bytes = wal_bytes + $12,
        active_time = active_time + $13 * interval '1 microsecond', time_left = $14 * interval '1 microsecond',
        started_at = CASE WHEN $15 THEN clock_timestamp() ELSE started_at END,
        updated_at = clock_timestamp(), finished_at = NULL
    WHERE ctid = (SELECT ctid FROM @part WHERE system_identifier = $1 AND job_id = $2 AND table_name = $3
                  FOR NO KEY UPDATE SKIP LOCKED)";

const STORE_TYPES: [pg_sys::Oid; 18] = {
    use pg_sys::{BOOLOID as BOOL, INT8OID as INT, OIDOID as OID, TEXTOID as TEXT};
    [
        INT, INT, OID, TEXT, OID, INT, INT, INT, INT, INT, INT, INT, INT, INT, BOOL, INT, TEXT, INT,
    ]
};
