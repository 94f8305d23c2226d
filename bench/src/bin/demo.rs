//! Shows a risky migration of a big, busy table and two safe ones, side by side.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bench::chart::{self, Story};
use bench::console::Console;
use bench::contents::Contents;
use bench::copy;
use bench::figures::{Figures, Watch, Watched, hot_share};
use bench::latency::Latency;
use bench::migration::Migration;
use bench::report::{count, growth, markdown, megabytes, milliseconds, seconds, share};
use bench::table::{COLUMN, Table};
use bench::traffic::{Log, Traffic};
use clap::Parser;
use testenv::{Options, SUPERUSER, Server};

const SMALL_ROWS: u64 = 10;
/// Traffic before anything is measured, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_secs(3);
/// Traffic without a migration, to compare with; once, as it is the same before each of them.
const QUIET: Duration = Duration::from_secs(5);
/// What the picture shows before the migration, and how finely.
const BEFORE: Duration = Duration::from_secs(3);
const STRETCH: Duration = Duration::from_millis(100);

/// Shows a risky migration of a big, busy table and two safe ones, side by side.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows of the large table
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Transactions per second of the application
    #[arg(long, default_value_t = 400)]
    tps: u32,
    /// Connections of the application
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Where the picture goes, as demo.svg and demo.png
    #[arg(long, value_name = "DIRECTORY", default_value = "target/demo")]
    picture: PathBuf,
}

/// What a migration did to the server and to its application.
struct Outcome {
    quiet: Latency,
    figures: Figures,
    latency: Latency,
    story: Story,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    testenv::run(|| show(&arguments))
}

fn show(arguments: &Arguments) -> Result<()> {
    let server = Server::start(
        Options::default()
            .set("fsync", "on")
            .set("shared_buffers", "1GB")
            .set("max_wal_size", "8GB")
            .set("checkpoint_timeout", "30min"),
    )?;
    let version: String = server
        .connect()?
        .query_one("SHOW server_version", &[])?
        .get(0);
    println!("A private PostgreSQL {version}.");
    bench::ensure_extension(&server)?;
    let large = table("large_user", arguments.rows);
    let small = table("small_user", SMALL_ROWS);
    load(&server, &large, &small)?;

    let mut outcomes = Vec::new();
    for migration in [Migration::Risky, Migration::Safe, Migration::Instant] {
        println!("\n== The {} way ==\n", migration.title());
        let quiet = if outcomes.is_empty() { QUIET } else { BEFORE };
        let outcome = migrate(&server, arguments, migration, quiet, &large, &small)
            .with_context(|| format!("the {} way failed", migration.title()))?;
        outcomes.push(outcome);
    }
    println!(
        "\n== Side by side: {} rows ==\n",
        count(arguments.rows as f64)
    );
    print!("{}", compare(&outcomes));
    let title = format!(
        "The slowest of {1} requests per second, while a column of {0} rows is filled",
        count(arguments.rows as f64),
        arguments.tps
    );
    let stories: Vec<_> = outcomes.into_iter().map(|outcome| outcome.story).collect();
    chart::draw(&arguments.picture, "demo", &title, &stories)?;
    println!(
        "\nThe picture of it: {}",
        arguments.picture.join("demo.svg").display()
    );
    Ok(())
}

fn table(name: &str, rows: u64) -> Table {
    Table {
        name: name.into(),
        rows,
        indexes: 3,
        row_width: 100,
    }
}

fn load(server: &Server, large: &Table, small: &Table) -> Result<()> {
    println!(
        "Loading {} with {} rows and {} with {}; all migrations start from a copy.",
        large.name,
        count(large.rows as f64),
        small.name,
        small.rows
    );
    copy::load(server, |client| {
        for table in [large, small] {
            table.load(client)?;
        }
        client.batch_execute("VACUUM ANALYZE")?;
        Ok(())
    })
}

