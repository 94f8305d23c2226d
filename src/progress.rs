//! What a run tells its user while it goes on and when it ends.

use std::time::{Duration, Instant};

use crate::error::counted;
use crate::job;
use crate::pg::{message, usage};
use crate::settings;

/// Counts what a run has done and says so from time to time.
pub struct Report {
    table: String,
    began: Instant,
    last_said: Instant,
    total: job::Progress,
    /// Blocks of all leaf tables.
    blocks: u64,
    /// Of those, done by earlier calls.
    blocks_before: u64,
    /// Of those, done by this one.
    blocks_done: u64,
    /// Of the window being swept, so many blocks' worth is done.
    blocks_of_window: f64,
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
            total: job::Progress::default(),
            blocks,
            blocks_before: 0,
            blocks_done: 0,
            blocks_of_window: 0.0,
            holder_is_named: false,
        }
    }

    /// Counts one batch, and says how things stand if it is time to.
    pub fn batch(&mut self, progress: &job::Progress) {
        self.total.rows += progress.rows;
        self.total.hot += progress.hot;
        self.total.batches += progress.batches;
        self.total.wal += progress.wal;
        let due = settings::progress_interval();
        if due.is_some_and(|interval| self.last_said.elapsed() >= interval) {
            self.last_said = Instant::now();
            message::notice(self.line(self.began.elapsed()), None);
        }
    }

    /// Counts blocks of the first round as done.
    pub fn blocks_done(&mut self, blocks: u64) {
        self.blocks_done += blocks;
        self.blocks_of_window = 0.0;
    }

    /// Counts blocks that an earlier call has done.
    pub fn done_before(&mut self, blocks: u64) {
        self.blocks_before += blocks;
    }

    /// Whether the user knows who keeps dead row versions alive.
    pub fn holder_is_named(&self) -> bool {
        self.holder_is_named
    }

    /// Tells the user, once, who keeps dead row versions alive, and what to do about it.
    pub fn name_holder(&mut self, holder: &str, hint: &str) {
        self.holder_is_named = true;
        message::notice_with(
            format!(
                "could not reuse dead row versions of table \"{}\"",
                self.table
            ),
            Some(format!("They are kept for {holder}.  The table will grow.")),
            Some(hint),
        );
    }

    /// Says how much of the window being swept is done, in blocks.
    pub fn window_at(&mut self, blocks: f64) {
        self.blocks_of_window = blocks;
    }

    /// Rows filled so far.
    pub fn rows(&self) -> u64 {
        self.total.rows
    }

    fn line(&self, elapsed: Duration) -> String {
        let done = self.blocks_done as f64 + self.blocks_of_window;
        let before = self.blocks_before as f64;
        let all = self.blocks as f64;
        let left = match time_left(elapsed, share(done, all - before)) {
            Some(left) => format!("about {} left", seconds(left)),
            None => "time left not known yet".into(),
        };
        format!(
            "table \"{}\": {:.1}% done, {} filled, {:.0} rows/s, {left}",
            self.table,
            100.0 * share(before + done, all),
            counted(self.total.rows, "row"),
            self.total.rows as f64 / elapsed.as_secs_f64().max(1e-9),
        )
    }

    /// The last message of a run: what it did and what it cost.
    pub fn say_summary(&self, before: Sizes, after: Sizes) {
        let elapsed = self.began.elapsed();
        let hot = if usage::counts_updates() {
            let share = share(self.total.hot as f64, self.total.rows.max(1) as f64);
            format!("; {:.0}% HOT updates", 100.0 * share)
        } else {
            String::new()
        };
        message::notice_with(
            format!(
                "filled {} of table \"{}\"",
                counted(self.total.rows, "row"),
                self.table
            ),
            Some(format!(
                "{} in {}, {:.0} rows/s{hot}; heap {}, indexes {}; {} of WAL.",
                counted(self.total.batches, "batch"),
                seconds(elapsed),
                self.total.rows as f64 / elapsed.as_secs_f64().max(1e-9),
                growth(before.heap, after.heap),
                growth(before.indexes, after.indexes),
                usage::size_pretty(self.total.wal),
            )),
            None,
        );
    }
}

/// Bytes that a table takes on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Its main fork, all leaves together.
    pub heap: i64,
    /// All its indexes.
    pub indexes: i64,
}

fn share(done: f64, of: f64) -> f64 {
    if of > 0.0 { (done / of).min(1.0) } else { 1.0 }
}

fn time_left(elapsed: Duration, share: f64) -> Option<Duration> {
    (share > 0.0).then(|| elapsed.mul_f64((1.0 - share) / share))
}

fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

fn growth(before: i64, after: i64) -> String {
    if before == 0 {
        return format!("{after:+} bytes");
    }
    format!("{:+.1}%", 100.0 * (after - before) as f64 / before as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_percent_rate_and_time_left() {
        let mut report = Report::new("large_user", 400);
        report.blocks_done(100);
        report.total.rows = 5_000;
        assert_eq!(
            report.line(Duration::from_secs(10)),
            "table \"large_user\": 25.0% done, 5000 rows filled, 500 rows/s, about 30.0 s left"
        );
    }

    #[test]
    fn a_resumed_run_judges_by_its_own_speed() {
        let mut report = Report::new("t", 1000);
        report.done_before(900);
        report.blocks_done(10);
        let line = report.line(Duration::from_secs(10));
        assert!(line.contains("91.0% done"), "{line}");
        assert!(line.ends_with("about 1 min 30 s left"), "{line}");
    }

    #[test]
    fn nothing_done_yet_promises_nothing() {
        let report = Report::new("t", 400);
        assert!(
            report
                .line(Duration::from_secs(1))
                .ends_with("time left not known yet")
        );
    }

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(Duration::from_secs(75)), "1 min 15 s");
        assert_eq!(seconds(Duration::from_secs(7322)), "2 h 2 min");
        assert_eq!(growth(200, 226), "+13.0%");
        assert_eq!(growth(0, 8192), "+8192 bytes");
    }
}
