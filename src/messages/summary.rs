//! What a run did and what it cost.

use std::iter::Sum;
use std::time::Duration;

use pgrx::pg_sys;

use crate::messages::amounts::{counted, growth, seconds};
use crate::pg::{message, usage};

/// Bytes that a table takes on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Its main fork, all leaves together.
    pub heap: i64,
    /// All its indexes.
    pub indexes: i64,
}

impl Sizes {
    /// How many blocks the heap has.
    pub fn blocks(&self) -> i64 {
        self.heap / i64::from(pg_sys::BLCKSZ)
    }
}

impl Sum for Sizes {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Sizes::default(), |sum, sizes| Sizes {
            heap: sum.heap + sizes.heap,
            indexes: sum.indexes + sizes.indexes,
        })
    }
}

/// What a run did and what it cost.
#[derive(Debug)]
pub struct Summary {
    /// Rows filled.
    pub rows: u64,
    /// Batches that filled any.
    pub batches: u64,
    /// The share of HOT updates from 0 to 1, if they are counted.
    pub hot: Option<f64>,
    /// Bytes of WAL written.
    pub wal: u64,
    /// How long it took.
    pub time: Duration,
    /// The sizes when it began.
    pub before: Sizes,
    /// The sizes when it ended.
    pub after: Sizes,
    /// The share of the rows, from 0 to 1, that need not have been written with method "instant", if that was most of
    /// them and it could be used.
    pub absent: Option<f64>,
}

/// The last message of a run.
pub fn say_summary(table: &str, summary: &Summary) {
    let Summary {
        rows,
        time,
        before,
        after,
        ..
    } = summary;
    let hot = summary.hot.map_or_else(String::new, |share| {
        format!("  {:.0}% of the updates were HOT.", 100.0 * share)
    });
    let cost = format!(
        "It took {} in {}, at {:.0} rows/s, and wrote {} of WAL.{hot}  The heap changed by {}, the indexes by {}.",
        counted(summary.batches, "batch"),
        seconds(*time),
        *rows as f64 / time.as_secs_f64().max(1e-9),
        usage::size_pretty(summary.wal),
        growth(before.heap, after.heap),
        growth(before.indexes, after.indexes),
    );
    message::notice(
        format!("filled {} of table \"{table}\"", counted(*rows, "row")),
        // Nothing was filled at no cost.
        (*rows > 0).then_some(cost.as_str()),
        summary.absent.map(instead).as_deref(),
    );
}

/// What would have been quicker for this share of the rows.
fn instead(share: f64) -> String {
    format!(
        "{:.0}% of these rows lacked the column, having been written before it was added.  With method => 'instant' they would have got the value without being written.",
        100.0 * share
    )
}
