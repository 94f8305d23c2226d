//! How many windows are in flight, and what a sweep does while the xmin horizon lags.
//!
//! A window cannot be passed over again before the horizon has passed its last pass. A horizon that lags, such as one that
//! a standby with feedback reports every few seconds, is no reason to stand still: meanwhile other windows are begun.

use std::time::Duration;

use crate::window::{PASSES, WINDOW};

/// So long the horizon is waited for, whatever is known of it.
const PATIENCE: Duration = Duration::from_millis(100);
/// A wait ends when the horizon is so many times later than it usually is.
const USUAL: u32 = 2;
/// How late the horizon usually is, is forgotten after so many times the longest of these delays without another one.
const MEMORY: u32 = 4;
/// It is the median of so many delays, so that a single long transaction does not count.
const DELAYS: usize = 3;
/// Of all the patience, one part in so many is for a horizon that has not moved before, or is later than usual.
const PART_FOR_SURPRISES: f64 = 20.0;
/// And never more than so many seconds times the patience, which are a minute by default: it may be hours until it moves.
const LONGEST_SURPRISE: f64 = 30.0;
/// A window whose last pass is longer ago does not wait for the horizon while others are filled: what is filled behind it
/// would be read again after a crash.
const LONGEST_DETOUR: Duration = Duration::from_secs(60);
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
    /// How many blocks the windows in flight have.
    pub in_flight: u32,
    /// How many blocks the window has that was passed over last, if one was.
    pub passed: u32,
    /// Whether the horizon has passed the last pass over the first of them.
    pub is_due: bool,
    /// How long ago that pass ended, pauses included: the horizon moves on meanwhile.
    pub age: Duration,
    /// How many more passes the first of them needs.
    pub passes: u32,
    /// How many blocks this process will claim yet.
    pub more: u32,
    /// How long the sweep has worked, its waits for the horizon included, and no others.
    pub elapsed: Duration,
    /// How many blocks it sweeps in all, of which as many may be in flight.
    pub all: u32,
    /// All waits together may last about so many times as long as the work does without them. With 0, only those of a moment
    /// are left.
    pub patience: f64,
}

/// Decides how a sweep goes on.
#[derive(Debug, Clone)]
pub struct Flight {
    most: u32,
    /// How late the horizon was when it passed a window, the last times that this was seen; 0 where it is not known.
    delays: [Duration; DELAYS],
    /// When it was last seen, from the beginning of the sweep.
    seen: Duration,
    /// How long ago the last pass over the first window was when the horizon had not passed that yet.
    behind: Option<Duration>,
    /// How long the first pass over [`WINDOW`] blocks takes, and another one.
    first_pass: Duration,
    pass: Duration,
    /// What was decided last, and when.
    last: Option<(Next, Duration)>,
    /// How long the sweep has waited longer than could be foreseen.
    surprised: Duration,
}

