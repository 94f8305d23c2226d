//! One leaf table while it is filled: how it is reached, whatever phase it is in.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::claims::Round;
use planner::pace::Pace;
use planner::patience::Patience;
use planner::phase::{Machine, Phase};
use planner::team::Stint;
use planner::window::Tid;
use planner::yielding::Yielding;

use crate::catalog::{holders, tree};
use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::fill::context::Run;
use crate::fill::leaf_table::LeafTable;
use crate::fill::progress::Report;
use crate::fill::state::{Look, Sweeping};
use crate::job::column_lock;
use crate::job::part::{Activity, Counts, Position};
use crate::job::recorder::Recorder;
use crate::messages::{self, Reason, Wait};
use crate::pg::heap::Table;
use crate::pg::lock::{ColumnLock, TableLock};
use crate::pg::settings as server_settings;
use crate::pg::tx::{Attempt, Tx};
use crate::run::gate;
use crate::run::throttle::Work;
use crate::settings;

/// One leaf table while it is filled.
pub struct Leaf<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) report: &'a mut Report,
    pub(super) oid: pg_sys::Oid,
    pub(super) table: LeafTable,
    pub(super) recorder: Recorder<'a>,
    pub(super) pace: Pace,
    pub(super) yielding: Yielding,
    pub(super) sweeping: Sweeping,
    pub(super) look: Look,
    /// Rows that the last look found, and others hold.
    pub(super) held: Vec<Tid>,
    pub(super) patience: Patience,
    pub(super) machine: Machine,
    /// The round in which its blocks are claimed while they are swept.
    pub(super) round: Option<Round>,
    /// For how long the run was paused up to now.
    paused: Duration,
    /// Prevents another run on this leaf alone. The column of the table that was named has its own lock.
    _lock: Option<ColumnLock>,
}

/// Why work on a leaf stops.
#[derive(Debug)]
pub enum Halt {
    /// The table was rewritten into another file, so work has to begin again at its first block.
    Rewritten,
    /// The run ends.
    Failed(Error),
}

/// What came of an attempt to work on the table.
enum OnTable<T> {
    Done(T),
    /// Its statements have to be prepared anew.
    Changed,
    /// Another transaction has it locked.
    Locked,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Failed(error)
    }
}

impl<'a> Leaf<'a> {
    /// Looks at the leaf and prepares its statements, to go on from where the job has come with it.
    ///
    /// # Errors
    /// [`Error::TableDropped`], [`Error::ColumnChanged`], [`Error::AccessMethod`], [`Error::AlreadyRunning`].
    pub fn open(run: &'a Run<'a>, report: &'a mut Report, oid: pg_sys::Oid) -> Result<Self, Error> {
        let stored = run.job.position(oid);
        let table = prepare(run, oid)?;
        let (lock, blocks) = run.driver.transaction(|tx| {
            let lock = lock_column(tx, run, oid, &table)?;
            Ok::<_, Error>((lock, open_table(tx, run, oid)?.blocks()))
        })?;
        let file_changed = stored.file_node.is_some_and(|node| node != table.file_node);
        if file_changed && stored.activity == Activity::Filling {
            messages::say_rewritten(&table.name.name);
        }
        let same_file = stored.file_node == Some(table.file_node);
        let reached = if same_file {
            stored
        } else {
            Position::default()
        };
        let position = Position {
            activity: stored.activity,
            file_node: Some(table.file_node),
            end_block: blocks,
            ..reached
        };
        let phase = match position.activity {
            Activity::Filling => Phase::Filling,
            Activity::Verifying => Phase::Verifying,
        };
        report.begin(position);
        let recorder = Recorder::new(&run.job, &run.membership, oid, position);
        let mut leaf = Leaf {
            look: Look::resumed(position),
            machine: Machine::new(phase),
            _lock: lock,
            ..Self::of(run, report, oid, table, recorder)
        };
        if phase == Phase::Filling {
            leaf.begin_round();
        }
        Ok(leaf)
    }

    /// Joins the leading process in sweeping a leaf; `None` if the table has been rewritten since the leader looked it
    /// up.
    ///
    /// # Errors
    /// Those of [`Leaf::open`], but for [`Error::AlreadyRunning`].
    pub fn join(
        run: &'a Run<'a>,
        report: &'a mut Report,
        stint: Stint,
    ) -> Result<Option<Self>, Halt> {
        let oid = pg_sys::Oid::from(stint.table);
        let table = prepare(run, oid)?;
        if table.file_node.to_u32() != stint.file {
            return Ok(None);
        }
        let recorder = Recorder::new(&run.job, &run.membership, oid, Position::default());
        Ok(Some(Leaf {
            round: Some(stint.round),
            ..Self::of(run, report, oid, table, recorder)
        }))
    }

