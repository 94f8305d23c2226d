//! One batch: take rows, UPDATE them, record it, all in one transaction.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::pace::Pace;
use planner::page::Page;
use planner::team::Team;
use planner::window::{Tid, Window};
use planner::yielding::{Ids, Yielding};

use crate::fill::leaf_table::LeafContext;
use crate::fill::statements::{Busy, Updated};
use crate::job::part::Counts;
use crate::pg::interrupts;
use crate::pg::transaction;
use crate::pg::tx::{Attempt, Tx};
use crate::pg::usage;

/// How long pages may be read in search of rows while no row is locked.
const READING_TIME: Duration = Duration::from_millis(250);

/// Limits of one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most rows.
    pub rows: usize,
    /// Longest time that row locks may be held.
    pub time: Duration,
    /// Longest wait for one row lock.
    pub lock: Duration,
    /// If a statement of several rows takes longer than this, later ones must not wait for a row while they hold
    /// others.
    pub slow: Duration,
}

/// What one batch did.
#[derive(Debug, Default)]
pub struct Filled {
    /// To be added to the job.
    pub counts: Counts,
    /// Rows that were written and are NULL still.
    pub refused: u64,
    /// The window has no more rows for this pass.
    pub pass_ended: bool,
    /// The last statement met a lock and was undone; the message of the error.
    pub locked: Option<String>,
    /// A statement of several rows took so long that a session waiting for one of them could have started to look for a
    /// deadlock.
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

impl Filled {
    fn add(&mut self, written: Written) {
        self.counts.rows += written.updated.filled;
        self.counts.hot += written.hot.min(written.updated.filled);
        self.counts.batches = u64::from(self.counts.rows > 0);
        self.refused += written.updated.refused;
        self.id = written.id.or(self.id);
    }
}

/// Fills one batch of the window's rows, from where the last one stopped.
///
/// Each statement runs in a subtransaction. If one meets a lock, only that statement is undone, and the batch ends, so
/// that its locks are released at once.
pub fn fill(
    context: &LeafContext<'_>,
    window: &mut Window,
    pace: &mut Pace,
    yielding: &mut Yielding,
    limits: Limits,
    team: &Team,
) -> Filled {
    let began = Instant::now();
    let wal = usage::wal_bytes();
    yielding.committed(wal);
    yielding.batch_begins(ids(team), began);
    let mut has_written = false;
    let mut filled = Filled::default();
    let mut done = 0;
    while let Some(rows) = pace.next_statement(limits.rows, done, began.elapsed(), limits.time) {
        // Once rows are locked, the search for more rows counts towards the batch's time limit.
        let time = if done > 0 { limits.time } else { READING_TIME };
        let pass_ended = context.choose(window, rows, began + time);
        let tids = window.next_rows(rows);
        if tids.is_empty() {
            filled.pass_ended = pass_ended;
            break;
        }
        let statement_began = Instant::now();
        let busy = match filled.slow {
            true => Busy::Skipped,
            false => context.busy,
        };
        // Each statement that writes takes a transaction ID, and so does the batch around them. They are counted
        // beforehand, so that no process of the run mistakes them for transactions of the application.
        let taken = 1 + u64::from(!has_written);
        team.begins_transactions(taken);
        match attempt_update(context, &tids, busy, limits.lock) {
            Attempt::Done(written) => {
                let spent = statement_began.elapsed();
                window.tried(&tids);
                filled.add(written);
                filled.slow |= tids.len() > 1 && spent > limits.slow;
                match written.id {
                    Some(_) => has_written = true,
                    None => team.has_not_begun_transactions(taken),
                }
                done += tids.len();
                pace.learn(tids.len(), spent, limits.time);
                yield_to_others(context.tx, yielding, spent);
            }
            Attempt::Locked(message) => {
                if !context.tx.has_written() {
                    team.has_not_begun_transactions(taken);
                }
                window.undone(&tids);
                pace.stumbled();
                filled.locked = Some(message);
                break;
            }
        }
    }
    yielding.batch_ends(ids(team), Instant::now());
    filled.counts.wal = usage::wal_bytes().saturating_sub(wal);
    filled
}

/// The transaction IDs that are taken.
fn ids(team: &Team) -> Ids {
    Ids {
        next: transaction::next_id(),
        own: team.transactions(),
    }
}

/// Leaves the disk and the processors to other sessions for a moment, if there are any.
fn yield_to_others(tx: &Tx, yielding: &mut Yielding, spent: Duration) {
    let (wal, began) = (usage::wal_bytes(), Instant::now());
    if yielding.flush_is_due(wal, began) {
        usage::flush_wal(tx);
        yielding.flushed(wal, Instant::now(), began.elapsed());
    }
    // A latch cannot be used: it counts in milliseconds, which is too coarse.
    std::thread::sleep(yielding.rest(spent, began));
}

/// Fills one row, waiting for whoever holds it; nothing else is locked meanwhile.
pub fn fill_one(context: &LeafContext<'_>, tid: Tid, lock: Duration) -> Attempt<Filled> {
    let wal = usage::wal_bytes();
    match attempt_update(context, &[tid], Busy::Awaited, lock) {
        Attempt::Done(written) => {
            let mut filled = Filled {
                pass_ended: true,
                ..Filled::default()
            };
            filled.add(written);
            filled.counts.wal = usage::wal_bytes().saturating_sub(wal);
            Attempt::Done(filled)
        }
        Attempt::Locked(message) => Attempt::Locked(message),
    }
}

/// Runs one UPDATE in a subtransaction, waiting this long for each lock.
fn attempt_update(
    context: &LeafContext<'_>,
    tids: &[Tid],
    busy: Busy,
    lock: Duration,
) -> Attempt<Written> {
    let (tx, oid) = (context.tx, context.table.oid());
    tx.set_lock_timeout(lock);
    context.statements.check_at_once(tx);
    tx.attempt(|| {
        let hot = usage::hot_updates(tx, oid);
        let updated = context.statements.update(tx, tids, busy);
        Written {
            updated,
            hot: (usage::hot_updates(tx, oid) - hot).max(0).unsigned_abs(),
            id: tx.current_id(),
        }
    })
}

impl LeafContext<'_> {
    /// Reads pages of the window, pruning them, until at least `rows` rows are chosen, the pass ends (then it returns
    /// `true`) or the deadline is over.
    fn choose(&self, window: &mut Window, rows: usize, deadline: Instant) -> bool {
        read_pages(self.table.blocks(), window, rows, deadline, |block| {
            let (column, growth) = (self.column, self.growth);
            let page = self.table.read(block, column, growth, self.key, self.ring);
            self.survey.saw(block, &page);
            page
        })
    }

    /// Reads pages of the window as [`LeafContext::choose`] does, but writes nothing, and takes rows that others hold too.
    pub fn look(&self, window: &mut Window, rows: usize, deadline: Instant) -> bool {
        read_pages(self.table.blocks(), window, rows, deadline, |block| {
            self.table.look(block, self.column, self.ring)
        })
    }
}

fn read_pages(
    blocks: u32,
    window: &mut Window,
    rows: usize,
    deadline: Instant,
    read: impl Fn(u32) -> Page,
) -> bool {
    while window.queued() < rows {
        interrupts::check();
        if Instant::now() >= deadline {
            return false;
        }
        let Some(block) = window.next_block() else {
            return window.queued() == 0;
        };
        // VACUUM may have cut the end of the table off since the window was made.
        if block < blocks {
            window.choose(block, read(block));
        }
    }
    false
}
