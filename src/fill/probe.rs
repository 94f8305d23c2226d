//! Finds out which rows of a window are to be filled, without writing anything or locking rows.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use planner::pace::Pace;
use planner::window::{Tid, Window};

use crate::fill::leaf_table::LeafContext;
use crate::fill::statements::Due;
use crate::pg::tx::Attempt;

/// The largest number of rows that one transaction checks.
const MOST_ROWS: usize = 100_000;

/// What a transaction has found.
#[derive(Debug, Default)]
pub struct Probed {
    /// Rows that are to be filled.
    pub due: Vec<Tid>,
    /// Rows that are not, because the expression is NULL for them.
    pub without_value: u64,
    /// The window has no more rows for this pass.
    pub pass_ended: bool,
    /// A statement met a lock; the message of the error.
    pub locked: Option<String>,
}

/// Checks rows of the window, from where the last transaction stopped, for at most `time`. `lock` is the longest wait
/// for a lock on another table.
pub fn probe(
    context: &LeafContext<'_>,
    window: &mut Window,
    pace: &mut Pace,
    time: Duration,
    lock: Duration,
) -> Probed {
    let began = Instant::now();
    let deadline = began + time;
    let mut probed = Probed::default();
    let mut done = 0;
    context.tx.set_lock_timeout(lock);
    while let Some(rows) = pace.next_statement(MOST_ROWS, done, began.elapsed(), time) {
        let pass_ended = context.look(window, rows, deadline);
        let tids = window.next_rows(rows);
        if tids.is_empty() {
            probed.pass_ended = pass_ended;
            break;
        }
        let statement_began = Instant::now();
        match context
            .tx
            .attempt(|| context.statements.probe(context.tx, &tids))
        {
            Attempt::Done(answers) => {
                pace.learn(tids.len(), statement_began.elapsed(), time);
                done += tids.len();
                note(&mut probed, window, &tids, &answers);
            }
            Attempt::Locked(message) => {
                window.put_back(tids);
                pace.stumbled();
                probed.locked = Some(message);
                break;
            }
        }
    }
    probed
}

/// Notes the answers. A row without an answer was changed, or filled, since its page was read.
fn note(probed: &mut Probed, window: &mut Window, tids: &[Tid], answers: &[(Tid, Due)]) {
    let answered: HashSet<Tid> = answers.iter().map(|(tid, _)| *tid).collect();
    let (there, changed): (Vec<Tid>, Vec<Tid>) =
        tids.iter().partition(|&tid| answered.contains(tid));
    window.tried(&there);
    window.changed(&changed);
    for (tid, due) in answers {
        match due {
            Due::Yes => probed.due.push(*tid),
            Due::WithoutValue => probed.without_value += 1,
            Due::No => {}
        }
    }
}
