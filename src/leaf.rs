//! One leaf table, from its first window to its last.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::pace::Pace;
use planner::recycling::Recycling;
use planner::window::{Blocks, FIRST_WINDOW, LARGEST_WINDOW, Method, Tid, Window};
use planner::yielding::Yielding;

use crate::batch::{self, Limits, Outcome};
use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::holders;
use crate::job::{Position, lock_column};
use crate::outturn::Outturn;
use crate::pg::heap::Table;
use crate::pg::lock::{ColumnLock, TableLock};
use crate::pg::transaction::{Attempt, attempt, commit_after, transact};
use crate::pg::{horizon, message, settings as pg_settings, usage};
use crate::prepared::{Plan, Prepared};
use crate::progress::Report;
use crate::recorder::Recorder;
use crate::relation::tree_oids;
use crate::settings;

/// How long a run goes on while locks of others keep rows from being filled.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for a lock while others are held: rather undo the statement, and leave the row for later.
const BATCH_LOCK_WAIT: Duration = Duration::from_millis(10);
/// One part in so many of `deadlock_timeout` a statement of several rows may take and still wait for one of them.
const SLOW_STATEMENT: u32 = 8;
/// Rows that were held when a round came by, to be asked for one by one; the next round sweeps the others again.
const MOST_BUSY: usize = 1000;
/// Of those, so many may be held still, each waited for during `row_lock_timeout`.
const WAITS_PER_ROUND: usize = 20;
/// How long one pass waits for the xmin horizon before it goes on without.
const HORIZON_PATIENCE: Duration = Duration::from_millis(100);
const HORIZON_POLL: Duration = Duration::from_millis(2);

/// One leaf table while it is filled.
pub struct Leaf<'a> {
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) report: &'a mut Report,
    pub(crate) prepared: Prepared,
    /// Since then locks of others have kept rows from being filled.
    pub(crate) hindered_since: Option<Instant>,
    /// The message of the last error that such a lock has caused.
    hindered_by: String,
    pub(crate) refused: u64,
    oid: pg_sys::Oid,
    pace: Pace,
    yielding: Yielding,
    recycling: Recycling,
    recorder: Recorder<'a>,
    /// All blocks were swept, by an earlier CALL or by this one: the leaf only has to be verified.
    swept: bool,
    next_block: u32,
    window_size: u32,
    /// The last transaction whose dead row versions are to be pruned.
    last_id: Option<pg_sys::TransactionId>,
    /// The horizon was behind this transaction when the run last gave up waiting for it.
    stuck_at: Option<pg_sys::TransactionId>,
    refused_before_window: u64,
    /// The window before this one, whose free space is recorded once its dead versions can be pruned.
    last_window: Option<(u32, u32)>,
    /// Keeps a run on this leaf alone off its column; the table that was named has a lock of its own.
    _lock: Option<ColumnLock>,
}

/// Why work on a leaf stops.
#[derive(Debug)]
pub enum Halt {
    /// The table is in another file than before: its blocks have to be gone over from the first.
    Rewritten,
    /// The run ends.
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Failed(error)
    }
}

impl<'a> Leaf<'a> {
    /// Looks at the leaf and prepares its statements.
    ///
    /// # Errors
    /// [`Error::TableDropped`], [`Error::ColumnChanged`], [`Error::AccessMethod`], [`Error::AlreadyRunning`].
    pub fn open(
        plan: &'a Plan<'a>,
        report: &'a mut Report,
        oid: pg_sys::Oid,
    ) -> Result<Self, Error> {
        let stored = plan.job.position(oid);
        let prepared = prepare(plan, oid)?;
        commit_after(|| {
            let table = open_table(plan, oid)?;
            let lock = if oid == plan.target.table {
                None
            } else {
                let (name, number) = (&prepared.name.name, prepared.column.number);
                Some(lock_column(oid, number, name, &prepared.column.name)?)
            };
            let mut leaf = Leaf {
                plan,
                report,
                oid,
                prepared,
                pace: Pace::default(),
                yielding: Yielding::new(Instant::now()),
                recycling: Recycling::default(),
                recorder: Recorder::new(plan.job, oid),
                hindered_since: None,
                hindered_by: String::new(),
                swept: stored.finished,
                next_block: 0,
                window_size: FIRST_WINDOW,
                last_id: None,
                stuck_at: None,
                refused: 0,
                refused_before_window: 0,
                last_window: None,
                _lock: lock,
            };
            leaf.resume(&table, &stored);
            Ok(leaf)
        })
    }

