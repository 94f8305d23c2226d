//! How a batch leaves disk and processors to other sessions, if there are any.
//!
//! A commit flushes all WAL before its own, whoever wrote it, and waits for whoever is flushing already (`XLogFlush` in
//! PostgreSQL's `xlog.c`). A batch writes megabytes of WAL. If it flushes them in small pieces, nobody waits long for
//! one. On a server with few processors, queries wait until one is free; a short rest after each statement lets them
//! run. When nobody else writes, both would only cost time.

use std::time::{Duration, Instant};

/// Less WAL than this does not slow down anyone's commit.
const WORTH_A_FLUSH: u64 = 64 * 1024;
/// At least this many flush times pass between two flushes.
const WORK_PER_FLUSH: u32 = 3;
/// After each statement, rest for its duration divided by this.
const WORK_PER_REST: u32 = 4;
/// Never rest longer than this, since locks are held meanwhile.
const LONGEST_REST: Duration = Duration::from_millis(1);
/// After a transaction of others was seen, assume for this long that there will be more.
const COMPANY: Duration = Duration::from_secs(1);

/// Processes of one run count the IDs that each of them takes a moment before it does. Where there are several, IDs are
/// compared over up to this time, so that such moments do not matter.
const COMPARED: Duration = Duration::from_secs(1);
/// A process takes at most this many IDs at once: for a transaction, and a subtransaction.
const AT_ONCE: u64 = 2;

/// How many transaction IDs were taken up to some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// By anyone: the next ID, which wraps around.
    pub next: u32,
    /// By the processes of the run.
    pub own: u64,
}

impl Ids {
    /// How many others have taken since.
    fn of_others_since(self, before: Ids) -> u64 {
        let all = u64::from(self.next.wrapping_sub(before.next));
        all.saturating_sub(self.own.saturating_sub(before.own))
    }
}

/// What one backend knows of its own WAL, and of others that write.
#[derive(Debug)]
pub struct Yielding {
    /// Bytes of WAL that the backend had written when all of it had been flushed.
    flushed: u64,
    /// When that was.
    at: Instant,
    /// How long it took.
    took: Duration,
    /// Until then, assume that others commit.
    company_until: Option<Instant>,
    /// How many IDs may seem to be taken by others, and are not.
    doubtful: u64,
    /// IDs are compared with these, which were taken up to then.
    before: Option<(Ids, Instant)>,
}

impl Yielding {
    /// For a backend that has not begun to write, one of so many of its run.
    pub fn new(now: Instant, of: u32) -> Self {
        Yielding {
            flushed: 0,
            at: now,
            took: Duration::ZERO,
            company_until: None,
            doubtful: u64::from(of.saturating_sub(1)) * AT_ONCE,
            before: None,
        }
    }

    /// Tells that all of the `wal` bytes that this backend has written are flushed, which took so long.
    pub fn flushed(&mut self, wal: u64, now: Instant, took: Duration) {
        (self.flushed, self.at, self.took) = (wal, now, took);
    }

    /// Tells that a commit has flushed all of the `wal` bytes.
    pub fn committed(&mut self, wal: u64) {
        self.flushed = wal;
    }

    /// Tells that a batch begins, when these IDs are taken.
    pub fn batch_begins(&mut self, ids: Ids, now: Instant) {
        let continues = self.doubtful > 0
            && self
                .before
                .is_some_and(|(_, then)| now.saturating_duration_since(then) < COMPARED);
        if !continues {
            self.before = Some((ids, now));
        }
    }

    /// Tells that a batch ends, when these IDs are taken.
    pub fn batch_ends(&mut self, ids: Ids, now: Instant) {
        let others = self.before.map(|(before, _)| ids.of_others_since(before));
        if others.is_some_and(|others| others > self.doubtful) {
            self.company_until = Some(now + COMPANY);
            self.before = None;
        }
    }

    /// How long to rest after a statement that took so long.
    pub fn rest(&self, spent: Duration, now: Instant) -> Duration {
        if self.has_company(now) {
            (spent / WORK_PER_REST).min(LONGEST_REST)
        } else {
            Duration::ZERO
        }
    }

