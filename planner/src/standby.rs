//! How far a standby is behind, and how much more WAL it can be given.
//!
//! Waiting only when the lag reaches its limit would be too late, since the WAL that increases it further is written by
//! then. So the standby's replay speed is measured, and it never has more WAL to replay than it can in a part of the
//! limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Before anything is known of a standby's speed it may have this much to replay: half a WAL segment.
const FIRST_BACKLOG: u64 = 8 << 20;
/// A standby with less than this to replay keeps up. Its replay speed then says only how fast WAL is written.
const BUSY: u64 = 1 << 20;
/// The share of the lag limit that is used up on purpose.
const SHARE: f64 = 0.5;
/// The speed is the mean over the last busy periods of the standby, this long in sum.
const MEASURED: Duration = Duration::from_secs(5);
/// The speed counts as known once the standby has been busy for this long.
const ENOUGH: Duration = Duration::from_millis(500);
/// How often the end of WAL is recorded, and how many records are kept.
const RESOLUTION: Duration = Duration::from_millis(20);
const REMEMBERED: usize = 4096;

/// Where the end of WAL was, and when.
#[derive(Debug, Default)]
pub struct WalClock {
    ends: VecDeque<(Instant, u64)>,
}

impl WalClock {
    /// Tells where the end of WAL is now.
    pub fn observe(&mut self, now: Instant, end: u64) {
        if let Some((at, _)) = self.ends.back()
            && now.saturating_duration_since(*at) < RESOLUTION
        {
            return;
        }
        if self.ends.len() >= REMEMBERED {
            // Thin out the older half: keep every other record.
            let mut index = 0;
            self.ends.retain(|_| {
                index += 1;
                index > REMEMBERED / 2 || index % 2 == 0
            });
        }
        self.ends.push_back((now, end));
    }

