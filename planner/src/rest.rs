//! How long a run rests between two batches.

use std::time::{Duration, Instant};

/// What is known of the last batch.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Bytes of WAL that the run has written since it began.
    pub wal: u64,
}

impl Rest {
    /// When the next batch may begin, with at least `pause` between two batches, and at most `wal_rate` bytes of WAL per
    /// second.
    pub fn is_over_at(&self, pause: Duration, wal_rate: Option<u64>) -> Instant {
        let by_pause = self.ended + pause;
        match wal_rate {
            Some(rate) if rate > 0 => {
                by_pause.max(self.began + Duration::from_secs_f64(self.wal as f64 / rate as f64))
            }
            _ => by_pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn neither_limit_is_exceeded(
            batches in prop::collection::vec((1u64..500, 0u64..10_000_000), 1..100),
            pause in 0u64..1000, rate in 1u64..100_000_000,
        ) {
            let pause = Duration::from_millis(pause);
            let start = Instant::now();
            let (mut now, mut all) = (start, 0);
            for (millis, wal) in batches {
                let began = now;
                let ended = began + Duration::from_millis(millis);
                now = Rest { began, ended, wal }.is_over_at(pause, Some(rate));
                all += wal;
                prop_assert!(now >= ended + pause);
                let allowed = (now - start).as_secs_f64() * rate as f64;
                prop_assert!(all as f64 <= allowed * 1.000_001 + 1.0);
            }
        }
    }

    #[test]
    fn without_limits_there_is_no_rest() {
        let now = Instant::now();
        let rest = Rest {
            began: now,
            ended: now,
            wal: u64::MAX,
        };
        assert_eq!(rest.is_over_at(Duration::ZERO, None), now);
    }
}
