//! The progress of a run, reported from time to time and at its end.

use std::time::{Duration, Instant};

use planner::eta::{Track, share};

use crate::job::part::{Activity, Counts, Position};
use crate::messages::{self, Sizes, Summary};
use crate::pg::usage;
use crate::settings;

/// Counts what a run has done and says so from time to time.
pub struct Report {
    table: String,
    began: Instant,
    last_said: Instant,
    total: Counts,
    /// Blocks of all leaf tables, to be filled.
    filling: Track,
    /// Blocks of the leaf table that is worked on.
    leaf: Track,
    /// When work on it began.
    leaf_since: Instant,
    /// What is done with it.
    activity: Activity,
    /// How much of the current window is done, in blocks.
    of_window: f64,
    holder_is_named: bool,
}

impl Report {
    /// A report on a run over `blocks` blocks of `table`.
    pub fn new(table: &str, blocks: u64) -> Self {
        let now = Instant::now();
        Report {
            table: table.into(),
            began: now,
            last_said: now,
            total: Counts::default(),
            filling: Track::new(blocks as f64, 0.0),
            leaf: Track::new(0.0, 0.0),
            leaf_since: now,
            activity: Activity::Filling,
            of_window: 0.0,
            holder_is_named: false,
        }
    }

    /// Tells that the run begins, or goes on, with a leaf table.
    pub fn begin(&mut self, position: Position) {
        self.activity = position.activity;
        let (all, before) = (position.end_block.into(), position.next_block.into());
        self.leaf = Track::new(all, before);
        self.leaf_since = Instant::now();
        self.of_window = 0.0;
        if self.activity == Activity::Filling {
            self.filling.done_before(before);
        }
    }

    /// Counts one batch, and says how things stand if it is time to.
    pub fn batch(&mut self, counts: &Counts) {
        self.total.add(counts);
        self.say_if_due();
    }

    fn say_if_due(&mut self) {
        let due = settings::progress_interval();
        if due.is_some_and(|interval| self.last_said.elapsed() >= interval) {
            self.last_said = Instant::now();
            messages::say(self.line());
        }
    }

    /// Tells that all blocks of the leaf before this one are done. Returns how long the others take, if that is known.
    pub fn blocks_done(&mut self, next_block: u32) -> Option<Duration> {
        let done = self.leaf.advance_to(next_block.into());
        if self.activity == Activity::Filling {
            self.filling.advance(done);
        }
        self.of_window = 0.0;
        self.say_if_due();
        self.leaf.time_left(0.0, self.leaf_since.elapsed())
    }

    /// Says how much of the window being swept is done, in blocks.
    pub fn window_at(&mut self, blocks: f64) {
        self.of_window = blocks;
    }

    /// Whether the user knows who keeps dead row versions alive.
    pub fn holder_is_named(&self) -> bool {
        self.holder_is_named
    }

    /// Tells the user, once, who keeps dead row versions alive, and what to do about it.
    pub fn name_holder(&mut self, holder: &str, hint: &str) {
        self.holder_is_named = true;
        messages::say_horizon_holder(&self.table, holder, hint);
    }

    /// Rows filled so far.
    pub fn rows(&self) -> u64 {
        self.total.rows
    }

    fn line(&self) -> String {
        match self.activity {
            Activity::Filling => {
                let (share, elapsed) = (self.filling.share(self.of_window), self.began.elapsed());
                let left = self.filling.time_left(self.of_window, elapsed);
                let rate = self.total.rows as f64 / elapsed.as_secs_f64().max(1e-9);
                messages::filling(&self.table, share, self.total.rows, rate, left)
            }
            Activity::Verifying => {
                let left = self.leaf.time_left(0.0, self.leaf_since.elapsed());
                messages::verifying(&self.table, self.leaf.share(0.0), self.total.rows, left)
            }
        }
    }

    /// The last message of a run: what it did and what it cost.
    pub fn say_summary(&self, before: Sizes, after: Sizes) {
        let Counts {
            rows,
            hot,
            batches,
            wal,
        } = self.total;
        let summary = Summary {
            rows,
            batches,
            hot: usage::counts_updates().then(|| share(hot as f64, rows.max(1) as f64)),
            wal,
            time: self.began.elapsed(),
            before,
            after,
        };
        messages::say_summary(&self.table, &summary);
    }
}
