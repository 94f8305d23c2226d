//! Sweeps over a table in simulation, beside horizons that move in one way or another.

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
