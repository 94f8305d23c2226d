//! How long an application waited.

use std::time::Duration;

use serde::Serialize;

/// Latencies in milliseconds, counted from when a transaction was due: time spent waiting for a free connection
/// is part of it.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// One in a hundred transactions took longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// The longest single statement, counted from when it was sent.
    pub longest_statement: f64,
    /// Transactions that were due.
    pub transactions: usize,
    /// Transactions that failed.
    pub failed: usize,
}

/// One transaction of the application.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// From when it was due to its end; none if it failed.
    pub latency: Option<Duration>,
    /// From when it was due to when it was sent.
    pub lag: Duration,
}

impl Latency {
    /// Sums up transactions.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let done = samples
            .iter()
            .filter_map(|sample| Some((sample.latency?, sample.lag)));
        let mut latencies: Vec<_> = done.clone().map(|(latency, _)| latency).collect();
        latencies.sort_unstable();
        let longest = done
            .map(|(latency, lag)| latency.saturating_sub(lag))
            .max()
            .unwrap_or_default();
        Self {
            p50: milliseconds(percentile(&latencies, 50)),
            p99: milliseconds(percentile(&latencies, 99)),
            max: milliseconds(percentile(&latencies, 100)),
            longest_statement: milliseconds(longest),
            transactions: samples.len(),
            failed: samples.len() - latencies.len(),
        }
    }
}

/// The smallest value that `percent` of the sorted values don't exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let values: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 100), Duration::from_millis(200));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_statement_starts_after_its_lag() {
        let sample = |latency: Option<u64>, lag| Sample {
            latency: latency.map(Duration::from_millis),
            lag: Duration::from_millis(lag),
        };
        let latency = Latency::of(&[sample(Some(10), 9), sample(Some(5), 0), sample(None, 0)]);
        assert_eq!(latency.max, 10.0);
        assert_eq!(latency.longest_statement, 5.0);
        assert_eq!(latency.failed, 1);
    }
}
