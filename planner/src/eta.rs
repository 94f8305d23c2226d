//! How far work has come, and how long the rest of it will take.

use std::time::Duration;

/// The share of `of` that `done` is, from 0 to 1; all of it if there is nothing to do.
pub fn share(done: f64, of: f64) -> f64 {
    if of > 0.0 {
        (done / of).clamp(0.0, 1.0)
    } else {
        1.0
    }
}

/// How long the rest takes if this `share` of the work took `elapsed`; `None` while nothing is known of its speed.
pub fn time_left(elapsed: Duration, share: f64) -> Option<Duration> {
    const LONGEST: f64 = 10.0 * 365.0 * 86_400.0;
    let left = elapsed.as_secs_f64() * (1.0 - share) / share;
    (share > 0.0).then(|| Duration::from_secs_f64(left.clamp(0.0, LONGEST)))
}

/// Work that is counted, in blocks for instance, and how much of it is done.
#[derive(Debug, Clone, Copy)]
pub struct Track {
    all: f64,
    /// Done by earlier runs.
    before: f64,
    /// Done by this one.
    done: f64,
}

impl Track {
    /// So much work, of which `before` was done by earlier runs.
    pub fn new(all: f64, before: f64) -> Self {
        Track {
            all,
            before,
            done: 0.0,
        }
    }

    /// Tells that so much more was done by earlier runs.
    pub fn done_before(&mut self, work: f64) {
        self.before += work;
    }

    /// Tells that so much more was done.
    pub fn advance(&mut self, work: f64) {
        self.done += work;
    }

    /// Tells how much is done in all, with that of earlier runs; returns how much more that is than before.
    pub fn advance_to(&mut self, work: f64) -> f64 {
        let more = work - self.before - self.done;
        self.done += more;
        more
    }

    /// The share that is done.
    pub fn share(&self) -> f64 {
        share(self.before + self.done, self.all)
    }

    /// How long the rest takes at the speed of this run, which has taken `elapsed`.
    pub fn time_left(&self, elapsed: Duration) -> Option<Duration> {
        time_left(elapsed, share(self.done, self.all - self.before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_rest_is_foretold_from_the_speed_so_far(done in 1u32..1000, rest in 0u32..1000, secs in 0u64..100_000) {
            let elapsed = Duration::from_secs(secs);
            let left = time_left(elapsed, share(done.into(), f64::from(done + rest))).expect("something is done");
            let expected = secs as f64 * f64::from(rest) / f64::from(done);
            prop_assert!((left.as_secs_f64() - expected).abs() <= 1e-6 * (1.0 + expected));
        }

        #[test]
        fn a_share_is_a_share(done in 0.0..1e12f64, of in 0.0..1e12f64) {
            prop_assert!((0.0..=1.0).contains(&share(done, of)));
        }
    }

    #[test]
    fn a_resumed_run_judges_by_its_own_speed() {
        let mut track = Track::new(1000.0, 900.0);
        assert_eq!(track.advance_to(910.0), 10.0);
        assert_eq!(track.share(), 0.91);
        let left = track.time_left(Duration::from_secs(10));
        assert_eq!(left, Some(Duration::from_secs(90)));
    }

    #[test]
    fn the_share_is_of_all_tables_while_they_are_filled() {
        let mut all = Track::new(400.0, 0.0);
        all.done_before(100.0);
        all.advance(100.0);
        assert_eq!(all.share(), 0.5);
        let left = all.time_left(Duration::from_secs(3));
        assert_eq!(left, Some(Duration::from_secs(6)));
    }

    #[test]
    fn nothing_done_foretells_nothing() {
        assert_eq!(time_left(Duration::from_secs(5), 0.0), None);
        assert_eq!(share(0.0, 0.0), 1.0);
        assert_eq!(
            time_left(Duration::MAX, 1e-300).map(|left| left.as_secs() > 0),
            Some(true)
        );
    }
}