    /// Goes on from the stored position if the table is still in the same file.
    fn resume(&mut self, table: &Table, stored: &Position) {
        let same_file = stored.file_node == Some(self.prepared.file_node);
        if stored.file_node.is_some() && !same_file && !self.swept {
            self.say_rewritten();
        }
        let from = match () {
            () if self.swept => table.blocks(),
            () if same_file => stored.next_block,
            () => 0,
        };
        self.start_at(table, from);
        self.report.done_before(u64::from(from));
    }

    fn start_at(&mut self, table: &Table, block: u32) {
        self.next_block = block;
        let position = Position {
            file_node: Some(self.prepared.file_node),
            next_block: block,
            finished: false,
        };
        self.recorder.start(position, table.blocks());
    }

    fn say_rewritten(&self) {
        message::notice(
            format!(
                "table \"{}\" was rewritten since the last batch; starting over at its first block",
                self.prepared.name.name
            ),
            None,
        );
    }

    /// Fills the leaf and verifies it, from its first block again whenever it is rewritten.
    ///
    /// # Errors
    /// [`Error::RowsLocked`], [`Error::TableDropped`], [`Error::ColumnChanged`], [`Error::AccessMethod`], and
    /// PostgreSQL's own from triggers, checks or the expression.
    pub fn fill(mut self) -> Result<Outturn, Error> {
        let outturn = loop {
            match self.sweep_and_verify() {
                Ok(outturn) => break outturn,
                Err(Halt::Rewritten) => self.start_over()?,
                Err(Halt::Failed(error)) => return Err(error),
            }
        };
        self.recorder.finish(outturn.end)?;
        Ok(outturn)
    }

    fn sweep_and_verify(&mut self) -> Result<Outturn, Halt> {
        if !self.swept {
            let end = self.on_table(|_, table| Ok(table.blocks()))?;
            self.sweep(Blocks::Range(self.next_block..end), true)?;
            self.swept = true;
        }
        self.verify()
    }