    fn of(
        run: &'a Run<'a>,
        report: &'a mut Report,
        oid: pg_sys::Oid,
        table: LeafTable,
        recorder: Recorder<'a>,
    ) -> Self {
        Leaf {
            run,
            report,
            oid,
            table,
            recorder,
            pace: Pace::default(),
            yielding: Yielding::new(Instant::now(), run.membership.of()),
            sweeping: Sweeping::new(run.membership.of()),
            look: Look::default(),
            held: vec![],
            patience: Patience::default(),
            machine: Machine::new(Phase::Filling),
            round: None,
            paused: run.driver.time_paused(),
            _lock: None,
        }
    }

    /// Lets all processes of the run claim the blocks that are to be swept.
    pub(super) fn begin_round(&mut self) {
        let position = self.recorder.position();
        let blocks = position.next_block..position.end_block.max(position.next_block);
        let file = self.table.file_node.to_u32();
        self.sweeping.began_at = position.next_block;
        let team = self.run.membership.team();
        self.round = Some(team.begin(self.oid.to_u32(), file, blocks));
    }

    /// Passes the gate, then runs `work` on the table and commits it. This is the only place that checks whether the
    /// table is still in the same file.
    ///
    /// `work` must not wait without limit for a lock on another table: see [`Leaf::patiently`].
    pub(super) fn on_table<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &Tx, &Table<'_>) -> Result<T, Halt>,
    ) -> Result<T, Halt> {
        let run = self.run;
        let mut work = Some(work);
        loop {
            gate::pass(run.driver)?;
            self.heed_pauses();
            if run.membership.leads() {
                run.job.keep_unpublished(run.driver)?;
                self.collect();
            }
            let attempt = run.driver.commit(|tx| {
                if !self.beside_the_sweep(|leaf| lock_in_time(tx, leaf.oid)) {
                    return Ok(OnTable::Locked);
                }
                let table = open_table(tx, run, self.oid)?;
                let has_its_name = self.table.follow(tx, run, &table)?;
                if table.file_node() != self.table.file_node {
                    return Err(Halt::Rewritten);
                }
                if !has_its_name {
                    return Ok(OnTable::Changed);
                }
                let done = work.take().map(|work| work(self, tx, &table));
                Ok(done.transpose()?.map_or(OnTable::Changed, OnTable::Done))
            })?;
            self.recorder.is_committed();
            if run.driver.took_id() {
                run.membership.team().begins_transactions(1);
            }
            run.driver.settle()?;
            match attempt {
                OnTable::Done(result) => {
                    run.driver
                        .has_waited(|reason| reason == Reason::TableLock)?;
                    return Ok(result);
                }
                OnTable::Changed => self.prepare_again()?,
                OnTable::Locked => self.note_table_lock()?,
            }
        }
    }

    /// The time for which the run was paused counts neither as work nor as patience.
    pub(super) fn heed_pauses(&mut self) {
        let all = self.run.driver.time_paused();
        let time = all.saturating_sub(std::mem::replace(&mut self.paused, all));
        if !time.is_zero() {
            self.recorder.has_paused(time);
            self.report.has_paused(time);
            self.sweeping.since += time;
            self.patience.renew();
        }
    }

    /// Does what counts neither as work of the sweep nor as a wait for the horizon: it waits for others.
    fn beside_the_sweep<T>(&mut self, wait: impl FnOnce(&mut Self) -> T) -> T {
        self.heed_pauses();
        let before = self.sweeping.since.elapsed();
        let result = wait(self);
        self.heed_pauses();
        let time = self.sweeping.since.elapsed().saturating_sub(before);
        self.sweeping.since += time;
        result
    }

    /// Tells who has locked the table.
    fn note_table_lock(&mut self) -> Result<(), Error> {
        let (driver, oid) = (self.run.driver, self.oid);
        let holders =
            driver.transaction(|tx| Ok::<_, Error>(holders::of_tables(tx, &[oid], true)))?;
        driver.waits_for(&Wait::table_lock(&self.table.name.name, holders.as_deref()))
    }

    /// Counts what other processes have done, and committed, as what this one does.
    pub(super) fn collect(&mut self) {
        let done = self.run.membership.team().collect();
        if done != Counts::default() {
            self.recorder.add_committed(&done);
            self.report.batch(&done);
        }
    }

    /// Waits until others keep up.
    pub(super) fn admit(&mut self, work: Work) -> Result<(), Halt> {
        let (run, oid) = (self.run, self.oid);
        let admit = |_: &mut Self| run.throttle.borrow_mut().admit(run.driver, oid, work);
        if self.beside_the_sweep(admit)? {
            // Meanwhile the locks that were in the way may have been released.
            self.patience.renew();
        }
        Ok(())
    }

    pub(super) fn prepare_again(&mut self) -> Result<(), Error> {
        let table = prepare(self.run, self.oid)?;
        self.table.renew(table);
        Ok(())
    }

    /// Runs `work`, which may wait for locks on other tables, while this one is locked for UPDATE.
    ///
    /// Others may lock the same tables in the opposite order. This one is released before they start looking for a
    /// deadlock.
    pub(super) fn patiently<T>(
        &mut self,
        work: impl Fn(&Self, &Tx, &Table<'_>) -> T,
    ) -> Result<T, Halt> {
        loop {
            let attempted = self.on_table(|leaf, tx, table| {
                tx.set_lock_timeout(settings::row_lock_timeout());
                Ok(tx.attempt(|| work(leaf, tx, table)))
            })?;
            match attempted {
                Attempt::Done(result) => return Ok(result),
                Attempt::Locked(message) => self.require_patience(message, None)?,
            }
        }
    }

    /// Fails once locks have been in the way for too long. `message` is the last lock error, `rows` how many rows are
    /// held.
    pub(super) fn require_patience(
        &mut self,
        message: String,
        rows: Option<u64>,
    ) -> Result<(), Halt> {
        if self.patience.lasts(Instant::now()) {
            return Ok(());
        }
        let (driver, oid) = (self.run.driver, self.oid);
        Err(Halt::Failed(Error::RowsLocked {
            table: self.table.name.name.clone(),
            rows,
            holders: driver.transaction(|tx| Ok::<_, Error>(holders::of_rows(tx, oid)))?,
            message,
            call: self.run.request.statement(),
        }))
    }

    /// Stores the progress if that is due. Also sets the lock timeout for whatever still waits for a lock, here or at
    /// commit: longer than for a row, but limited.
    pub(super) fn record(&mut self, tx: &Tx) -> Result<(), Halt> {
        tx.set_lock_timeout(server_settings::deadlock_timeout() / 2);
        if self.recorder.is_due() {
            self.recorder.store(tx)?;
        }
        Ok(())
    }
}