    /// How long ago, at least, WAL after this position was written.
    pub fn age(&self, now: Instant, position: u64) -> Duration {
        let later = self.ends.partition_point(|(_, end)| *end <= position);
        self.ends
            .get(later)
            .map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

/// One standby, and how fast it replays.
#[derive(Debug, Default)]
pub struct Standby {
    last: Option<(Instant, u64, bool)>,
    /// Periods in which it was busy, and the bytes that it replayed in each.
    busy: VecDeque<(Duration, u64)>,
    busy_time: Duration,
    busy_bytes: u64,
}

impl Standby {
    /// Tells how far it has replayed, and where the end of WAL is.
    pub fn observe(&mut self, now: Instant, replayed: u64, end: u64) {
        let is_busy = end.saturating_sub(replayed) >= BUSY;
        if let Some((at, before, was_busy)) = self.last {
            let time = now.saturating_duration_since(at);
            if time < RESOLUTION {
                return;
            }
            if was_busy {
                self.measure(time, replayed.saturating_sub(before));
            }
        }
        self.last = Some((now, replayed, is_busy));
    }

    fn measure(&mut self, time: Duration, bytes: u64) {
        self.busy.push_back((time, bytes));
        self.busy_time += time;
        self.busy_bytes += bytes;
        while let Some(&(time, bytes)) = self.busy.front() {
            if self.busy_time.saturating_sub(time) < MEASURED {
                break;
            }
            self.busy.pop_front();
            self.busy_time -= time;
            self.busy_bytes -= bytes;
        }
    }

    /// Bytes it replays in a second, if that is known.
    fn speed(&self) -> Option<f64> {
        (self.busy_time >= ENOUGH).then(|| self.busy_bytes as f64 / self.busy_time.as_secs_f64())
    }

    /// How much it may have to replay, so that it is not behind for longer than `limit`.
    pub fn largest_backlog(&self, limit: Duration) -> u64 {
        match self.speed() {
            Some(speed) => ((speed * limit.as_secs_f64() * SHARE) as u64).max(BUSY),
            None => FIRST_BACKLOG,
        }
    }

    /// Whether more WAL may be written, while it is behind by `behind` bytes and for `age`.
    pub fn keeps_up(&self, behind: u64, age: Duration, limit: Duration) -> bool {
        behind <= self.largest_backlog(limit) && age <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// A run that writes `written` bytes in each millisecond in which it may, beside a standby that replays up to `speed`
    /// bytes in each millisecond of every `on` of `period`. Returns the longest lag, and the bytes replayed.
    fn simulate(
        written: u64,
        speed: u64,
        on: u64,
        period: u64,
        limit: Duration,
    ) -> (Duration, u64) {
        let mut now = Instant::now();
        let (mut end, mut replayed) = (0u64, 0u64);
        let (mut clock, mut standby) = (WalClock::default(), Standby::default());
        let mut true_ends = VecDeque::from([(now, 0)]);
        let mut longest = Duration::ZERO;
        for tick in 0..60_000u64 {
            now += MILLI;
            if tick % period < on {
                replayed = (replayed + speed).min(end);
            }
            clock.observe(now, end);
            standby.observe(now, replayed, end);
            if standby.keeps_up(end - replayed, clock.age(now, replayed), limit) {
                end += written;
                true_ends.push_back((now, end));
            }
            while true_ends.front().is_some_and(|(_, end)| *end <= replayed) {
                true_ends.pop_front();
            }
            let lag = true_ends
                .front()
                .map_or(Duration::ZERO, |(at, _)| now - *at);
            longest = longest.max(lag);
        }
        (longest, replayed)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_slow_standby_is_never_behind_for_longer_than_the_limit(
            written in 1_000u64..200_000, speed in 3_000u64..100_000, share in 1u64..=20,
        ) {
            let limit = Duration::from_secs(10);
            // It replays in one part of twenty of each second, or in more; 1 MB a second at least.
            let (on, period) = (50 * share, 1000);
            prop_assume!(speed * on >= 1_500_000);
            let (lag, replayed) = simulate(written, speed, on, period, limit);
            prop_assert!(lag <= limit, "{lag:?}");
            // The run makes use of what the standby can do.
            let possible = (speed * on / 1000).min(written) * 60_000;
            prop_assert!(replayed as f64 >= 0.6 * possible as f64, "{replayed} of {possible}");
        }

        #[test]
        fn a_standby_that_keeps_up_never_stops_the_run(written in 1u64..100_000, more in 1u64..100_000) {
            let (_, replayed) = simulate(written, written + more, 1, 1, Duration::from_secs(10));
            prop_assert!(replayed >= written * 59_000);
        }
    }

    #[test]
    fn a_standby_that_has_stopped_is_given_little() {
        let (_, replayed) = simulate(50_000, 0, 0, 1000, Duration::from_secs(10));
        assert_eq!(replayed, 0);
        let mut standby = Standby::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            now += RESOLUTION;
            standby.observe(now, 0, 2 * BUSY);
        }
        assert_eq!(standby.largest_backlog(Duration::from_secs(10)), BUSY);
    }

    #[test]
    fn the_age_is_that_of_the_first_wal_after_the_position() {
        let (mut clock, began) = (WalClock::default(), Instant::now());
        for second in 0..10 {
            clock.observe(began + Duration::from_secs(second), 100 * second);
        }
        let now = began + Duration::from_secs(9);
        assert_eq!(clock.age(now, 900), Duration::ZERO);
        assert_eq!(clock.age(now, 899), Duration::ZERO);
        assert_eq!(clock.age(now, 300), Duration::from_secs(5));
        assert_eq!(clock.age(now, 0), Duration::from_secs(8));
    }

    #[test]
    fn the_clock_forgets_detail_and_no_age() {
        let (mut clock, began) = (WalClock::default(), Instant::now());
        let ticks = 3 * REMEMBERED as u32;
        for tick in 0..ticks {
            clock.observe(began + RESOLUTION * tick, u64::from(tick));
        }
        assert!(clock.ends.len() <= REMEMBERED);
        let now = began + RESOLUTION * (ticks - 1);
        let age = clock.age(now, u64::from(ticks / 2));
        let truth = RESOLUTION * (ticks / 2 - 1);
        assert!(
            truth.saturating_sub(age) <= RESOLUTION * 8,
            "{age:?} {truth:?}"
        );
    }
}
