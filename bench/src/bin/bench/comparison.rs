//! Trials side by side.

use bench::figures::Figures;
use bench::latency::Latency;
use bench::report::{
    count, growth, markdown, median, megabytes, milliseconds, ratio, seconds, share,
};
use bench::strategy::{Contestant, Strategy};

use crate::Arguments;
use crate::trial::Trial;

/// A row for each strategy, all on tables of one size.
pub fn of_strategies(trials: &[Trial], arguments: &Arguments) -> String {
    let mut header = vec![
        "strategy",
        "time",
        "ratio",
        "rows/s",
        "WAL",
        "WAL ratio",
        "heap growth",
        "index growth",
        "HOT",
    ];
    if arguments.memory {
        header.push("memory growth");
    }
    if arguments.live.is_some() {
        header.extend(["p50", "p99", "max", "failed"]);
    }
    let rows: Vec<_> = arguments
        .contestants()
        .into_iter()
        .map(|contestant| row_of(trials, contestant, arguments))
        .collect();
    markdown(&header, &rows)
}

fn row_of(trials: &[Trial], contestant: Contestant, arguments: &Arguments) -> Vec<String> {
    let figures = figures_of(trials, contestant);
    let base = figures_of(
        trials,
        Contestant {
            strategy: Strategy::Update,
            workers: 1,
            ..contestant
        },
    );
    let middle = |value: fn(&Figures) -> f64| median(figures.iter().map(|figures| value(figures)));
    let of_base = |value: fn(&Figures) -> f64| {
        let base = (!base.is_empty()).then(|| median(base.iter().map(|figures| value(figures))));
        ratio(middle(value), base)
    };
    let rows = trials.first().map_or(0, |trial| trial.rows) as f64;
    let mut cells = vec![
        contestant.title(),
        seconds(middle(|figures| figures.seconds)),
        of_base(|figures| figures.seconds),
        count(rows / middle(|figures| figures.seconds)),
        megabytes(middle(|figures| figures.wal_bytes)),
        of_base(|figures| figures.wal_bytes),
        growth(middle(|figures| figures.heap_growth)),
        growth(middle(|figures| figures.index_growth)),
        share(middle(|figures| figures.hot_share)),
    ];
    if arguments.memory {
        let kilobytes = middle(|figures| figures.memory_kilobytes.unwrap_or_default());
        cells.push(format!("{} kB", count(kilobytes)));
    }
    if arguments.live.is_some() {
        let latencies: Vec<_> = figures
            .iter()
            .filter_map(|figures| figures.latency.as_ref())
            .collect();
        let middle =
            |value: fn(&Latency) -> f64| median(latencies.iter().map(|latency| value(latency)));
        cells.extend([
            milliseconds(middle(|latency| latency.p50)),
            milliseconds(middle(|latency| latency.p99)),
            milliseconds(middle(|latency| latency.max)),
            count(middle(|latency| latency.failed as f64)),
        ]);
    }
    cells
}

fn figures_of(trials: &[Trial], contestant: Contestant) -> Vec<&Figures> {
    trials
        .iter()
        .filter(|trial| trial.contestant == contestant)
        .map(|trial| &trial.figures)
        .collect()
}

/// The speed of each strategy on tables of several sizes.
pub fn of_sizes(trials: &[Trial], arguments: &Arguments) -> String {
    let titles: Vec<_> = arguments
        .rows
        .iter()
        .map(|&rows| format!("{} rows", count(rows as f64)))
        .collect();
    let mut header = vec!["strategy"];
    header.extend(titles.iter().map(String::as_str));
    header.push("last / first");
    let rows: Vec<_> = arguments
        .contestants()
        .into_iter()
        .map(|contestant| {
            let rates: Vec<_> = arguments
                .rows
                .iter()
                .map(|&rows| {
                    let of_size = trials
                        .iter()
                        .filter(|trial| trial.rows == rows && trial.contestant == contestant);
                    rows as f64 / median(of_size.map(|trial| trial.figures.seconds))
                })
                .collect();
            let mut cells = vec![contestant.title()];
            cells.extend(rates.iter().map(|&rate| count(rate)));
            cells.push(ratio(rates[rates.len() - 1], rates.first().copied()));
            cells
        })
        .collect();
    markdown(&header, &rows)
}