    /// Whether to flush now, when this backend has written `wal` bytes in all.
    pub fn flush_is_due(&self, wal: u64, now: Instant) -> bool {
        self.has_company(now)
            && wal.saturating_sub(self.flushed) >= WORTH_A_FLUSH
            && now.saturating_duration_since(self.at) >= self.took * WORK_PER_FLUSH
    }

    fn has_company(&self, now: Instant) -> bool {
        self.company_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_millis(1);

    fn ids(next: u32, own: u64) -> Ids {
        Ids { next, own }
    }

    /// A batch beside which somebody else has taken an ID.
    fn company(yielding: &mut Yielding, now: Instant) {
        yielding.batch_begins(ids(u32::MAX, 1), now);
        yielding.batch_ends(ids(1, 2), now);
    }

    /// Writes `per_step` bytes every millisecond for `steps`, flushing when due; returns the flushes and the most
    /// that was ever left unflushed.
    fn work(yielding: &mut Yielding, steps: u32, per_step: u64, took: Duration) -> (u32, u64) {
        let mut now = Instant::now();
        let (mut wal, mut flushed, mut flushes, mut most) = (0, 0, 0, 0);
        for _ in 0..steps {
            now += STEP;
            wal += per_step;
            company(yielding, now);
            most = most.max(wal - flushed);
            if yielding.flush_is_due(wal, now) {
                now += took;
                yielding.flushed(wal, now, took);
                flushed = wal;
                flushes += 1;
            }
        }
        (flushes, most)
    }

    proptest! {
        #[test]
        fn flushing_never_takes_more_than_its_share(steps in 1u32..1000, per_step in 0u64..10_000_000, micros in 0u64..20_000) {
            let took = Duration::from_micros(micros);
            let mut yielding = Yielding::new(Instant::now(), 1);
            let (flushes, _) = work(&mut yielding, steps, per_step, took);
            prop_assert!(took * flushes.saturating_sub(1) * WORK_PER_FLUSH <= STEP * steps);
        }

        #[test]
        fn on_a_fast_disk_little_is_ever_left(steps in 1u32..1000, per_step in 0u64..10_000_000) {
            let mut yielding = Yielding::new(Instant::now(), 1);
            let (_, most) = work(&mut yielding, steps, per_step, STEP / 4);
            prop_assert!(most < WORTH_A_FLUSH + per_step);
        }
    }

    #[test]
    fn alone_nothing_is_flushed_early_and_nobody_rests() {
        let mut now = Instant::now();
        let mut yielding = Yielding::new(now, 1);
        assert!(!yielding.flush_is_due(u64::MAX, now));
        yielding.batch_begins(ids(7, 1), now);
        yielding.batch_ends(ids(9, 3), now);
        assert!(!yielding.flush_is_due(u64::MAX, now));
        assert_eq!(yielding.rest(STEP, now), Duration::ZERO);
        company(&mut yielding, now);
        assert_eq!(yielding.rest(STEP, now), STEP / WORK_PER_REST);
        assert_eq!(yielding.rest(STEP * 1000, now), LONGEST_REST);
        assert!(yielding.flush_is_due(WORTH_A_FLUSH, now));
        yielding.committed(WORTH_A_FLUSH);
        assert!(!yielding.flush_is_due(WORTH_A_FLUSH, now));
        now += COMPANY;
        assert!(!yielding.flush_is_due(u64::MAX, now));
    }

    #[test]
    fn processes_of_one_run_are_no_company_and_a_few_transactions_in_a_second_are() {
        let (mut now, mut next, mut own) = (Instant::now(), 0, 0);
        let mut yielding = Yielding::new(now, 3);
        for batch in 0..1000 {
            // Two others have counted what they take while this batch runs, or have taken what they count later.
            yielding.batch_begins(ids(next, own + batch % 5), now);
            (next, own, now) = (next + 6, own + 6, now + 20 * STEP);
            yielding.batch_ends(ids(next + (batch % 2) as u32, own + batch % 4), now);
            assert_eq!(yielding.rest(STEP, now), Duration::ZERO);
        }
        for _ in 0..5 {
            yielding.batch_begins(ids(next, own + 4), now);
            (next, own, now) = (next + 8, own + 6, now + 100 * STEP);
            yielding.batch_ends(ids(next, own), now);
        }
        assert_eq!(yielding.rest(STEP, now), STEP / WORK_PER_REST);
    }
}
