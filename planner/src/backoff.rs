//! How long to wait before a DDL statement that got no lock is tried again.
//!
//! Exponential backoff with jitter, so that two migrations that met once do not meet every time.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// The pause before retry number `retry` (from 0); `chance` is a random number from 0 to 1.
///
/// Between half and the whole of a time that doubles with each retry up to ten seconds.
pub fn pause(retry: u32, chance: f64) -> Duration {
    let whole = FIRST
        .saturating_mul(1u32.checked_shl(retry).unwrap_or(u32::MAX))
        .min(LONGEST);
    whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_is_never_nothing_and_never_long(retry in 0u32..u32::MAX, chance in 0.0..=1.0f64) {
            let pause = pause(retry, chance);
            prop_assert!(pause >= FIRST / 2 && pause <= LONGEST);
        }

        #[test]
        fn pauses_grow(retry in 0u32..60, chance in 0.0..=1.0f64) {
            prop_assert!(pause(retry + 1, chance) >= pause(retry, chance));
        }
    }
}
