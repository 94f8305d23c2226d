//! One batch: take rows, UPDATE them, record it, all in one transaction.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::filling::{Filling, LeafStatements, Updated};
use crate::job::Progress;
use crate::pace::Pace;
use crate::pg::heap::{Column, Growth, Table};
use crate::pg::transaction::{self, Attempt};
use crate::pg::{settings, usage};
use crate::sweep::{Tid, Window};

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
    /// The last statement met a lock and was undone.
    pub locked: bool,
    /// The transaction's ID, if it wrote anything.
    pub id: Option<pg_sys::TransactionId>,
}

/// Measures one batch from its beginning.
struct Meter {
    began: Instant,
    wal: u64,
    hot: i64,
    table: pg_sys::Oid,
}

impl Meter {
    fn start(table: pg_sys::Oid) -> Self {
        Meter {
            began: Instant::now(),
            wal: usage::wal_bytes(),
            hot: usage::hot_updates(table),
            table,
        }
    }

    fn stop(&self, rows: u64) -> Progress {
        Progress {
            rows,
            hot: (usage::hot_updates(self.table) - self.hot)
                .max(0)
                .unsigned_abs(),
            batches: u64::from(rows > 0),
            wal: usage::wal_bytes().saturating_sub(self.wal),
        }
    }
}

/// Fills one batch of the window's rows, from where the last one stopped.
///
/// `taken` holds rows that were chosen and not yet asked for. Each statement runs in a subtransaction: one that meets
/// a lock is undone alone, and ends the batch, so that what it holds is let go at once.
pub fn fill(
    ground: &Ground<'_>,
    window: &mut Window,
    taken: &mut VecDeque<Tid>,
    pace: &mut Pace,
    limits: Limits,
) -> Outcome {
    let meter = Meter::start(ground.oid);
    let mut total = Updated::default();
    let mut outcome = Outcome::default();
    let mut done = 0;
    while let Some(rows) =
        pace.next_statement(limits.rows, done, meter.began.elapsed(), limits.time)
    {
        choose(ground, window, taken, rows);
        let tids: Vec<Tid> = taken.drain(..rows.min(taken.len())).collect();
        if tids.is_empty() {
            outcome.pass_ended = true;
            break;
        }
        let began = Instant::now();
        let update = || ground.statements.update(&tids, ground.filling);
        match attempt_update(ground, limits.lock, update) {
            Attempt::Done(updated) => {
                window.tried(&tids);
                total.filled += updated.filled;
                total.refused += updated.refused;
                done += tids.len();
                pace.learn(tids.len(), began.elapsed(), limits.time);
            }
            Attempt::Locked => {
                window.undone(&tids);
                pace.stumbled();
                outcome.locked = true;
                break;
            }
        }
    }
    outcome.progress = meter.stop(total.filled);
    outcome.refused = total.refused;
    outcome.id = transaction::current_id();
    outcome
}

/// Fills one row, waiting for whoever holds it; nothing else is locked meanwhile.
pub fn fill_one(ground: &Ground<'_>, tid: Tid, lock: Duration) -> Attempt<Outcome> {
    let meter = Meter::start(ground.oid);
    let update = || ground.statements.update_waiting(tid, ground.filling);
    match attempt_update(ground, lock, update) {
        Attempt::Done(updated) => Attempt::Done(Outcome {
            progress: meter.stop(updated.filled),
            refused: updated.refused,
            pass_ended: true,
            locked: false,
            id: transaction::current_id(),
        }),
        Attempt::Locked => Attempt::Locked,
    }
}

/// Runs one UPDATE in a subtransaction, waiting this long for each lock.
fn attempt_update(
    ground: &Ground<'_>,
    lock: Duration,
    update: impl FnOnce() -> Updated,
) -> Attempt<Updated> {
    settings::set_local_lock_timeout(lock);
    ground.statements.check_at_once();
    transaction::attempt(update)
}

/// Reads pages of the window until at least `rows` rows are taken or the pass ends.
fn choose(ground: &Ground<'_>, window: &mut Window, taken: &mut VecDeque<Tid>, rows: usize) {
    let blocks = ground.table.blocks();
    while taken.len() < rows {
        transaction::check_for_interrupts();
        let Some(block) = window.next_block() else {
            return;
        };
        // VACUUM may have cut the end of the table off since the window was made.
        if block < blocks {
            let page = ground
                .table
                .read(block, ground.column, ground.growth, ground.key);
            taken.extend(window.choose(block, page));
        }
    }
}