fn migrate(
    server: &Server,
    arguments: &Arguments,
    migration: Migration,
    quiet: Duration,
    large: &Table,
    small: &Table,
) -> Result<Outcome> {
    let database = migration.title();
    copy::make(server, database)?;
    let mut monitor = server.connect_as(SUPERUSER, database)?;
    let contents = Contents::of(&mut monitor, large)?;
    let mut console = Console::open(server, database)?;
    console.show(&format!("\\d {}", large.name))?;
    migration.prepare(&mut console, large.rows)?;

    println!(
        "\nThe application starts: {} transactions per second on {} connections,\n\
         70 % read a row, 20 % update one, 10 % insert one. First {} s without a migration.\n",
        arguments.tps,
        arguments.clients,
        quiet.as_secs()
    );
    let traffic = Traffic {
        tps: arguments.tps,
        clients: arguments.clients,
        // The application can't know the column before the migration adds it.
        writes_column: false,
    };
    let load = traffic.start(server, database, large)?;
    std::thread::sleep(WARM_UP);
    let warm = SystemTime::now();
    std::thread::sleep(quiet);

    let watch = Watch::start(&mut monitor, &large.name)?;
    migration.run(&mut console, &large.name)?;
    let watched = watch.stop(&mut monitor, &large.name)?;
    println!("\n{} is migrated; now {}:\n", large.name, small.name);
    migration.run(&mut console, &small.name)?;
    console.close()?;

    let log = load.settle_and_stop(watched.from, watched.to)?;
    log.ensure_complete()?;
    let mut figures = watched.figures.clone();
    figures.hot_share = hot_share(&mut monitor, &large.name)?;

    println!("\nThe application has ended; the proof:\n");
    contents.verify(&mut monitor, large, &log.tally())?;
    prove(server, database, large, small)?;
    println!(
        "Every write of the application is there: {} rows inserted, {} updates.",
        count(log.tally().rows as f64),
        count(log.tally().amount as f64)
    );
    monitor.close()?;
    copy::remove(server, database)?;
    let story = tell(migration, &log, &watched);
    Ok(Outcome {
        story,
        quiet: log.latency(warm, watched.from),
        latency: log.latency(watched.from, watched.to),
        figures,
    })
}

/// What the picture shows: the requests that were sent from some time before the migration until its end.
fn tell(migration: Migration, log: &Log, watched: &Watched) -> Story {
    let zero = watched.from;
    Story {
        name: migration.description().into(),
        elapsed: watched.figures.seconds,
        latency: log.longest(zero, (zero - BEFORE, watched.to), STRETCH),
    }
}

fn prove(server: &Server, database: &str, large: &Table, small: &Table) -> Result<()> {
    let console = Console::open(server, database)?;
    let counts = [large, small].map(|table| {
        let name = &table.name;
        format!("SELECT '{name}' AS table, count(*) AS rows, count(*) FILTER (WHERE {COLUMN} IS NULL) AS nulls FROM {name}")
    });
    console.show(&counts.join("\nUNION ALL "))?;
    console.show(&format!(
        "SELECT attrelid::regclass AS table, attname, attnotnull FROM pg_attribute\n\
         WHERE attname = '{COLUMN}' AND attrelid IN ('{}'::regclass, '{}'::regclass)",
        large.name, small.name
    ))
}

/// The outcomes of the risky, the safe and the instant way.
fn compare(outcomes: &[Outcome]) -> String {
    let latency_row = |title: &str, value: fn(&Latency) -> String| {
        let before = outcomes.first().map(|outcome| value(&outcome.quiet));
        let during = outcomes.iter().map(|outcome| value(&outcome.latency));
        [Some(title.into()), before]
            .into_iter()
            .flatten()
            .chain(during)
            .collect()
    };
    let cost_row = |title: &str, value: fn(&Figures) -> String| {
        let costs = outcomes.iter().map(|outcome| value(&outcome.figures));
        [title.into(), "-".into()]
            .into_iter()
            .chain(costs)
            .collect()
    };
    markdown(
        &["", "no migration", "risky way", "safe way", "instant way"],
        &[
            cost_row("elapsed", |figures| seconds(figures.seconds)),
            latency_row("application: longest statement", |latency| {
                milliseconds(latency.longest_statement)
            }),
            latency_row("application: longest wait, queueing included", |latency| {
                milliseconds(latency.max)
            }),
            latency_row("application: p99", |latency| milliseconds(latency.p99)),
            latency_row("application: p50", |latency| milliseconds(latency.p50)),
            latency_row("application: transactions", |latency| {
                count(latency.transactions as f64)
            }),
            latency_row("application: failed", |latency| latency.failed.to_string()),
            cost_row("heap growth", |figures| growth(figures.heap_growth)),
            cost_row("index growth", |figures| growth(figures.index_growth)),
            cost_row("WAL", |figures| megabytes(figures.wal_bytes)),
            cost_row("HOT updates", |figures| share(figures.hot_share)),
        ],
    )
}
