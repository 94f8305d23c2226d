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
mod tests;
