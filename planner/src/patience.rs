//! How long a run goes on while locks of others keep rows from being filled.

use std::time::{Duration, Instant};

/// The longest time that it goes on.
const LONGEST: Duration = Duration::from_secs(15);

/// Since when locks have kept rows from being filled, if they do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// Records that a lock was in the way. Returns `false` once locks have been in the way for too long.
    pub fn lasts(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < LONGEST
    }

    /// Records progress: some row was filled.
    pub fn renew(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_ends_in_time_and_not_before(steps in prop::collection::vec(1u64..5000, 1..40)) {
            let mut patience = Patience::default();
            let began = Instant::now();
            let mut now = began;
            for millis in steps {
                prop_assert_eq!(patience.lasts(now), now - began < LONGEST);
                now += Duration::from_millis(millis);
            }
            patience.renew();
            prop_assert!(patience.lasts(now));
        }
    }
}
