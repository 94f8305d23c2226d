//! How many windows are in flight, and what a sweep does while the xmin horizon lags.
//!
//! A window cannot be passed over again before the horizon has passed its last pass. A horizon that lags, such as one that
//! a standby with feedback reports every few seconds, is no reason to stand still: meanwhile other windows are begun.

use std::time::Duration;

use crate::window::PASSES;

/// So long the horizon is waited for, whatever is known of it.
const PATIENCE: Duration = Duration::from_millis(100);
/// A wait ends when the horizon is so many times later than it usually is.
const USUAL: u32 = 2;
/// How late the horizon usually is, is forgotten after so many times that time.
const MEMORY: u32 = 4;
/// Of all the patience, one part in so many is for a horizon that has not moved before, or is later than usual.
const PART_FOR_SURPRISES: f64 = 20.0;
/// And never more than this: such a transaction may last for hours.
const LONGEST_SURPRISE: Duration = Duration::from_secs(60);
/// All passes over a window take about so many times as long as the first one, which moves rows to other pages.
const WORK_PER_FIRST_PASS: f64 = 2.0;
/// What was measured before counts for so many parts, and the last pass for one.
const SMOOTHING: u32 = 4;

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
    /// How many more passes the first of them needs.
    pub passes: u32,
    /// How many windows' worth of blocks no process has claimed.
    pub more: f64,
    /// How long the sweep has worked, its waits included.
    pub elapsed: Duration,
    /// How many windows there are in all for this process.
    pub all: f64,
}

/// How late the horizon was when it passed a window, which was looked at now and then.
#[derive(Debug, Clone, Copy)]
struct Lag {
    /// When it had not passed the window yet.
    least: Duration,
    /// When it had.
    most: Duration,
    /// When that was, from the beginning of the sweep.
    seen: Duration,
}

/// Decides how a sweep goes on.
#[derive(Debug, Clone)]
pub struct Flight {
    most: usize,
    patience: f64,
    /// `None` before the horizon has passed any window.
    lag: Option<Lag>,
    /// How long ago the last pass over the first window was when the horizon had not passed that yet.
    behind: Option<Duration>,
    /// How long the first pass over a window takes, and another one.
    first_pass: Duration,
    pass: Duration,
    /// What was decided last, and when.
    last: Option<(Next, Duration)>,
    /// How long the sweep has waited longer than could be foreseen.
    surprised: Duration,
}

impl Flight {
    /// With at most `most` windows in flight, whose pages should stay in memory. All waits together may last about `patience`
    /// times as long as the work does without them.
    pub fn new(most: usize, patience: f64) -> Self {
        Flight {
            most: most.max(1),
            patience,
            lag: None,
            behind: None,
            first_pass: Duration::ZERO,
            pass: Duration::ZERO,
            last: None,
            surprised: Duration::ZERO,
        }
    }

    /// What to do now; `None` when all is done.
    pub fn next(&mut self, now: Situation) -> Option<Next> {
        self.learn(now);
        let has_more = now.more > 0.0;
        let next = match now {
            Situation { windows: 0, .. } => return has_more.then_some(Next::Begin),
            _ if has_more && self.begins_first(now) => Next::Begin,
            Situation { is_due: true, .. } => Next::Pass,
            _ if has_more && !self.is_expected(now) => Next::FillAtOnce,
            _ if has_more && now.windows < self.most => Next::Begin,
            _ if self.waits(now) => Next::Wait,
            _ if has_more => Next::FillAtOnce,
            _ => Next::GiveUp,
        };
        self.last = Some((next, now.elapsed));
        if matches!(next, Next::Pass | Next::GiveUp) {
            self.behind = None;
        }
        Some(next)
    }

    /// Tells how late the horizon is expected to be, unless it has moved already. Whether that is news.
    pub fn expects(&mut self, lag: Duration, elapsed: Duration) -> bool {
        let is_news = self.lag.is_none();
        if is_news {
            self.lag = Some(Lag {
                least: lag,
                most: lag,
                seen: elapsed,
            });
        }
        is_news
    }

    /// Whether the horizon is so late that passes are worth saving.
    pub fn is_late(&self) -> bool {
        self.lag.is_some_and(|lag| lag.least >= PATIENCE)
    }

    /// Whether the windows that are left had better begin before others are passed over again. All that is left of the table
    /// takes less time than the horizon then takes to pass the last of them as often as it needs.
    fn begins_first(&self, now: Situation) -> bool {
        let work = (self.first_pass + self.pass * PASSES).mul_f64(now.more);
        self.is_late()
            && now.windows < self.most
            && self.is_expected(now)
            && work < self.most_lag() * PASSES
    }

