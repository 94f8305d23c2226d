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
}

impl Yielding {
    /// For a backend that has not begun to write.
    pub fn new(now: Instant) -> Self {
        Yielding {
            flushed: 0,
            at: now,
            took: Duration::ZERO,
            company_until: None,
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

    /// Tells how many transactions of others have begun to write lately.
    pub fn others_wrote(&mut self, transactions: u32, now: Instant) {
        if transactions > 0 {
            self.company_until = Some(now + COMPANY);
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

    /// Writes `per_step` bytes every millisecond for `steps`, flushing when due; returns the flushes and the most
    /// that was ever left unflushed.
    fn work(yielding: &mut Yielding, steps: u32, per_step: u64, took: Duration) -> (u32, u64) {
        let mut now = Instant::now();
        let (mut wal, mut flushed, mut flushes, mut most) = (0, 0, 0, 0);
        for _ in 0..steps {
            now += STEP;
            wal += per_step;
            yielding.others_wrote(1, now);
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
            let mut yielding = Yielding::new(Instant::now());
            let (flushes, _) = work(&mut yielding, steps, per_step, took);
            prop_assert!(took * flushes.saturating_sub(1) * WORK_PER_FLUSH <= STEP * steps);
        }

        #[test]
        fn on_a_fast_disk_little_is_ever_left(steps in 1u32..1000, per_step in 0u64..10_000_000) {
            let mut yielding = Yielding::new(Instant::now());
            let (_, most) = work(&mut yielding, steps, per_step, STEP / 4);
            prop_assert!(most < WORTH_A_FLUSH + per_step);
        }
    }

    #[test]
    fn alone_nothing_is_flushed_early_and_nobody_rests() {
        let mut now = Instant::now();
        let mut yielding = Yielding::new(now);
        assert!(!yielding.flush_is_due(u64::MAX, now));
        yielding.others_wrote(0, now);
        assert!(!yielding.flush_is_due(u64::MAX, now));
        assert_eq!(yielding.rest(STEP, now), Duration::ZERO);
        yielding.others_wrote(1, now);
        assert_eq!(yielding.rest(STEP, now), STEP / WORK_PER_REST);
        assert_eq!(yielding.rest(STEP * 1000, now), LONGEST_REST);
        assert!(yielding.flush_is_due(WORTH_A_FLUSH, now));
        yielding.committed(WORTH_A_FLUSH);
        assert!(!yielding.flush_is_due(WORTH_A_FLUSH, now));
        now += COMPANY;
        assert!(!yielding.flush_is_due(u64::MAX, now));
    }
}