    fn start_over(&mut self) -> Result<(), Error> {
        self.say_rewritten();
        self.swept = false;
        self.last_window = None;
        self.prepared = prepare(self.plan, self.oid)?;
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            self.start_at(&table, 0);
            Ok(())
        })
    }

    /// Runs `work` on the table and commits it. Nowhere else is looked whether the table is still in the same file.
    ///
    /// `work` must not wait without limit for a lock on another table: see [`Leaf::patiently`].
    pub(crate) fn on_table<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &Table) -> Result<T, Halt>,
    ) -> Result<T, Halt> {
        let mut work = Some(work);
        loop {
            let result = transact(|| {
                let table = open_table(self.plan, self.oid)?;
                if table.file_node() != self.prepared.file_node {
                    return Err(Halt::Rewritten);
                }
                if !self.prepared.follow(self.plan, &table)? {
                    return Ok(None);
                }
                work.take().map(|work| work(self, &table)).transpose()
            })?;
            match result {
                Some(result) => return Ok(result),
                None => self.prepare_again()?,
            }
        }
    }

    fn prepare_again(&mut self) -> Result<(), Error> {
        let prepared = prepare(self.plan, self.oid)?;
        self.prepared.renew(prepared);
        Ok(())
    }

    /// Runs `work`, which may wait for locks on other tables, while this one is locked for UPDATE.
    ///
    /// Others may want both, in the other order: it lets go of this one before they look for a deadlock.
    pub(crate) fn patiently<T>(&mut self, work: impl Fn(&Self, &Table) -> T) -> Result<T, Halt> {
        loop {
            match self.for_a_moment(&work)? {
                Attempt::Done(result) => return Ok(result),
                Attempt::Locked(message) => self.require_patience(message)?,
            }
        }
    }

    fn for_a_moment<T>(&mut self, work: impl Fn(&Self, &Table) -> T) -> Result<Attempt<T>, Halt> {
        self.on_table(|leaf, table| {
            pg_settings::set_local_lock_timeout(settings::row_lock_timeout());
            Ok(attempt(|| work(leaf, table)))
        })
    }

    /// Fails once locks of others have kept rows from being filled for too long; they have now, says this `message`.
    pub(crate) fn require_patience(&mut self, message: String) -> Result<(), Halt> {
        self.hindered_by = message;
        let since = *self.hindered_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LOCK_PATIENCE {
            return Ok(());
        }
        let rows = match self.for_a_moment(|leaf, _| leaf.prepared.statements.count_unfilled())? {
            Attempt::Done(rows) => Some(rows.unsigned_abs()),
            Attempt::Locked(_) => None,
        };
        Err(Halt::Failed(Error::RowsLocked {
            table: self.prepared.name.name.clone(),
            rows,
            holders: commit_after(|| Ok(holders::of_rows(self.oid)))?,
            message: std::mem::take(&mut self.hindered_by),
        }))
    }

    /// Goes over `blocks`, window by window. Returns rows that other transactions held throughout, but none in the
    /// first round: those are found again when it is verified.
    pub(crate) fn sweep(
        &mut self,
        mut blocks: Blocks,
        first_round: bool,
    ) -> Result<Vec<Tid>, Halt> {
        let mut busy = vec![];
        loop {
            let method = if first_round {
                self.hindered_since = None;
                self.method()?
            } else {
                Method::OnePass
            };
            let size = match method {
                Method::Recycle => self.window_size,
                // The rows of the next one find room in this one: the sooner, the less the table grows.
                Method::OnePass => self.window_size / 2,
            };
            let blocks = blocks.next_window(size);
            let count = blocks.len() as u64;
            let mut window = Window::new(blocks, method);
            let Some((first, last)) = window.bounds() else {
                break;
            };
            self.sweep_window(&mut window, first_round)?;
            if first_round {
                self.next_block = last + 1;
                self.report.blocks_done(count);
                self.record_free_space()?;
                self.last_window = Some((first, last));
            } else {
                let room = MOST_BUSY - busy.len();
                busy.extend(window.into_busy().into_iter().take(room));
            }
        }
        self.record_free_space()?;
        Ok(busy)
    }

    /// The method for the next window: no recycling while the horizon is stuck, rows refuse, or updates are not HOT.
    fn method(&mut self) -> Result<Method, Halt> {
        if let Some(id) = self.stuck_at {
            if self.horizon_has_passed(id)? {
                self.stuck_at = None;
            } else {
                self.name_holder()?;
            }
        }
        let refusing = self.refused > self.refused_before_window;
        self.refused_before_window = self.refused;
        let (method, hazards) = self.patiently(|leaf, table| leaf.prepared.method_now(table))?;
        if !self.prepared.is_for(hazards) {
            self.prepare_again()?;
        }
        let recycling = self.stuck_at.is_none() && !refusing && self.recycling.next_window();
        Ok(if recycling { method } else { Method::OnePass })
    }

    fn sweep_window(&mut self, window: &mut Window, first_round: bool) -> Result<(), Halt> {
        loop {
            loop {
                let outcome = self.batch(window)?;
                if first_round {
                    self.report
                        .window_at(window.done() * window.blocks() as f64);
                }
                if outcome.refused > 0 || !self.recycling_pays(window, &outcome) {
                    window.give_up_recycling();
                }
                if outcome.pass_ended {
                    break;
                }
            }
            if !window.next_pass() {
                return Ok(());
            }
            if !self.wait_for_horizon()? {
                window.give_up_recycling();
            }
        }
    }

    /// Judged by the updates that found room which the first pass has made.
    fn recycling_pays(&mut self, window: &Window, outcome: &Outcome) -> bool {
        let progress = &outcome.progress;
        !window.has_made_room()
            || !usage::counts_updates()
            || self.recycling.pays(progress.rows, progress.hot)
    }

    /// One batch in a transaction of its own.
    fn batch(&mut self, window: &mut Window) -> Result<Outcome, Halt> {
        pg_settings::reload_if_asked();
        self.plan.job.keep_unpublished()?;
        let limits = Limits {
            rows: self.plan.batch_size,
            time: settings::max_batch_time(),
            lock: settings::row_lock_timeout().min(BATCH_LOCK_WAIT),
            slow: pg_settings::deadlock_timeout() / SLOW_STATEMENT,
        };
        let outcome = self.on_table(|leaf, table| {
            let ground = leaf.prepared.ground(leaf.plan, table);
            let (pace, yielding) = (&mut leaf.pace, &mut leaf.yielding);
            let outcome = batch::fill(&ground, window, pace, yielding, limits);
            leaf.record(&outcome)?;
            Ok(outcome)
        })?;
        self.count(&outcome);
        if let Some(message) = &outcome.locked {
            self.require_patience(message.clone())?;
        }
        Ok(outcome)
    }

    /// Adds to the job what a batch did.
    fn record(&mut self, outcome: &Outcome) -> Result<(), Error> {
        // What may still wait for a lock, here and at commit, may do so longer than a row, though not for ever.
        pg_settings::set_local_lock_timeout(pg_settings::deadlock_timeout() / 2);
        self.recorder.add(&outcome.progress, self.next_block);
        self.recorder.store()
    }

    fn count(&mut self, outcome: &Outcome) {
        self.refused += outcome.refused;
        if outcome.progress.rows > 0 {
            self.hindered_since = None;
        }
        if outcome.slow {
            self.prepared.was_slow();
        }
        self.last_id = outcome.id.or(self.last_id);
        self.report.batch(&outcome.progress);
    }

    /// Waits for rows that others hold, one by one, each in a transaction that holds nothing else. If some are held
    /// still, the message of the error that one of them has caused.
    pub(crate) fn wait_for(&mut self, rows: &[Tid]) -> Result<Option<String>, Halt> {
        let (mut locked, mut last) = (0, None);
        for &tid in rows {
            if locked >= WAITS_PER_ROUND {
                break;
            }
            self.plan.job.keep_unpublished()?;
            let lock = settings::row_lock_timeout();
            let attempted = self.on_table(|leaf, table| {
                let ground = leaf.prepared.ground(leaf.plan, table);
                let attempted = batch::fill_one(&ground, tid, lock);
                if let Attempt::Done(outcome) = &attempted {
                    leaf.record(outcome)?;
                }
                Ok(attempted)
            })?;
            match attempted {
                Attempt::Done(outcome) => self.count(&outcome),
                Attempt::Locked(message) => {
                    locked += 1;
                    last = Some(message);
                }
            }
        }
        Ok(last)
    }

    /// Waits until what the last pass left dead can be pruned; `false` if that takes too long.
    fn wait_for_horizon(&mut self) -> Result<bool, Halt> {
        let Some(id) = self.last_id else {
            return Ok(true);
        };
        let began = Instant::now();
        while !self.horizon_has_passed(id)? {
            if began.elapsed() >= HORIZON_PATIENCE {
                self.stuck_at = Some(id);
                self.widen_window();
                self.name_holder()?;
                return Ok(false);
            }
            usage::sleep(HORIZON_POLL);
        }
        if began.elapsed() > HORIZON_PATIENCE / 5 {
            self.widen_window();
        }
        Ok(true)
    }

    /// A longer window gives the horizon more time between two passes over the same page.
    fn widen_window(&mut self) {
        self.window_size = (self.window_size * 2).min(LARGEST_WINDOW);
    }

    fn horizon_has_passed(&mut self, id: pg_sys::TransactionId) -> Result<bool, Halt> {
        self.on_table(|_, table| Ok(horizon::has_passed(table, id)))
    }

    /// Says once who keeps dead row versions alive.
    fn name_holder(&mut self) -> Result<(), Error> {
        if self.report.holder_is_named() {
            return Ok(());
        }
        let holder = commit_after(|| Ok(holders::of_horizon(self.plan.job.home())))?;
        if let Some((holder, hint)) = holder {
            self.report.name_holder(&holder, &hint);
        }
        Ok(())
    }

    fn record_free_space(&mut self) -> Result<(), Halt> {
        let Some((first, last)) = self.last_window.take() else {
            return Ok(());
        };
        self.on_table(|_, table| {
            table.record_free_space(first, last);
            Ok(())
        })
    }
}

/// Looks at the leaf and prepares its statements, which can lock other tables.
///
/// A leaf that was detached meanwhile is none of the run's business any more: [`Error::TableDropped`].
fn prepare(plan: &Plan<'_>, oid: pg_sys::Oid) -> Result<Prepared, Error> {
    let locks = Locks {
        table_name: &plan.target.table_name,
        tables: &[oid],
        lock: Some(TableLock::RowExclusive),
        permit: |_| Ok(()),
    };
    ddl::run(&locks, || {
        if !tree_oids(plan.target.table).contains(&oid) {
            return Err(table_dropped(plan));
        }
        Prepared::look(plan, &open_table(plan, oid)?)
    })
}

fn open_table(plan: &Plan<'_>, oid: pg_sys::Oid) -> Result<Table, Error> {
    Table::open_for_update(oid).ok_or_else(|| table_dropped(plan))
}

fn table_dropped(plan: &Plan<'_>) -> Error {
    Error::TableDropped {
        table: plan.target.table_name.clone(),
    }
}
