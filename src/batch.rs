//! One batch: take rows, UPDATE them, record it, all in one transaction.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::pace::Pace;
use planner::page::Growth;
use planner::window::{Tid, Window};
use planner::yielding::Yielding;

use crate::filling::Filling;
use crate::job::Progress;
use crate::pg::heap::{Column, Table};
use crate::pg::transaction::{self, Attempt};
use crate::pg::{settings, usage};
use crate::statements::{Busy, LeafStatements, Updated};

/// What a batch needs to know of the table it works on, for the length of its transaction.
pub struct Ground<'a> {
    /// The table, open and locked for UPDATE.
    pub table: &'a Table,
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// The column to be filled.
    pub column: &'a Column,
    /// By how much a row grows.
    pub growth: Growth,
    /// An update of the column needs the row's key lock.
    pub key: bool,
    /// How statements of several rows treat those that others hold.
    pub busy: Busy,
    /// The statements for it.
    pub statements: &'a LeafStatements,
    /// What goes into the column.
    pub filling: &'a Filling,
}

/// Limits of one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most rows.
    pub rows: usize,
    /// Longest time that row locks may be held.
    pub time: Duration,
    /// Longest wait for one row lock.
    pub lock: Duration,
    /// Longest statement of several rows that may wait for one of them while it holds others.
    pub slow: Duration,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be added to the job.
    pub progress: Progress,
    /// Rows that were written and are NULL still.
    pub refused: u64,
    /// The window has no more rows for this pass.
    pub pass_ended: bool,
    /// The last statement met a lock and was undone; the message of the error.
    pub locked: Option<String>,
    /// A statement of several rows took so long that the application could have looked for deadlocks meanwhile.
    pub slow: bool,
    /// The last subtransaction that wrote anything.
    pub id: Option<pg_sys::TransactionId>,
}

/// What one statement did.
#[derive(Debug, Clone, Copy)]
struct Written {
    updated: Updated,
    hot: u64,
    /// The subtransaction that wrote it.
    id: Option<pg_sys::TransactionId>,
}

impl Outcome {
    fn add(&mut self, written: Written) {
        self.progress.rows += written.updated.filled;
        self.progress.hot += written.hot.min(written.updated.filled);
        self.progress.batches = u64::from(self.progress.rows > 0);
        self.refused += written.updated.refused;
        self.id = written.id.or(self.id);
    }
}

/// Fills one batch of the window's rows, from where the last one stopped.
///
/// Each statement runs in a subtransaction: one that meets
/// a lock is undone alone, and ends the batch, so that what it holds is let go at once.
pub fn fill(
    ground: &Ground<'_>,
    window: &mut Window,
    pace: &mut Pace,
    yielding: &mut Yielding,
    limits: Limits,
) -> Outcome {
    let began = Instant::now();
    let wal = usage::wal_bytes();
    yielding.committed(wal);
    let first_id = transaction::next_id();
    let mut own_ids = 0;
    let mut outcome = Outcome::default();
    let mut done = 0;
    while let Some(rows) = pace.next_statement(limits.rows, done, began.elapsed(), limits.time) {
        // While rows are locked, the search for more of them has to end in time as well.
        let deadline = (done > 0).then(|| began + limits.time);
        let pass_ended = choose(ground, window, rows, deadline);
        let tids = window.next_rows(rows);
        if tids.is_empty() {
            outcome.pass_ended = pass_ended;
            break;
        }
        let statement_began = Instant::now();
        let busy = match outcome.slow {
            true => Busy::Skipped,
            false => ground.busy,
        };
        match attempt_update(ground, &tids, busy, limits.lock) {
            Attempt::Done(written) => {
                let spent = statement_began.elapsed();
                window.tried(&tids);
                outcome.add(written);
                outcome.slow |= tids.len() > 1 && spent > limits.slow;
                own_ids += u32::from(written.id.is_some());
                done += tids.len();
                pace.learn(tids.len(), spent, limits.time);
                yield_to_others(yielding, spent);
            }
            Attempt::Locked(message) => {
                window.undone(&tids);
                pace.stumbled();
                outcome.locked = Some(message);
                break;
            }
        }
    }
    // Each statement that wrote has an ID of its own, and so has the batch around them.
    let all_ids = transaction::next_id().wrapping_sub(first_id);
    yielding.others_wrote(all_ids.saturating_sub(own_ids + 1), Instant::now());
    outcome.progress.wal = usage::wal_bytes().saturating_sub(wal);
    outcome
}

/// Lets the others have the disk and the processors, if there are any.
fn yield_to_others(yielding: &mut Yielding, spent: Duration) {
    let (wal, began) = (usage::wal_bytes(), Instant::now());
    if yielding.flush_is_due(wal, began) {
        usage::flush_wal();
        yielding.flushed(wal, Instant::now(), began.elapsed());
    }
    // Too short for the latch, which counts in milliseconds.
    std::thread::sleep(yielding.rest(spent, began));
}

/// Fills one row, waiting for whoever holds it; nothing else is locked meanwhile.
pub fn fill_one(ground: &Ground<'_>, tid: Tid, lock: Duration) -> Attempt<Outcome> {
    let wal = usage::wal_bytes();
    match attempt_update(ground, &[tid], Busy::Awaited, lock) {
        Attempt::Done(written) => {
            let mut outcome = Outcome {
                pass_ended: true,
                ..Outcome::default()
            };
            outcome.add(written);
            outcome.progress.wal = usage::wal_bytes().saturating_sub(wal);
            Attempt::Done(outcome)
        }
        Attempt::Locked(message) => Attempt::Locked(message),
    }
}

/// Runs one UPDATE in a subtransaction, waiting this long for each lock.
fn attempt_update(
    ground: &Ground<'_>,
    tids: &[Tid],
    busy: Busy,
    lock: Duration,
) -> Attempt<Written> {
    settings::set_local_lock_timeout(lock);
    ground.statements.check_at_once();
    transaction::attempt(|| {
        let hot = usage::hot_updates(ground.oid);
        let updated = ground.statements.update(tids, ground.filling, busy);
        Written {
            updated,
            hot: (usage::hot_updates(ground.oid) - hot).max(0).unsigned_abs(),
            id: transaction::current_id(),
        }
    })
}

/// Reads pages of the window until at least `rows` rows are chosen, the pass ends (then it returns `true`) or the
/// deadline is over.
fn choose(
    ground: &Ground<'_>,
    window: &mut Window,
    rows: usize,
    deadline: Option<Instant>,
) -> bool {
    let blocks = ground.table.blocks();
    while window.queued() < rows {
        transaction::check_for_interrupts();
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        let Some(block) = window.next_block() else {
            return window.queued() == 0;
        };
        // VACUUM may have cut the end of the table off since the window was made.
        if block < blocks {
            let page = ground
                .table
                .read(block, ground.column, ground.growth, ground.key);
            window.choose(block, page);
        }
    }
    false
}
