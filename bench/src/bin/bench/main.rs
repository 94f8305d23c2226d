//! Compares ways to fill a column on identical copies of a table.

mod comparison;
mod forecast;
mod instant;
mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::report::count;
use bench::standby::{self, Feedback};
use bench::strategy::{Contestant, Strategy};
use clap::{Parser, ValueEnum};
use testenv::{Options, Server};

use trial::Trial;

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
    /// Processes of safe_backfill; with several numbers, each is measured
    #[arg(long, value_delimiter = ',', default_value = "1")]
    workers: Vec<u32>,
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
    /// Run beside a streaming standby, with feedback or without; with both, each is measured
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FEEDBACK")]
    standby: Vec<Feedback>,
    /// How often the standby sends feedback (wal_receiver_status_interval)
    #[arg(long, default_value = "10s", value_name = "TIME")]
    feedback_interval: String,
    /// Have a report keep a snapshot for so many seconds
    #[arg(long, value_name = "SECONDS")]
    report: Option<f64>,
    /// When the report begins, in seconds after the run; at once without this
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    report_after: f64,
    /// Have another report begin when one ends, throughout the run
    #[arg(long)]
    repeat_reports: bool,
    /// Report how much the memory of the backend grows
    #[arg(long)]
    memory: bool,
    /// Compare the forecast of safe_backfill_plan with what then happens, on tables of many shapes
    #[arg(long)]
    forecast: bool,
    /// Measure method instant, on rows that were never touched since the column was added
    #[arg(long, conflicts_with = "forecast")]
    instant: bool,
    /// Another setting of the server, such as safe_backfill.max_batch_time=100ms
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    sets: Vec<(String, String)>,
    /// The server's shared_buffers
    #[arg(long, default_value = "1GB")]
    shared_buffers: String,
    /// Turn autovacuum off
    #[arg(long)]
    no_autovacuum: bool,
    /// Also write every trial to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

type Measure = fn(&Server, &Arguments, u64) -> Result<()>;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.live.is_some() && !arguments.strategies.contains(&Strategy::Idle) {
        arguments.strategies.insert(0, Strategy::Idle);
    }
    testenv::run(|| compare(&arguments))
}

impl Arguments {
    fn contestants(&self) -> Vec<Contestant> {
        Contestant::all(&self.strategies, &self.workers, &self.standby)
    }

    /// What compares no strategies.
    fn of_the_extension_alone(&self) -> Option<Measure> {
        match (self.forecast, self.instant) {
            (true, _) => Some(|server, _, rows| forecast::compare(server, rows)),
            (_, true) => Some(instant::measure),
            _ => None,
        }
    }
}

fn all_strategies() -> Vec<Strategy> {
    let all = Strategy::value_variants().iter().copied();
    all.filter(|strategy| strategy.fills()).collect()
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

fn compare(arguments: &Arguments) -> Result<()> {
    let settings = settings(arguments);
    let options = settings
        .iter()
        .fold(Options::default(), |options, (name, value)| {
            options.set(name, value)
        });
    let server = Server::start(options)?;
    if let Some(measure) = arguments.of_the_extension_alone() {
        bench::ensure_extension(&server)?;
        describe(&server, arguments, &settings)?;
        server
            .connect()?
            .batch_execute("CREATE EXTENSION pg_safe_backfill")?;
        return arguments
            .rows
            .iter()
            .try_for_each(|&rows| measure(&server, arguments, rows));
    }
    if arguments.strategies.contains(&Strategy::SafeBackfill) {
        bench::ensure_extension(&server)?;
    }
    let standby = match arguments.standby.is_empty() {
        true => None,
        false => Some(standby::start(&server, &arguments.feedback_interval)?),
    };
    describe(&server, arguments, &settings)?;
    let mut trials = Vec::new();
    for &rows in &arguments.rows {
        let measured = trial::measure_size(&server, standby.as_ref(), arguments, rows)?;
        println!("\n{} rows\n", count(rows as f64));
        print!("{}", comparison::of_strategies(&measured, arguments));
        trials.extend(measured);
    }
    if arguments.rows.len() > 1 {
        print!(
            "\nRows per second\n\n{}",
            comparison::of_sizes(&trials, arguments)
        );
    }
    if let Some(path) = &arguments.json {
        write_json(path, &trials)?;
    }
    Ok(())
}

fn settings(arguments: &Arguments) -> Vec<(&str, &str)> {
    let own = [
        ("shared_buffers", arguments.shared_buffers.as_str()),
        ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "30min"),
        // As on a busy server: it takes the writing of pages off the sessions' shoulders.
        ("bgwriter_delay", "10ms"),
        ("bgwriter_lru_maxpages", "1000"),
        ("wal_level", "replica"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        (
            "autovacuum",
            if arguments.no_autovacuum { "off" } else { "on" },
        ),
    ];
    let sets = arguments.sets.iter();
    own.into_iter()
        .chain(sets.map(|(name, value)| (name.as_str(), value.as_str())))
        .collect()
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
    if arguments.of_the_extension_alone().is_some() {
        return Ok(());
    }
    println!(
        "Rows of about {} bytes, a primary key and {} secondary indexes{column}; batches of {}; rounds: {}",
        arguments.row_width,
        arguments.indexes,
        count(arguments.batch_size as f64),
        arguments.rounds
    );
    if !arguments.standby.is_empty() {
        println!(
            "A streaming standby, wal_receiver_status_interval = {}",
            arguments.feedback_interval
        );
    }
    if let Some(time) = arguments.report {
        let (after, again) = (arguments.report_after, arguments.repeat_reports);
        let again = if again {
            ", and again whenever it ends"
        } else {
            ""
        };
        println!("A report keeps a snapshot for {time} s, {after} s after the beginning{again}");
    }
    if let Some(tps) = arguments.live {
        println!(
            "Live traffic: {tps} transactions per second on {} connections",
            arguments.clients
        );
    }
    Ok(())
}

fn write_json(path: &Path, trials: &[Trial]) -> Result<()> {
    let text = serde_json::to_string_pretty(trials)?;
    std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}
