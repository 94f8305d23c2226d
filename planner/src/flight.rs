//! How many windows are in flight, and what a sweep does while the xmin horizon lags.
//!
//! A window cannot be passed over again before the horizon has passed its last pass. A horizon that lags, such as one that
//! a standby with feedback reports every few seconds, is no reason to stand still: meanwhile other windows are begun.

use std::time::Duration;

/// So long the horizon is waited for, whatever is known of it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer waits take at most one part in so many of the time. To give a window up takes about twice as long as to recycle
/// it, and leaves the table and its indexes larger; a wait costs nobody anything.
const TIME_PER_WAIT: u32 = 2;
/// And none is longer than this many times what the horizon was late before.
const USUAL: u32 = 2;
/// What was seen long ago counts less: by one part in so many with each pass.
const FORGETTING: u32 = 8;

/// What the sweep does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Pass over the window that was passed over longest ago.
    Pass,
    /// Begin with another window.
    Begin,
    /// Wait for the horizon, for a moment.
    Wait,
    /// Fill all rows of other blocks in one pass.
    FillAtOnce,
    /// Fill all rows that are left of the window that was passed over longest ago.
    GiveUp,
}

/// What is known when it is decided what to do next.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// How many windows are in flight.
    pub windows: usize,
    /// Whether the horizon has passed the last pass over the first of them.
    pub is_due: bool,
    /// How long ago that pass ended.
    pub age: Duration,
    /// Whether there are blocks that no process has claimed.
    pub has_more: bool,
    /// How long the sweep has worked, its waits included.
    pub elapsed: Duration,
}

/// Decides how a sweep goes on.
#[derive(Debug, Clone)]
pub struct Flight {
    most: usize,
    /// How late the horizon was when it passed a window; `None` before it has passed any.
    lag: Option<Duration>,
    waited: Duration,
}

impl Flight {
    /// With at most `most` windows in flight, whose pages should stay in memory.
    pub fn new(most: usize) -> Self {
        Flight {
            most: most.max(1),
            lag: None,
            waited: Duration::ZERO,
        }
    }

    /// What to do now; `None` when all is done.
    pub fn next(&mut self, now: Situation) -> Option<Next> {
        let next = match now {
            Situation { windows: 0, .. } => return now.has_more.then_some(Next::Begin),
            Situation { is_due: true, .. } => Next::Pass,
            _ if now.has_more && now.windows < self.most => Next::Begin,
            _ if self.waits(now) => Next::Wait,
            _ if now.has_more => Next::FillAtOnce,
            _ => Next::GiveUp,
        };
        if next == Next::Pass {
            let before = self.lag.unwrap_or_default();
            self.lag = Some(now.age.max(before - before / FORGETTING));
        }
        Some(next)
    }

    /// Whether the horizon is likely to move soon.
    fn waits(&self, now: Situation) -> bool {
        let is_usual = self.lag.is_some_and(|lag| now.age < lag * USUAL);
        now.age < PATIENCE || is_usual && self.waited < now.elapsed / TIME_PER_WAIT
    }