    /// Measures what was decided last, and how late the horizon is.
    fn learn(&mut self, now: Situation) {
        let spent = |since: Duration| now.elapsed.saturating_sub(since);
        match self.last {
            Some((Next::Begin, since)) => smooth(&mut self.first_pass, spent(since)),
            Some((Next::Pass, since)) => smooth(&mut self.pass, spent(since)),
            Some((Next::Wait, since)) if !self.is_usual(now.age) => {
                self.surprised += spent(since);
            }
            _ => {}
        }
        match now {
            Situation { windows: 0, .. } => {}
            Situation { is_due: false, .. } => self.behind = Some(now.age),
            _ => self.learn_lag(now),
        }
    }

    /// The horizon has passed the first window. That a window which was not looked at before is due tells only that the
    /// horizon is no later than that.
    fn learn_lag(&mut self, now: Situation) {
        let behind = self.behind.take();
        let is_longest = |lag: Lag| {
            let is_forgotten = now.elapsed > lag.seen + lag.most * MEMORY;
            match behind {
                Some(_) => now.age >= lag.most || is_forgotten,
                None => now.age < lag.most && is_forgotten,
            }
        };
        if self.lag.is_none_or(is_longest) {
            self.lag = Some(Lag {
                least: behind.unwrap_or_default(),
                most: now.age,
                seen: now.elapsed,
            });
        }
    }

    fn most_lag(&self) -> Duration {
        self.lag.map_or(Duration::ZERO, |lag| lag.most)
    }

    fn is_usual(&self, age: Duration) -> bool {
        age < self.most_lag() * USUAL
    }

    /// For how long the sweep may wait, in seconds: in all, and for a horizon that is later than usual.
    fn patience(&self, now: Situation) -> (f64, f64) {
        let work = self.first_pass.as_secs_f64() * WORK_PER_FIRST_PASS * now.all;
        let all = self.patience * work;
        let surprise = (all / PART_FOR_SURPRISES).min(LONGEST_SURPRISE.as_secs_f64());
        (all, surprise)
    }

    /// Whether the horizon is as late as usual, or not much later.
    fn is_expected(&self, now: Situation) -> bool {
        let (_, surprise) = self.patience(now);
        now.age < PATIENCE || self.is_usual(now.age) || now.age.as_secs_f64() < surprise
    }

    /// Whether the horizon is likely to move soon enough.
    fn waits(&self, now: Situation) -> bool {
        let (patience, surprise) = self.patience(now);
        match self.is_usual(now.age) {
            _ if now.age < PATIENCE => true,
            true => self.waits_ahead(now) <= patience * Self::share_ahead(now),
            false => self.surprised.as_secs_f64() < surprise,
        }
    }

    /// The share of the work that is to be done yet. What waits it needs falls with it: who begins to wait, goes on.
    fn share_ahead(now: Situation) -> f64 {
        let in_flight = now.windows as f64 * f64::from(now.passes) / f64::from(PASSES);
        ((now.more + in_flight) / now.all).min(1.0)
    }

    /// How long the sweep will have to wait up to its end, in seconds, if the horizon goes on as it does.
    fn waits_ahead(&self, now: Situation) -> f64 {
        let lag = self.most_lag();
        let others = self.pass * u32::try_from(now.windows).unwrap_or(u32::MAX);
        let rounds = f64::from(now.passes) + f64::from(PASSES) * now.more / self.most as f64;
        lag.saturating_sub(others).as_secs_f64() * rounds
    }
}

