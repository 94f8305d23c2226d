//! One leaf table, from its first window to its verified end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::batch::{self, Limits, Outcome};
use crate::courtesy::Courtesy;
use crate::error::Error;
use crate::job::{End, Position, Progress, lock_column};
use crate::outturn::{Cause, Leftover, Outturn};
use crate::pace::Pace;
use crate::pg::heap::Table;
use crate::pg::lock::ColumnLock;
use crate::pg::transaction::{Attempt, attempt, commit_after};
use crate::pg::{horizon, message, settings as pg_settings, usage};
use crate::prepared::{Plan, Prepared};
use crate::progress::Report;
use crate::settings;
use crate::sweep::{Blocks, FIRST_WINDOW, LARGEST_WINDOW, Method, Tid, Window};

/// Rounds after the first: each begins with a look at the whole table for rows that are NULL still.
const MOST_ROUNDS: u32 = 5;
/// Up to so many rows left over are looked up one by one; more are worth another sweep.
const STRAGGLERS: i64 = 10_000;
/// How long a run goes on while locks of others keep rows from being filled.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for a lock while others are held: rather undo the statement, and leave the row for later.
const BATCH_LOCK_WAIT: Duration = Duration::from_millis(10);
/// Rows that were held when a round came by, to be asked for one by one; the next round sweeps the others again.
const MOST_BUSY: usize = 1000;
/// Of those, so many may be held still, each waited for during `row_lock_timeout`.
const WAITS_PER_ROUND: usize = 20;
/// How long one pass waits for the xmin horizon before it goes on without.
const HORIZON_PATIENCE: Duration = Duration::from_millis(100);
const HORIZON_POLL: Duration = Duration::from_millis(2);

/// One leaf table while it is filled.
pub struct Leaf<'a> {
    plan: &'a Plan<'a>,
    report: &'a mut Report,
    oid: pg_sys::Oid,
    prepared: Prepared,
    pace: Pace,
    courtesy: Courtesy,
    recorded: Instant,
    /// Since then locks of others have kept rows from being filled.
    hindered_since: Option<Instant>,
    /// An earlier CALL, or an earlier look of this one, was done with the leaf: it only has to be verified.
    finished_before: bool,
    next_block: u32,
    window_size: u32,
    /// The last transaction whose dead row versions are to be pruned.
    last_id: Option<pg_sys::TransactionId>,
    /// The horizon was behind this transaction when the run last gave up waiting for it.
    stuck_at: Option<pg_sys::TransactionId>,
    refused: u64,
    refused_before_window: u64,
    /// The window before this one, whose free space is recorded once its dead versions can be pruned.
    swept: Option<(u32, u32)>,
    /// Keeps a run on this leaf alone off its column; the table that was named has a lock of its own.
    _lock: Option<ColumnLock>,
}

/// The table is in another file than before: its blocks have to be gone over from the first.
struct Rewritten;

/// What comes of work on a table that may have been rewritten; other errors end the run.
type Swept<T> = Result<Result<T, Rewritten>, Error>;

