//! How many rows the next statement of a batch may update, so that the batch ends in time.

use std::time::Duration;

/// Rows of the very first statement, before anything is known of the table's speed. A trigger may be slow.
const FIRST: usize = 1;
/// A statement has at most this many times the rows of the one before.
const GROWTH: usize = 4;
/// Rows of the largest statement. Later rows may take longer, and a statement cannot be ended early.
const LARGEST: usize = 1000;
/// Statements that one batch is split into, so that it can end early when rows turn out slower than foreseen.
const STATEMENTS: u32 = 32;

/// Learns the speed of UPDATE on a table and cuts batches to the time they may take.
#[derive(Debug, Clone)]
pub struct Pace {
    next: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { next: FIRST }
    }
}

impl Pace {
    /// Rows for the next statement of a batch that has `done` rows of `batch_size` and has run for `elapsed`.
    ///
    /// `None` ends the batch. The first statement of a batch always gets at least one row.
    pub fn next_statement(
        &self,
        batch_size: usize,
        done: usize,
        elapsed: Duration,
        limit: Duration,
    ) -> Option<usize> {
        let left = batch_size.saturating_sub(done);
        if left == 0 || (done > 0 && elapsed >= limit) {
            return None;
        }
        Some(self.next.min(left).max(1))
    }

    /// Tells that a statement of `rows` took `spent`, in a batch that may take `limit` in all.
    pub fn learn(&mut self, rows: usize, spent: Duration, limit: Duration) {
        let share = limit / STATEMENTS;
        let fitting = rows as f64 * share.as_secs_f64() / spent.as_secs_f64().max(1e-9);
        let fitting = (fitting as usize).clamp(1, LARGEST);
        if fitting < rows {
            self.next = fitting;
        } else if rows >= self.next {
            self.next = fitting.min(self.next.saturating_mul(GROWTH));
        }
    }

    /// Records that a statement met a lock and was undone. The next ones get smaller, so that less work is lost.
    pub fn stumbled(&mut self) {
        self.next = (self.next / GROWTH).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_millis(250);

    /// Runs one batch of a table on which every row takes `per_row`; returns its rows and the time it held locks.
    fn batch(pace: &mut Pace, batch_size: usize, per_row: Duration) -> (usize, Duration) {
        let (mut done, mut elapsed) = (0, Duration::ZERO);
        while let Some(rows) = pace.next_statement(batch_size, done, elapsed, LIMIT) {
            let spent = per_row * rows as u32;
            pace.learn(rows, spent, LIMIT);
            done += rows;
            elapsed += spent;
        }
        (done, elapsed)
    }

    proptest! {
        #[test]
        fn every_batch_takes_rows_and_keeps_its_size(batch_size in 1usize..200_000, micros in 1u64..2_000_000) {
            let mut pace = Pace::default();
            for _ in 0..10 {
                let (rows, _) = batch(&mut pace, batch_size, Duration::from_micros(micros));
                prop_assert!(rows >= 1 && rows <= batch_size);
            }
        }

        #[test]
        fn a_settled_pace_keeps_the_time(batch_size in 1usize..200_000, micros in 1u64..200_000) {
            let mut pace = Pace::default();
            let per_row = Duration::from_micros(micros);
            for _ in 0..10 { batch(&mut pace, batch_size, per_row); }
            let (_, elapsed) = batch(&mut pace, batch_size, per_row);
            prop_assert!(elapsed <= LIMIT + LIMIT / STATEMENTS + per_row);
        }
    }

    #[test]
    fn fast_rows_fill_the_batch() {
        let mut pace = Pace::default();
        for _ in 0..8 {
            batch(&mut pace, 10_000, Duration::from_micros(3));
        }
        assert_eq!(batch(&mut pace, 10_000, Duration::from_micros(3)).0, 10_000);
    }

    #[test]
    fn a_stumble_shrinks_the_next_statement() {
        let mut pace = Pace { next: 1000 };
        pace.stumbled();
        assert_eq!(
            pace.next_statement(10_000, 0, Duration::ZERO, LIMIT),
            Some(250)
        );
    }
}