impl Flight {
    /// With about `most` blocks in flight at most, which should stay in memory.
    pub fn new(most: u32) -> Self {
        Flight {
            most: most.max(1),
            delays: [Duration::ZERO; DELAYS],
            seen: Duration::ZERO,
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
        let has_more = now.more > 0;
        let next = match now {
            Situation { in_flight: 0, .. } if !has_more => return None,
            Situation { in_flight: 0, .. } => Next::Begin,
            _ if has_more && self.begins_first(now) => Next::Begin,
            Situation { is_due: true, .. } => Next::Pass,
            _ if has_more && !self.is_expected(now) => Self::without_waiting(now),
            _ if has_more && self.has_room(now) => Next::Begin,
            _ if self.waits(now) => Next::Wait,
            _ => Self::without_waiting(now),
        };
        self.last = Some((next, now.elapsed));
        if matches!(next, Next::Pass | Next::GiveUp) {
            self.behind = None;
        }
        Some(next)
    }

    fn without_waiting(now: Situation) -> Next {
        match now.more > 0 && now.age < LONGEST_DETOUR {
            true => Next::FillAtOnce,
            false => Next::GiveUp,
        }
    }

    /// Tells how late the horizon is expected to be, unless that is known already. Whether it is news.
    pub fn expects(&mut self, lag: Duration, elapsed: Duration) -> bool {
        let is_news = self.lag().is_zero();
        if is_news {
            self.delays.fill(lag);
            self.seen = elapsed;
        }
        is_news
    }

    /// Whether the horizon is so late that passes are worth saving.
    pub fn is_late(&self) -> bool {
        self.lag() >= PATIENCE * USUAL
    }

    /// Whether another window may be in flight.
    fn has_room(&self, now: Situation) -> bool {
        now.in_flight < self.most.min(now.all)
    }

    /// Whether the windows that are left had better begin before others are passed over again. All that is left of the table
    /// takes less time than the horizon then takes to pass the last of them as often as it needs.
    fn begins_first(&self, now: Situation) -> bool {
        let work = (self.first_pass + self.pass * PASSES).mul_f64(windows(now.more));
        self.is_late() && self.has_room(now) && self.is_expected(now) && work < self.lag() * PASSES
    }

    /// Measures what was decided last, and how late the horizon is.
    fn learn(&mut self, now: Situation) {
        let spent = |since: Duration| now.elapsed.saturating_sub(since);
        let per_window = |since| spent(since).div_f64(windows(now.passed));
        match self.last {
            Some((Next::Begin | Next::Pass, _)) if now.passed == 0 => {}
            Some((Next::Begin, since)) => smooth(&mut self.first_pass, per_window(since)),
            Some((Next::Pass, since)) => smooth(&mut self.pass, per_window(since)),
            Some((Next::Wait, since)) if !self.is_usual(now.age) => {
                self.surprised += spent(since);
            }
            _ => {}
        }
        match now {
            Situation { in_flight: 0, .. } => {}
            Situation { is_due: false, .. } => self.behind = Some(now.age),
            _ => self.learn_lag(now),
        }
    }

    /// The horizon has passed the first window. When it did so is known well enough if that window was looked at shortly
    /// before. If the sweep was held back meanwhile, it was not.
    fn learn_lag(&mut self, now: Situation) {
        let lag = self.lag();
        let longest = self.delays.into_iter().fold(lag, Duration::max);
        match self.behind.take() {
            Some(behind) if now.age <= behind * USUAL || now.age < lag => {
                self.delays.rotate_left(1);
                self.delays[DELAYS - 1] = now.age;
                // Nobody waits for long where it was not expected to move soon.
                if lag.is_zero() && matches!(self.last, Some((Next::Wait | Next::Begin, _))) {
                    self.delays.fill(now.age);
                }
                self.seen = now.elapsed;
            }
            _ if now.elapsed > self.seen + longest * MEMORY => self.delays.fill(Duration::ZERO),
            _ => {}
        }
    }

    /// How late the horizon usually is; 0 if that is not known.
    fn lag(&self) -> Duration {
        let mut delays = self.delays;
        delays.sort_unstable();
        delays[DELAYS / 2]
    }

    fn is_usual(&self, age: Duration) -> bool {
        age < self.lag() * USUAL
    }

    /// For how long the sweep may wait, in seconds: in all, and for a horizon that is later than usual.
    fn patience(&self, now: Situation) -> (f64, f64) {
        let work = self.first_pass.as_secs_f64() * WORK_PER_FIRST_PASS * windows(now.all);
        let all = now.patience * work;
        let surprise = (all / PART_FOR_SURPRISES).min(now.patience * LONGEST_SURPRISE);
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
        let in_flight = f64::from(now.in_flight) * f64::from(now.passes) / f64::from(PASSES);
        ((f64::from(now.more) + in_flight) / f64::from(now.all.max(1))).min(1.0)
    }

    /// How long the sweep will have to wait up to its end, in seconds, if the horizon goes on as it does.
    fn waits_ahead(&self, now: Situation) -> f64 {
        let lag = self.lag();
        let others = self.pass.mul_f64(windows(now.in_flight));
        let rounds_of_more = f64::from(now.more) / f64::from(self.most);
        let rounds = f64::from(now.passes) + f64::from(PASSES) * rounds_of_more;
        lag.saturating_sub(others).as_secs_f64() * rounds
    }
}

/// How many windows' worth of blocks these are, if each is as large as it can be.
fn windows(blocks: u32) -> f64 {
    f64::from(blocks) / f64::from(WINDOW)
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
    use std::collections::VecDeque;
    use std::ops::Range;

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
        /// In steps of a second, and held meanwhile.
        HeldBetween(Duration, Duration),
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
                Horizon::HeldBetween(from, until) => {
                    let is_held = (from..until).contains(&now);
                    Horizon::InSteps(Duration::from_secs(1)).at(if is_held { from } else { now })
                }
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
        windows: u32,
        /// How long after its last pass a window was in flight still while others were filled at once.
        detour: Duration,
    }

    impl Swept {
        fn share(&self) -> f64 {
            f64::from(self.hot) / f64::from(self.hot + self.cold)
        }
    }

