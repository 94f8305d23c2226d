//! Compares ways to fill a column on identical copies of a table.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::contents::Contents;
use bench::copy;
use bench::figures::{Figures, Watch, hot_share};
use bench::latency::Latency;
use bench::memory::Sampler;
use bench::report::{
    count, growth, markdown, median, megabytes, milliseconds, ratio, seconds, share,
};
use bench::strategy::{Job, Strategy};
use bench::table::Table;
use bench::traffic::{Tally, Traffic};
use clap::Parser;
use serde::Serialize;
use testenv::{Options, SUPERUSER, Server};

const COPY: &str = "bench";
/// Traffic before a run, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_secs(3);

/// Compares ways to fill a column on identical copies of a table.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows of the table; several sizes are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000000")]
    rows: Vec<u64>,
    /// Runs of every strategy; medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Strategies to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = all_strategies())]
    strategies: Vec<Strategy>,
    /// Rows per batch
    #[arg(long, default_value_t = 10_000)]
    batch_size: i64,
    /// Secondary indexes; the first is on random UUIDs
    #[arg(long, default_value_t = 3)]
    indexes: usize,
    /// Bytes per row, about; not less than 100
    #[arg(long, default_value_t = 100)]
    row_width: usize,
    /// Also index the column that is filled, which rules HOT updates out
    #[arg(long)]
    index_column: bool,
    /// Run an application of so many transactions per second meanwhile
    #[arg(long, value_name = "TPS")]
    live: Option<u32>,
    /// Connections of the application
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Report how much the memory of the backend grows
    #[arg(long)]
    memory: bool,
    /// The server's shared_buffers
    #[arg(long, default_value = "1GB")]
    shared_buffers: String,
    /// Turn autovacuum off
    #[arg(long)]
    no_autovacuum: bool,
    /// Also write every single run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One run of a strategy.
#[derive(Debug, Serialize)]
struct Run {
    rows: u64,
    round: usize,
    strategy: Strategy,
    #[serde(flatten)]
    figures: Figures,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    testenv::run(|| compare(&arguments))
}

fn all_strategies() -> Vec<Strategy> {
    clap::ValueEnum::value_variants().to_vec()
}

fn compare(arguments: &Arguments) -> Result<()> {
    let settings = settings(arguments);
    let options = settings
        .iter()
        .fold(Options::default(), |options, (name, value)| {
            options.set(name, value)
        });
    let server = Server::start(options)?;
    if arguments.strategies.contains(&Strategy::SafeBackfill) {
        bench::ensure_extension(&server)?;
    }
    describe(&server, arguments, &settings)?;
    let mut runs = Vec::new();
    for &rows in &arguments.rows {
        let measured = measure_size(&server, arguments, rows)?;
        println!("\n{}", table_of(&measured, arguments));
        runs.extend(measured);
    }
    if arguments.rows.len() > 1 {
        println!("\nRows per second\n\n{}", table_of_sizes(&runs, arguments));
    }
    if let Some(path) = &arguments.json {
        write_json(path, &runs)?;
    }
    Ok(())
}

fn settings(arguments: &Arguments) -> Vec<(&'static str, &str)> {
    vec![
        ("shared_buffers", &arguments.shared_buffers),
        ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "30min"),
        ("wal_level", "replica"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        (
            "autovacuum",
            if arguments.no_autovacuum { "off" } else { "on" },
        ),
    ]
}

fn describe(server: &Server, arguments: &Arguments, settings: &[(&str, &str)]) -> Result<()> {
    let version: String = server
        .connect()?
        .query_one("SHOW server_version", &[])?
        .get(0);
    let processors = std::thread::available_parallelism()?;
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    println!(
        "PostgreSQL {version} on {processors} processors: {}",
        settings.join(", ")
    );
    let column = if arguments.index_column {
        ", the column indexed"
    } else {
        ""
    };
    println!(
        "Rows of about {} bytes, a primary key and {} secondary indexes{column}; batches of {}; rounds: {}",
        arguments.row_width,
        arguments.indexes,
        count(arguments.batch_size as f64),
        arguments.rounds
    );
    if let Some(tps) = arguments.live {
        println!(
            "Live traffic: {tps} transactions per second on {} connections",
            arguments.clients
        );
    }
    Ok(())
}