fn smooth(average: &mut Duration, last: Duration) {
    *average = match average.is_zero() {
        true => last,
        false => (*average * SMOOTHING + last) / (SMOOTHING + 1),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST_PASS: Duration = Duration::from_millis(500);
    const PASS: Duration = Duration::from_millis(60);
    const NAP: Duration = Duration::from_millis(2);
    const PATIENT: f64 = 2.0;

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

    /// How long it takes to fill all rows of a window at once.
    const AT_ONCE: Duration = Duration::from_millis(2000);

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
    fn sweep(windows: u32, most: usize, horizon: Horizon, patience: f64) -> Swept {
        let mut flight = Flight::new(most, patience);
        let mut left = windows;
        // Each window: passes to go, and when the last one ended.
        let mut in_flight = std::collections::VecDeque::new();
        // A transaction at 0 has passed any horizon that has not begun to move.
        let mut swept = Swept {
            time: NAP,
            ..Swept::default()
        };
        loop {
            let (now, front) = (swept.time, in_flight.front().copied());
            let (passes, ended) = front.unwrap_or((0, now));
            let situation = Situation {
                windows: in_flight.len(),
                is_due: ended <= horizon.at(now),
                age: now - ended,
                passes,
                more: f64::from(left),
                elapsed: now,
                all: f64::from(windows),
            };
            let Some(next) = flight.next(situation) else {
                return swept;
            };
            match next {
                Next::Wait => {
                    assert!(left == 0 || in_flight.len() == most);
                    let nap = (situation.age / 10).clamp(NAP, NAP * 25);
                    swept.waited += nap;
                    swept.time += nap;
                }
                Next::Begin => {
                    left -= 1;
                    swept.cold += 1;
                    swept.time += FIRST_PASS;
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
                    swept.time += AT_ONCE;
                }
                Next::GiveUp => {
                    let (passes, _) = in_flight.pop_front().unwrap();
                    swept.cold += passes;
                    swept.time += AT_ONCE * passes / PASSES;
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
        fn all_is_swept_within_the_limits(
            windows in 0u32..100,
            most in 1usize..64,
            horizon in any_horizon(),
            patience in 0.0..20.0f64,
        ) {
            let swept = sweep(windows, most, horizon, patience);
            prop_assert_eq!(swept.hot + swept.cold, windows * PASSES);
            prop_assert!(swept.windows <= most);
            // Each window may be waited for briefly. Work that is given up takes longer than was foreseen.
            let brief = (PATIENCE * windows * PASSES).as_secs_f64();
            let work = (swept.time - swept.waited).as_secs_f64();
            prop_assert!(swept.waited.as_secs_f64() <= 1.1 * (patience * work + brief) + 0.1);
        }

        #[test]
        fn a_lag_that_fits_into_the_windows_costs_nothing(windows in 1u32..100, millis in 1u64..2000) {
            let lag = Duration::from_millis(millis);
            let swept = sweep(windows, 64, Horizon::Late(lag), PATIENT);
            // The last windows may have to wait, each pass for as long as the horizon is late.
            prop_assert!(swept.cold <= windows + PASSES * (lag.as_millis() / PASS.as_millis() + 2) as u32);
        }
    }

    #[test]
    fn a_prompt_horizon_needs_one_window() {
        let swept = sweep(50, 64, Horizon::Late(Duration::ZERO), PATIENT);
        assert_eq!((swept.windows, swept.waited), (1, Duration::ZERO));
        // One that is as late as a short transaction takes needs two.
        let swept = sweep(50, 64, Horizon::Late(5 * NAP), PATIENT);
        assert!(swept.windows == 2 && swept.cold == 50, "{swept:?}");
    }

    #[test]
    fn a_horizon_that_moves_in_steps_is_waited_for_where_that_is_faster() {
        let shares = [
            (1, 9, PATIENT, 0.85),
            (1, 50, PATIENT, 0.88),
            (10, 9, PATIENT, 0.0),
            (10, 9, 20.0, 0.75),
            (10, 100, PATIENT, 0.85),
        ];
        for (seconds, windows, patience, least) in shares {
            let step = Duration::from_secs(seconds);
            let swept = sweep(windows, 64, Horizon::InSteps(step), patience);
            let share = swept.share();
            assert!(share >= least, "{seconds} s: {swept:?}, {share}");
        }
    }

    #[test]
    fn the_last_windows_begin_early() {
        for (seconds, windows) in [(1, 45), (3, 45), (3, 150)] {
            let step = Duration::from_secs(seconds);
            let swept = sweep(windows, 64, Horizon::InSteps(step), PATIENT);
            assert!(swept.waited < swept.time / 10, "{seconds} s: {swept:?}");
            // The last pass over the last windows may not be worth its wait.
            assert!(swept.cold <= windows + PASSES, "{seconds} s: {swept:?}");
        }
    }

    #[test]
    fn a_horizon_whose_steps_are_too_far_apart_is_not_waited_for_in_vain() {
        let swept = sweep(9, 64, Horizon::InSteps(Duration::from_secs(10)), PATIENT);
        assert!(swept.waited < swept.time / 8, "{swept:?}");
    }

    #[test]
    fn recycling_comes_back_when_a_report_has_ended() {
        let report = Duration::from_secs(8);
        let swept = sweep(50, 16, Horizon::HeldUntil(report), PATIENT);
        // What was done meanwhile, and the first pass over the rest.
        let meanwhile = (report.as_millis() / PASS.as_millis()) as u32;
        assert!(swept.cold <= meanwhile + 50 + PASSES, "{swept:?}");
    }

    #[test]
    fn a_horizon_that_never_moves_takes_a_tenth_of_the_time() {
        for windows in [1, 10, 100, 10_000] {
            let swept = sweep(windows, 16, Horizon::Held, PATIENT);
            assert_eq!(swept.hot, 0);
            let most = 11 * (swept.time / 100).min(LONGEST_SURPRISE / 10) + PATIENCE;
            assert!(swept.waited <= most, "{swept:?}");
        }
    }
}