    /// How a table is swept.
    #[derive(Debug, Clone)]
    struct Scenario {
        blocks: u32,
        /// How many blocks are claimed at a time.
        claim: u32,
        most: u32,
        horizon: Horizon,
        patience: f64,
        /// All stands still meanwhile, except the horizon.
        pause: Range<Duration>,
    }

    /// Sweeps a table of so many windows.
    fn sweep(windows: u32, most: u32, horizon: Horizon, patience: f64) -> Swept {
        Scenario::new(windows, most, horizon, patience).sweep()
    }

    impl Scenario {
        fn new(windows: u32, most: u32, horizon: Horizon, patience: f64) -> Self {
            Scenario {
                blocks: windows * WINDOW,
                claim: WINDOW,
                most: most * WINDOW,
                horizon,
                patience,
                pause: Duration::MAX..Duration::MAX,
            }
        }

        /// When it is, if so much time was spent on the sweep.
        fn at(&self, elapsed: Duration) -> Duration {
            match elapsed >= self.pause.start {
                true => elapsed + (self.pause.end - self.pause.start),
                false => elapsed,
            }
        }

        fn sweep(&self) -> Swept {
            let mut flight = Flight::new(self.most);
            let mut left = self.blocks;
            // Each window: blocks, passes to go, and when the last one ended.
            let mut in_flight: VecDeque<(u32, u32, Duration)> = VecDeque::new();
            let (mut hot, mut cold) = (0, 0);
            let mut passed = 0;
            // A transaction at 0 has passed any horizon that has not begun to move.
            let mut swept = Swept {
                time: NAP,
                ..Swept::default()
            };
            loop {
                let now = self.at(swept.time);
                let (_, passes, ended) = in_flight.front().copied().unwrap_or((0, 0, now));
                let situation = Situation {
                    in_flight: in_flight.iter().map(|window| window.0).sum(),
                    passed,
                    is_due: ended <= self.horizon.at(now),
                    age: now - ended,
                    passes,
                    more: left,
                    elapsed: swept.time,
                    all: self.blocks,
                    patience: self.patience,
                };
                let Some(next) = flight.next(situation) else {
                    swept.hot = hot / WINDOW;
                    swept.cold = cold / WINDOW;
                    return swept;
                };
                let (blocks, passes) = match next {
                    Next::Begin | Next::FillAtOnce => {
                        let blocks = self.claim.min(left);
                        left -= blocks;
                        (blocks, PASSES)
                    }
                    Next::Pass | Next::GiveUp => {
                        let (blocks, passes, _) = in_flight.pop_front().unwrap();
                        (blocks, passes)
                    }
                    Next::Wait => (0, 0),
                };
                let time = match next {
                    Next::Wait => {
                        assert!(left == 0 || situation.in_flight >= self.most);
                        let nap = (situation.age / 10).clamp(NAP, NAP * 25);
                        swept.waited += nap;
                        nap
                    }
                    Next::Begin => FIRST_PASS.mul_f64(windows(blocks)),
                    Next::Pass => PASS.mul_f64(windows(blocks)),
                    Next::FillAtOnce => {
                        swept.detour = swept.detour.max(situation.age);
                        AT_ONCE.mul_f64(windows(blocks))
                    }
                    Next::GiveUp => (AT_ONCE * passes / PASSES).mul_f64(windows(blocks)),
                };
                match next {
                    Next::Wait => {}
                    Next::Begin => cold += blocks,
                    Next::Pass => hot += blocks,
                    Next::FillAtOnce | Next::GiveUp => cold += blocks * passes,
                }
                if matches!(next, Next::Begin | Next::Pass) && passes > 1 {
                    in_flight.push_back((blocks, passes - 1, now + time));
                }
                swept.time += time;
                passed = blocks;
                swept.windows = swept.windows.max(in_flight.len() as u32);
            }
        }
    }

    fn any_horizon() -> impl Strategy<Value = Horizon> {
        let time = || (1u64..20_000).prop_map(Duration::from_millis);
        prop_oneof![
            time().prop_map(Horizon::Late),
            time().prop_map(Horizon::InSteps),
            time().prop_map(Horizon::HeldUntil),
            Just(Horizon::Held),
            (time(), time()).prop_map(|(from, until)| Horizon::HeldBetween(from, until)),
        ]
    }

