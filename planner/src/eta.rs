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
    fn nothing_done_foretells_nothing() {
        assert_eq!(time_left(Duration::from_secs(5), 0.0), None);
        assert_eq!(share(0.0, 0.0), 1.0);
        assert_eq!(
            time_left(Duration::MAX, 1e-300).map(|left| left.as_secs() > 0),
            Some(true)
        );
    }
}
