//! The progress of a run, reported from time to time and at its end.

use std::time::{Duration, Instant};

use planner::eta::{Track, share};

use crate::catalog::holders::Holder;
use crate::fill::survey::Survey;
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
    paused: Duration,
    /// What is done with it.
    activity: Activity,
    /// Who was last named as the holder of the horizon, and when.
    holder: Option<(String, Instant)>,
    /// How many of the rows lacked the column.
    pub survey: Survey,
    /// Another process says how far the run has come.
    is_silent: bool,
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
            paused: Duration::ZERO,
            activity: Activity::Filling,
            holder: None,
            survey: Survey::default(),
            is_silent: false,
        }
    }

    /// A report that says nothing, for a process that helps another one.
    pub fn silent() -> Self {
        Report {
            is_silent: true,
            ..Self::new("", 0)
        }
    }

    /// Tells that the run begins, or goes on, with a leaf table.
    pub fn begin(&mut self, position: Position) {
        self.activity = position.activity;
        let (all, before) = (position.end_block.into(), position.blocks_done.into());
        self.leaf = Track::new(all, before);
        self.leaf_since = Instant::now();
        if self.activity == Activity::Filling {
            self.filling.done_before(before);
        }
    }

    /// Tells that the run was paused for so long, which says nothing of its speed.
    pub fn has_paused(&mut self, time: Duration) {
        self.leaf_since += time;
        self.paused += time;
    }

    /// Counts one batch, and says how things stand if it is time to.
    pub fn batch(&mut self, counts: &Counts) {
        self.total.add(counts);
        self.say_if_due();
    }

    fn say_if_due(&mut self) {
        let due = settings::progress_interval();
        if !self.is_silent && due.is_some_and(|interval| self.last_said.elapsed() >= interval) {
            self.last_said = Instant::now();
            messages::say(self.line());
        }
    }

    /// Tells how many blocks of the leaf are done. Returns how long the others take, if that is known.
    pub fn blocks_done(&mut self, blocks: u32) -> Option<Duration> {
        let done = self.leaf.advance_to(blocks.into());
        if self.activity == Activity::Filling {
            self.filling.advance(done);
        }
        self.say_if_due();
        self.leaf.time_left(self.leaf_since.elapsed())
    }

    /// Tells the user who keeps dead row versions alive, and what to do about it, unless that is known. Another one is
    /// named as often as progress is told.
    pub fn name_holder(&mut self, holder: &Holder) {
        let is_due = self.holder.as_ref().is_none_or(|(named, at)| {
            let interval = settings::progress_interval();
            *named != holder.identity && interval.is_some_and(|interval| at.elapsed() >= interval)
        });
        if !self.is_silent && is_due {
            self.holder = Some((holder.identity.clone(), Instant::now()));
            messages::say_horizon_holder(&self.table, &holder.description, &holder.hint);
        }
    }

    /// Rows filled so far.
    pub fn rows(&self) -> u64 {
        self.total.rows
    }

    fn line(&self) -> String {
        match self.activity {
            Activity::Filling => {
                let (share, elapsed) = (self.filling.share(), self.began.elapsed() - self.paused);
                let left = self.filling.time_left(elapsed);
                let rate = self.total.rows as f64 / elapsed.as_secs_f64().max(1e-9);
                messages::filling(&self.table, share, self.total.rows, rate, left)
            }
            Activity::Verifying => {
                let left = self.leaf.time_left(self.leaf_since.elapsed());
                messages::verifying(&self.table, self.leaf.share(), self.total.rows, left)
            }
        }
    }

    /// The last message of a run: what it did and what it cost. `absent` is as in [`Summary`].
    pub fn say_summary(&self, before: Sizes, after: Sizes, absent: Option<f64>) {
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
            absent,
        };
        messages::say_summary(&self.table, &summary);
    }
}