fn lock_column(
    tx: &Tx,
    run: &Run<'_>,
    oid: pg_sys::Oid,
    table: &LeafTable,
) -> Result<Option<ColumnLock>, Error> {
    if oid == run.request.target.table {
        return Ok(None);
    }
    let (name, column) = (&table.name.name, &table.column);
    column_lock::acquire(tx, oid, column.number, name, &column.name).map(Some)
}

/// Looks at the leaf and prepares its statements, which can lock other tables.
///
/// A leaf that was detached meanwhile does not belong to the run any more: [`Error::TableDropped`].
pub(super) fn prepare(run: &Run<'_>, oid: pg_sys::Oid) -> Result<LeafTable, Error> {
    let target = &run.request.target;
    let locks = Locks {
        table_name: &target.table_name,
        tables: &[oid],
        lock: Some(TableLock::RowExclusive),
        permit: |_, _| Ok(()),
    };
    ddl::run(run.driver, &locks, |tx| {
        if !tree::contains(tx, target.table, oid) {
            return Err(table_dropped(run));
        }
        LeafTable::look_up(tx, run.request, &open_table(tx, run, oid)?)
    })
}

/// Locks the table for UPDATE; `false` if others have it locked for longer than the lock timeout.
fn lock_in_time(tx: &Tx, oid: pg_sys::Oid) -> bool {
    let lock = TableLock::RowExclusive;
    if tx.try_lock_table(oid, lock) {
        return true;
    }
    tx.set_lock_timeout(settings::lock_timeout());
    let locked = tx.attempt(|| tx.lock_table(oid, lock)) == Attempt::Done(());
    server_settings::wait_for_locks_without_limit(tx);
    locked
}

pub(super) fn open_table<'tx>(
    tx: &'tx Tx,
    run: &Run<'_>,
    oid: pg_sys::Oid,
) -> Result<Table<'tx>, Error> {
    Table::open_for_update(tx, oid).ok_or_else(|| table_dropped(run))
}

fn table_dropped(run: &Run<'_>) -> Error {
    Error::TableDropped {
        table: run.request.target.table_name.clone(),
    }
}