impl<'a> Leaf<'a> {
    /// Looks at the leaf and prepares its statements.
    ///
    /// # Errors
    /// [`Error::TableDropped`], [`Error::ColumnChanged`], [`Error::AlreadyRunning`].
    pub fn open(
        plan: &'a Plan<'a>,
        report: &'a mut Report,
        oid: pg_sys::Oid,
    ) -> Result<Self, Error> {
        commit_after(|| {
            let stored = plan.job.position(oid);
            let table = open_table(plan, oid)?;
            let prepared = Prepared::look(plan, oid, &table)?;
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
                courtesy: Courtesy::new(Instant::now()),
                recorded: Instant::now(),
                hindered_since: None,
                finished_before: stored.finished,
                next_block: 0,
                window_size: FIRST_WINDOW,
                last_id: None,
                stuck_at: None,
                refused: 0,
                refused_before_window: 0,
                swept: None,
                _lock: lock,
            };
            leaf.resume(&table, &stored);
            Ok(leaf)
        })
    }

    /// Goes on from the stored position if the table is still in the same file.
    fn resume(&mut self, table: &Table, stored: &Position) {
        let same_file = stored.file_node == Some(self.prepared.file_node);
        if stored.file_node.is_some() && !same_file && !self.finished_before {
            self.say_rewritten();
        }
        let from = match () {
            () if self.finished_before => table.blocks(),
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
        self.plan
            .job
            .start_leaf(self.oid, &position, table.blocks());
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

    /// Fills the leaf and verifies it.
    ///
    /// # Errors
    /// [`Error::RowsLocked`], [`Error::TableDropped`], [`Error::ColumnChanged`], and PostgreSQL's own from triggers,
    /// checks or the expression.
    pub fn fill(mut self) -> Result<Outturn, Error> {
        if !self.finished_before {
            self.first_round()?;
        }
        let outturn = self.verify()?;
        commit_after(|| {
            self.plan.job.finish_leaf(self.oid, outturn.end);
            Ok(())
        })?;
        Ok(outturn)
    }

    fn first_round(&mut self) -> Result<(), Error> {
        loop {
            let end = commit_after(|| Ok(open_table(self.plan, self.oid)?.blocks()))?;
            match self.sweep(Blocks::Range(self.next_block..end), true)? {
                Ok(_) => return Ok(()),
                Err(Rewritten) => self.start_over()?,
            }
        }
    }

    fn start_over(&mut self) -> Result<(), Error> {
        self.say_rewritten();
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            self.prepared = Prepared::look(self.plan, self.oid, &table)?;
            self.start_at(&table, 0);
            Ok(())
        })
    }

    /// Looks at the whole table with one snapshot, as often as needed, until no row is left to be filled.
    fn verify(&mut self) -> Result<Outturn, Error> {
        self.hindered_since = None;
        let mut left_before = vec![];
        let mut round = 0;
        while round < MOST_ROUNDS {
            let (mut left, blocks) = match self.unfilled()? {
                Ok(unfilled) => unfilled,
                Err(Rewritten) => {
                    self.start_over()?;
                    self.first_round()?;
                    continue;
                }
            };
            if left.is_empty() {
                return self.end(Cause::NullExpression);
            }
            left.sort_unstable();
            let (rows_before, refused_before) = (self.report.rows(), self.refused);
            let since = self.hindered_since;
            let locked = match self.another_round(blocks_of(&left, blocks))? {
                Ok(locked) => locked,
                Err(Rewritten) => continue,
            };
            if locked {
                // Rows that could be filled meanwhile are no reason to wait longer for the others.
                self.hindered_since = since.or(self.hindered_since);
                self.require_patience()?;
                usage::sleep(settings::row_lock_timeout());
                continue;
            }
            self.hindered_since = None;
            // Rows that are still where they were have been asked and refused; others were moved by an update
            // between the look and the sweep, or are new.
            let refused = self.refused > refused_before || left == left_before;
            if self.report.rows() == rows_before && refused {
                return self.end(Cause::Refused);
            }
            left_before = left;
            round += 1;
        }
        self.end(Cause::New)
    }

    /// Sweeps the blocks on which rows were left; `true` if some of them are locked still.
    fn another_round(&mut self, blocks: Blocks) -> Swept<bool> {
        match self.sweep(blocks, false)? {
            Ok(busy) => self.wait_for(&busy),
            Err(rewritten) => Ok(Err(rewritten)),
        }
    }

    /// The table, open for one batch, if it is still in the same file.
    fn ready(&mut self) -> Swept<Table> {
        let table = open_table(self.plan, self.oid)?;
        if table.file_node() != self.prepared.file_node {
            return Ok(Err(Rewritten));
        }
        self.prepared.follow(self.plan, &table)?;
        Ok(Ok(table))
    }

    /// Places of rows that are to be filled yet, up to a limit, and the number of blocks that the table has now.
    fn unfilled(&mut self) -> Swept<(Vec<Tid>, u32)> {
        self.patiently(|leaf, table| {
            let left = leaf.prepared.statements.unfilled(STRAGGLERS);
            (left, table.blocks())
        })
    }

    /// Runs SQL of the user's that may wait for locks on other tables, while this one is locked for UPDATE.
    fn patiently<T>(&mut self, work: impl Fn(&Self, &Table) -> T) -> Swept<T> {
        loop {
            let attempted = commit_after(|| {
                let table = match self.ready()? {
                    Ok(table) => table,
                    Err(rewritten) => return Ok(Err(rewritten)),
                };
                pg_settings::set_local_lock_timeout(settings::row_lock_timeout());
                Ok(Ok(attempt(|| work(self, &table))))
            })?;
            match attempted {
                Ok(Attempt::Done(result)) => return Ok(Ok(result)),
                Ok(Attempt::Locked) => self.require_patience()?,
                Err(rewritten) => return Ok(Err(rewritten)),
            }
        }
    }

    /// Fails once locks of others have kept rows from being filled for too long.
    fn require_patience(&mut self) -> Result<(), Error> {
        let since = *self.hindered_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LOCK_PATIENCE {
            return Ok(());
        }
        let (rows, holders) = commit_after(|| {
            let _table = open_table(self.plan, self.oid)?;
            let rows = self.prepared.statements.count_unfilled();
            Ok((rows, self.plan.job.row_lock_holders(self.oid)))
        })?;
        Err(Error::RowsLocked {
            table: self.prepared.name.name.clone(),
            rows,
            holders,
        })
    }

    /// How the leaf came out, with the number of rows that are NULL still.
    fn end(&mut self, cause: Cause) -> Result<Outturn, Error> {
        let completed = Outturn {
            end: End::Completed,
            leftover: None,
        };
        if cause == Cause::NullExpression && !self.plan.filling.can_be_null() {
            return Ok(completed);
        }
        let rows = match self.patiently(|leaf, _| leaf.prepared.statements.count_unfilled())? {
            Ok(rows) => rows,
            Err(Rewritten) => {
                self.start_over()?;
                self.first_round()?;
                return self.verify();
            }
        };
        if rows == 0 {
            return Ok(completed);
        }
        Ok(Outturn {
            end: End::Incomplete,
            leftover: Some(Leftover {
                table: self.prepared.name.name.clone(),
                column: self.prepared.column.name.clone(),
                rows,
                cause,
            }),
        })
    }

    /// Goes over `blocks`, window by window. Returns rows that other transactions held throughout, but none in the
    /// first round: those are found again when it is verified.
    fn sweep(&mut self, mut blocks: Blocks, first_round: bool) -> Swept<Vec<Tid>> {
        let mut busy = vec![];
        loop {
            let blocks = blocks.next_window(self.window_size);
            let count = blocks.len() as u64;
            let method = if first_round {
                self.hindered_since = None;
                self.method()?
            } else {
                Method::OnePass
            };
            let mut window = Window::new(blocks, method);
            let Some((first, last)) = window.bounds() else {
                break;
            };
            if let Err(rewritten) = self.sweep_window(&mut window, first_round)? {
                return Ok(Err(rewritten));
            }
            if first_round {
                self.next_block = last + 1;
                self.report.blocks_done(count);
                self.record_free_space()?;
                self.swept = Some((first, last));
            } else {
                let room = MOST_BUSY - busy.len();
                busy.extend(window.into_busy().into_iter().take(room));
            }
        }
        self.record_free_space()?;
        Ok(Ok(busy))
    }

    /// The method for the next window: no recycling while the horizon is stuck or rows refuse.
    fn method(&mut self) -> Result<Method, Error> {
        if let Some(id) = self.stuck_at {
            if self.horizon_has_passed(id)? {
                self.stuck_at = None;
            } else {
                self.name_holder()?;
            }
        }
        let refusing = self.refused > self.refused_before_window;
        self.refused_before_window = self.refused;
        let method = commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            self.prepared.follow(self.plan, &table)?;
            Ok(self.prepared.method_now(self.plan, &table))
        })?;
        let recycling = self.stuck_at.is_none() && !refusing;
        Ok(if recycling { method } else { Method::OnePass })
    }

    fn sweep_window(&mut self, window: &mut Window, first_round: bool) -> Swept<()> {
        let mut taken = VecDeque::new();
        loop {
            loop {
                let outcome = match self.batch(window, &mut taken)? {
                    Ok(outcome) => outcome,
                    Err(rewritten) => return Ok(Err(rewritten)),
                };
                if first_round {
                    self.report
                        .window_at(window.done() * window.blocks() as f64);
                }
                if outcome.refused > 0 {
                    window.give_up_recycling();
                }
                if outcome.pass_ended {
                    break;
                }
            }
            if !window.next_pass() {
                return Ok(Ok(()));
            }
            if !self.wait_for_horizon()? {
                window.give_up_recycling();
            }
        }
    }

    /// One batch in a transaction of its own.
    fn batch(&mut self, window: &mut Window, taken: &mut VecDeque<Tid>) -> Swept<Outcome> {
        pg_settings::reload_if_asked();
        let limits = Limits {
            rows: self.plan.batch_size,
            time: settings::max_batch_time(),
            lock: settings::row_lock_timeout().min(BATCH_LOCK_WAIT),
        };
        let swept = commit_after(|| {
            let table = match self.ready()? {
                Ok(table) => table,
                Err(rewritten) => return Ok(Err(rewritten)),
            };
            let ground = self.prepared.ground(self.plan, &table);
            let (pace, courtesy) = (&mut self.pace, &mut self.courtesy);
            let outcome = batch::fill(&ground, window, taken, pace, courtesy, limits);
            self.record(&outcome.progress);
            Ok(Ok(outcome))
        })?;
        if let Ok(outcome) = &swept {
            self.count(outcome);
            if outcome.locked {
                self.require_patience()?;
            }
        }
        Ok(swept)
    }

    /// Adds to the job what a batch did; the time since the last one counts too, waits and commits included.
    fn record(&mut self, progress: &Progress) {
        // What may still wait for a lock, here and at commit, may do so longer than a row, though not for ever.
        pg_settings::set_local_lock_timeout(pg_settings::deadlock_timeout() / 2);
        if progress.rows > 0 {
            let active = self.recorded.elapsed();
            self.recorded = Instant::now();
            self.plan
                .job
                .record(self.oid, self.next_block, progress, active);
        }
    }

    fn count(&mut self, outcome: &Outcome) {
        self.refused += outcome.refused;
        if outcome.progress.rows > 0 {
            self.hindered_since = None;
        }
        self.last_id = outcome.id.or(self.last_id);
        self.report.batch(&outcome.progress);
    }

    /// Waits for rows that others hold, one by one, each in a transaction that holds nothing else; `true` if some are
    /// held still.
    fn wait_for(&mut self, rows: &[Tid]) -> Swept<bool> {
        let mut locked = 0;
        for &tid in rows {
            if locked >= WAITS_PER_ROUND {
                break;
            }
            let lock = settings::row_lock_timeout();
            let attempted = commit_after(|| {
                let table = match self.ready()? {
                    Ok(table) => table,
                    Err(rewritten) => return Ok(Err(rewritten)),
                };
                let ground = self.prepared.ground(self.plan, &table);
                let attempt = batch::fill_one(&ground, tid, lock);
                if let Attempt::Done(outcome) = &attempt {
                    self.record(&outcome.progress);
                }
                Ok(Ok(attempt))
            })?;
            match attempted {
                Ok(Attempt::Done(outcome)) => self.count(&outcome),
                Ok(Attempt::Locked) => locked += 1,
                Err(rewritten) => return Ok(Err(rewritten)),
            }
        }
        Ok(Ok(locked > 0))
    }

    /// Waits until what the last pass left dead can be pruned; `false` if that takes too long.
    fn wait_for_horizon(&mut self) -> Result<bool, Error> {
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

    fn horizon_has_passed(&self, id: pg_sys::TransactionId) -> Result<bool, Error> {
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            Ok(horizon::has_passed(&table, id))
        })
    }

    /// Says once who keeps dead row versions alive.
    fn name_holder(&mut self) -> Result<(), Error> {
        if self.report.holder_is_named() {
            return Ok(());
        }
        let holder = commit_after(|| Ok(self.plan.job.horizon_holder()))?;
        if let Some((holder, hint)) = holder {
            self.report.name_holder(&holder, &hint);
        }
        Ok(())
    }

    fn record_free_space(&mut self) -> Result<(), Error> {
        let Some((first, last)) = self.swept.take() else {
            return Ok(());
        };
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            table.record_free_space(first, last);
            Ok(())
        })
    }
}

fn open_table(plan: &Plan<'_>, oid: pg_sys::Oid) -> Result<Table, Error> {
    Table::open_for_update(oid).ok_or_else(|| Error::TableDropped {
        table: plan.target.table_name.clone(),
    })
}

/// The blocks to sweep for these rows, which are sorted; if there may be more rows, all from the first one's on.
fn blocks_of(rows: &[Tid], end: u32) -> Blocks {
    let mut blocks: Vec<u32> = rows.iter().map(|tid| tid.block).collect();
    blocks.dedup();
    match blocks.first() {
        Some(&first) if rows.len() as i64 >= STRAGGLERS => Blocks::Range(first..end),
        _ => Blocks::List(blocks),
    }
}