    /// Tells that the sweep has waited for so long.
    pub fn waited(&mut self, time: Duration) {
        self.waited += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Passes that a window takes.
    const PASSES: u32 = 9;
    const PASS: Duration = Duration::from_millis(80);
    const NAP: Duration = Duration::from_millis(2);

    /// How a horizon moves: the end of the transactions that it has passed, by time.
    #[derive(Debug, Clone, Copy)]
    enum Horizon {
        Late(Duration),
        InSteps(Duration),
        HeldUntil(Duration),
        Held,
    }

    impl Horizon {
        fn at(self, now: Duration) -> Duration {
            match self {
                Horizon::Late(lag) => now.saturating_sub(lag),
                Horizon::InSteps(step) => {
                    step * (now.as_nanos() / step.as_nanos())
                        .try_into()
                        .unwrap_or(u32::MAX)
                }
                Horizon::HeldUntil(end) if now < end => Duration::ZERO,
                Horizon::HeldUntil(_) => now,
                Horizon::Held => Duration::ZERO,
            }
        }
    }

    #[derive(Debug, Default)]
    struct Swept {
        time: Duration,
        waited: Duration,
        /// Passes over recycled pages, which fill rows by HOT updates.
        hot: u32,
        /// Passes' worth of work on pages that are not recycled, or not yet.
        cold: u32,
        windows: usize,
    }

    impl Swept {
        fn share(&self) -> f64 {
            f64::from(self.hot) / f64::from(self.hot + self.cold)
        }
    }

    /// Sweeps a table of so many windows.
    fn sweep(mut left: u32, most: usize, horizon: Horizon) -> Swept {
        let mut flight = Flight::new(most);
        // Each window: passes to go, and when the last one ended.
        let mut in_flight = std::collections::VecDeque::new();
        // A transaction at 0 has passed any horizon that has not begun to move.
        let mut swept = Swept {
            time: NAP,
            ..Swept::default()
        };
        loop {
            let (now, front) = (swept.time, in_flight.front().copied());
            let (_, ended) = front.unwrap_or((0, now));
            let situation = Situation {
                windows: in_flight.len(),
                is_due: ended <= horizon.at(now),
                age: now - ended,
                has_more: left > 0,
                elapsed: now,
            };
            let Some(next) = flight.next(situation) else {
                return swept;
            };
            match next {
                Next::Wait => {
                    assert!(left == 0 || in_flight.len() == most);
                    flight.waited(NAP);
                    swept.waited += NAP;
                    swept.time += NAP;
                }
                Next::Begin => {
                    left -= 1;
                    swept.cold += 1;
                    swept.time += PASS;
                    in_flight.push_back((PASSES - 1, swept.time));
                }
                Next::Pass => {
                    let (passes, _) = in_flight.pop_front().unwrap();
                    swept.hot += 1;
                    swept.time += PASS;
                    if passes > 1 {
                        in_flight.push_back((passes - 1, swept.time));
                    }
                }
                Next::FillAtOnce => {
                    left -= 1;
                    swept.cold += PASSES;
                    swept.time += PASS * PASSES;
                }
                Next::GiveUp => {
                    let (passes, _) = in_flight.pop_front().unwrap();
                    swept.cold += passes;
                    swept.time += PASS * passes;
                }
            }
            swept.windows = swept.windows.max(in_flight.len());
        }
    }

    fn any_horizon() -> impl Strategy<Value = Horizon> {
        let time = || (1u64..20_000).prop_map(Duration::from_millis);
        prop_oneof![
            time().prop_map(Horizon::Late),
            time().prop_map(Horizon::InSteps),
            time().prop_map(Horizon::HeldUntil),
            Just(Horizon::Held),
        ]
    }

    proptest! {
        #[test]
        fn all_is_swept_within_the_limits(windows in 0u32..100, most in 1usize..64, horizon in any_horizon()) {
            let swept = sweep(windows, most, horizon);
            prop_assert_eq!(swept.hot + swept.cold, windows * PASSES);
            prop_assert!(swept.windows <= most);
            // Each window may be waited for briefly when the horizon was never seen to lag.
            let brief = PATIENCE * windows * PASSES;
            prop_assert!(swept.waited <= swept.time / TIME_PER_WAIT + brief + NAP);
        }

        #[test]
        fn a_lag_that_fits_into_the_windows_costs_nothing(windows in 1u32..100, millis in 1u64..2000) {
            let lag = Duration::from_millis(millis);
            let swept = sweep(windows, 64, Horizon::Late(lag));
            // The last windows may have to wait, each pass for as long as the horizon is late.
            prop_assert!(swept.cold <= windows + PASSES * (lag.as_millis() / PASS.as_millis() + 2) as u32);
        }
    }

    #[test]
    fn a_prompt_horizon_needs_one_window() {
        let swept = sweep(50, 64, Horizon::Late(Duration::ZERO));
        assert_eq!((swept.windows, swept.waited), (1, Duration::ZERO));
        // One that is as late as a short transaction takes needs two.
        let swept = sweep(50, 64, Horizon::Late(5 * NAP));
        assert!(swept.windows == 2 && swept.cold == 50, "{swept:?}");
    }

    #[test]
    fn a_horizon_that_moves_in_steps_is_made_use_of() {
        for (seconds, windows, least) in [(1, 9, 0.6), (1, 50, 0.8), (10, 100, 0.4)] {
            let step = Duration::from_secs(seconds);
            let swept = sweep(windows, 64, Horizon::InSteps(step));
            assert!(
                swept.share() >= least,
                "{seconds} s: {swept:?}, {}",
                swept.share()
            );
        }
    }

    #[test]
    fn recycling_comes_back_when_a_report_has_ended() {
        let report = Duration::from_secs(8);
        let swept = sweep(50, 16, Horizon::HeldUntil(report));
        // What was done meanwhile, and the first pass over the rest.
        let meanwhile = (report.as_millis() / PASS.as_millis()) as u32;
        assert!(swept.cold <= meanwhile + 50 + PASSES, "{swept:?}");
    }

    #[test]
    fn a_horizon_that_never_moves_is_waited_for_once() {
        for windows in [1, 10, 100] {
            let swept = sweep(windows, 16, Horizon::Held);
            assert_eq!(swept.hot, 0);
            assert!(swept.waited <= PATIENCE, "{swept:?}");
        }
    }
}