fn measure_size(server: &Server, arguments: &Arguments, rows: u64) -> Result<Vec<Run>> {
    eprintln!("loading {} rows", count(rows as f64));
    let table = Table {
        name: "t".into(),
        rows,
        indexes: arguments.indexes,
        row_width: arguments.row_width,
    };
    let mut contents = None;
    copy::load(server, |client| {
        table.load(client)?;
        table.prepare(client, arguments.index_column)?;
        for strategy in &arguments.strategies {
            strategy.prepare(client)?;
        }
        contents = Some(Contents::of(client, &table)?);
        Ok(())
    })?;
    let contents = contents.context("the table was not loaded")?;

    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        // Another one begins each round, so that none always follows the same one.
        let mut strategies = arguments.strategies.clone();
        strategies.rotate_left(round % arguments.strategies.len());
        for strategy in strategies {
            let figures = measure(server, arguments, strategy, &table, &contents)
                .with_context(|| format!("\"{}\" failed", strategy.title()))?;
            eprintln!(
                "round {}: {}: {}",
                round + 1,
                strategy.title(),
                seconds(figures.seconds)
            );
            runs.push(Run {
                rows,
                round: round + 1,
                strategy,
                figures,
            });
        }
    }
    Ok(runs)
}

fn measure(
    server: &Server,
    arguments: &Arguments,
    strategy: Strategy,
    table: &Table,
    contents: &Contents,
) -> Result<Figures> {
    copy::make(server, COPY)?;
    let mut monitor = server.connect_as(SUPERUSER, COPY)?;
    let mut client = server.connect_as(SUPERUSER, COPY)?;
    let load = arguments
        .live
        .map(|tps| {
            let clients = arguments.clients;
            let load = Traffic {
                tps,
                clients,
                writes_column: true,
            }
            .start(server, COPY, table);
            std::thread::sleep(WARM_UP);
            load
        })
        .transpose()?;
    let sampler = if arguments.memory {
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        Some(Sampler::start(pid)?)
    } else {
        None
    };

    let watch = Watch::start(&mut monitor, &table.name)?;
    let job = Job {
        table: &table.name,
        batch_size: arguments.batch_size,
    };
    strategy.run(&mut client, job)?;
    let watched = watch.stop(&mut monitor, &table.name)?;

    let mut figures = watched.figures;
    if let Some(sampler) = sampler {
        figures.memory_kilobytes = Some(sampler.stop()? as f64);
    }
    client.close()?;
    let mut written = Tally::default();
    if let Some(load) = load {
        let log = load.settle_and_stop(watched.from, watched.to)?;
        log.ensure_complete()?;
        written = log.tally();
        figures.latency = Some(log.latency(watched.from, watched.to));
    }
    figures.hot_share = hot_share(&mut monitor, &table.name)?;
    contents.verify(&mut monitor, table, &written)?;
    copy::remove(server, COPY)?;
    Ok(figures)
}

fn table_of(runs: &[Run], arguments: &Arguments) -> String {
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
        .strategies
        .iter()
        .map(|&strategy| row_of(runs, strategy, arguments))
        .collect();
    markdown(&header, &rows)
}

fn row_of(runs: &[Run], strategy: Strategy, arguments: &Arguments) -> Vec<String> {
    let figures = figures_of(runs, strategy);
    let base = figures_of(runs, Strategy::Update);
    let middle = |value: fn(&Figures) -> f64| median(figures.iter().map(|figures| value(figures)));
    let of_base = |value: fn(&Figures) -> f64| {
        let base = (!base.is_empty()).then(|| median(base.iter().map(|figures| value(figures))));
        ratio(middle(value), base)
    };
    let rows = runs.first().map_or(0, |run| run.rows) as f64;
    let mut cells = vec![
        strategy.title().into(),
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

fn figures_of(runs: &[Run], strategy: Strategy) -> Vec<&Figures> {
    runs.iter()
        .filter(|run| run.strategy == strategy)
        .map(|run| &run.figures)
        .collect()
}

fn table_of_sizes(runs: &[Run], arguments: &Arguments) -> String {
    let titles: Vec<_> = arguments
        .rows
        .iter()
        .map(|&rows| format!("{} rows", count(rows as f64)))
        .collect();
    let mut header = vec!["strategy"];
    header.extend(titles.iter().map(String::as_str));
    header.push("last / first");
    let rows: Vec<_> = arguments
        .strategies
        .iter()
        .map(|&strategy| {
            let rates: Vec<_> = arguments
                .rows
                .iter()
                .map(|&rows| {
                    let of_size = runs
                        .iter()
                        .filter(|run| run.rows == rows && run.strategy == strategy);
                    rows as f64 / median(of_size.map(|run| run.figures.seconds))
                })
                .collect();
            let mut cells = vec![strategy.title().to_string()];
            cells.extend(rates.iter().map(|&rate| count(rate)));
            cells.push(ratio(rates[rates.len() - 1], rates.first().copied()));
            cells
        })
        .collect();
    markdown(&header, &rows)
}

fn write_json(path: &Path, runs: &[Run]) -> Result<()> {
    let text = serde_json::to_string_pretty(runs)?;
    std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}