    proptest! {
        #[test]
        fn all_is_swept_within_the_limits(
            windows in 0u32..100,
            most in 1u32..64,
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
        fn a_lag_that_fits_into_the_windows_costs_nothing(windows in 15u32..100, share in 0.0..0.5f64) {
            // Meanwhile the others are passed over. The last passes over the last ones may not be worth their wait.
            let lag = (PASS * windows).mul_f64(share);
            let swept = sweep(windows, 64, Horizon::Late(lag), PATIENT);
            prop_assert!(swept.cold <= windows + 2 * PASSES, "{:?}", swept);
            prop_assert!(swept.waited <= swept.time / 10, "{:?}", swept);
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
    fn the_time_that_may_be_waited_is_known_from_the_first_window() {
        for (windows, most) in [(1, 64), (20, 1)] {
            let report = Duration::from_secs(3);
            let swept = sweep(windows, most, Horizon::HeldUntil(report), 1000.0);
            assert_eq!(swept.cold, windows, "{swept:?}");
        }
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
            let longest = Duration::from_secs(60);
            let most = (11 * (swept.time / 100)).min(longest) + PATIENCE;
            assert!(swept.waited <= most, "{swept:?}");
        }
    }

    #[test]
    fn a_single_long_report_beside_a_standby_is_not_taken_for_its_habit() {
        let seconds = Duration::from_secs;
        for (from, until) in [(0, 30), (20, 30), (20, 140), (20, 320)] {
            let horizon = Horizon::HeldBetween(seconds(from), seconds(until));
            let meanwhile = PASSES * (until - from) as u32 / AT_ONCE.as_secs() as u32;
            for most in [4, 8, 64] {
                let swept = sweep(400, most, horizon, PATIENT);
                // All else is filled by HOT updates, also on the windows in flight.
                assert!(
                    swept.cold <= 400 + meanwhile,
                    "{most}, {from} to {until} s: {swept:?}"
                );
            }
        }
    }

    #[test]
    fn small_claims_are_swept_as_large_ones_are() {
        for (seconds, windows) in [(1, 9), (1, 100), (3, 45), (10, 150)] {
            let steps = Horizon::InSteps(Duration::from_secs(seconds));
            let large = Scenario::new(windows, 64, steps, PATIENT);
            for claim in [1024, 512, 128] {
                let small = Scenario {
                    claim,
                    ..large.clone()
                };
                let (large, small) = (large.sweep(), small.sweep());
                assert!(
                    small.share() > large.share() - 0.05,
                    "{claim}: {small:?}, {large:?}"
                );
                assert!(
                    small.time < large.time.mul_f64(1.15),
                    "{claim}: {small:?}, {large:?}"
                );
            }
        }
    }

    #[test]
    fn little_is_filled_behind_a_window_that_waits() {
        let reports = [
            Horizon::Held,
            Horizon::HeldUntil(Duration::from_secs(1000)),
            Horizon::InSteps(Duration::from_secs(300)),
        ];
        for horizon in reports {
            for most in [1, 64] {
                let swept = sweep(1000, most, horizon, PATIENT);
                assert!(swept.detour <= Duration::from_secs(60), "{swept:?}");
            }
        }
        // What is given up takes the time that others would have taken.
        let swept = sweep(1000, 64, reports[1], PATIENT);
        assert!(swept.share() > 0.4, "{swept:?}");
    }

    #[test]
    fn a_pause_says_nothing_of_the_horizon() {
        for at in [1, 5, 20] {
            let steps = Horizon::InSteps(Duration::from_secs(1));
            let smoothly = Scenario::new(100, 64, steps, PATIENT);
            let with_pause = Scenario {
                pause: Duration::from_secs(at)..Duration::from_secs(at + 600),
                ..smoothly.clone()
            };
            let (swept, paused) = (smoothly.sweep(), with_pause.sweep());
            assert!(
                paused.share() > swept.share() - 0.01,
                "{paused:?}, {swept:?}"
            );
            assert!(paused.time < swept.time * 11 / 10, "{paused:?}, {swept:?}");
        }
    }

    #[test]
    fn who_is_more_patient_waits_for_a_long_report_and_who_is_not_for_none() {
        let minutes = Horizon::HeldUntil(Duration::from_secs(300));
        let share = |patience| sweep(200, 64, minutes, patience).share();
        assert!(share(PATIENT) < 0.4, "{}", share(PATIENT));
        assert!(share(100.0) > 0.85, "{}", share(100.0));
        let swept = sweep(50, 64, Horizon::InSteps(Duration::from_secs(1)), 0.0);
        assert!(swept.waited <= PATIENCE * 50 * PASSES / 4, "{swept:?}");
    }
}
