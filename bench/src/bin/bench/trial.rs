//! One run of a strategy on a fresh copy of the table.

use std::time::Duration;

use anyhow::{Context, Result};
use bench::contents::Contents;
use bench::copy;
use bench::figures::{Figures, Watch, hot_share};
use bench::memory::Sampler;
use bench::report::{count, seconds};
use bench::snapshots::Reports;
use bench::standby;
use bench::strategy::{Contestant, Job};
use bench::table::Table;
use bench::traffic::{Load, Tally, Traffic};
use postgres::Client;
use serde::Serialize;
use testenv::{SUPERUSER, Server};

use crate::Arguments;

const COPY: &str = "bench";
/// Traffic before a run, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_secs(3);

/// One run of a strategy.
#[derive(Debug, Serialize)]
pub struct Trial {
    pub rows: u64,
    pub round: usize,
    #[serde(flatten)]
    pub contestant: Contestant,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Measures every strategy in every round on a table of so many rows.
pub fn measure_size(
    server: &Server,
    standby: Option<&Server>,
    arguments: &Arguments,
    rows: u64,
) -> Result<Vec<Trial>> {
    eprintln!("loading {} rows", count(rows as f64));
    let table = Table {
        name: "t".into(),
        rows,
        indexes: arguments.indexes,
        row_width: arguments.row_width,
    };
    let contents = copy::load(server, |client| {
        table.load(client)?;
        table.prepare(client, arguments.index_column)?;
        for strategy in &arguments.strategies {
            strategy.prepare(client)?;
        }
        Contents::of(client, &table)
    })?;

    let mut trials = Vec::new();
    for round in 0..arguments.rounds {
        // Another one begins each round, so that none always follows the same one.
        let mut contestants = arguments.contestants();
        let first = round % contestants.len();
        contestants.rotate_left(first);
        for contestant in contestants {
            let figures = measure(server, standby, arguments, contestant, &table, &contents)
                .with_context(|| format!("\"{}\" failed", contestant.title()))?;
            eprintln!(
                "round {}: {}: {}",
                round + 1,
                contestant.title(),
                seconds(figures.seconds)
            );
            trials.push(Trial {
                rows,
                round: round + 1,
                contestant,
                figures,
            });
        }
    }
    Ok(trials)
}

fn measure(
    server: &Server,
    standby: Option<&Server>,
    arguments: &Arguments,
    contestant: Contestant,
    table: &Table,
    contents: &Contents,
) -> Result<Figures> {
    copy::make(server, COPY)?;
    if let (Some(standby), Some(feedback)) = (standby, contestant.feedback) {
        standby::set_feedback(standby, server, feedback)?;
    }
    let mut monitor = server.connect_as(SUPERUSER, COPY)?;
    let mut client = server.connect_as(SUPERUSER, COPY)?;
    let load = start_load(server, arguments, table)?;
    let sampler = start_sampler(&mut client, arguments)?;

    let watch = Watch::start(&mut monitor, &table.name)?;
    let job = Job {
        table: &table.name,
        batch_size: arguments.batch_size,
        workers: contestant.workers,
    };
    let strategy = contestant.strategy;
    let reports = start_reports(server, arguments, table)?;
    strategy.run(&mut client, job)?;
    let watched = watch.stop(&mut monitor, &table.name)?;
    reports.map(Reports::stop).transpose()?;

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
    if strategy.fills() {
        contents.verify(&mut monitor, table, &written)?;
    } else {
        contents.verify_writes(&mut monitor, table, &written)?;
    }
    copy::remove(server, COPY)?;
    Ok(figures)
}

fn start_load(server: &Server, arguments: &Arguments, table: &Table) -> Result<Option<Load>> {
    let Some(tps) = arguments.live else {
        return Ok(None);
    };
    let traffic = Traffic {
        tps,
        clients: arguments.clients,
        writes_column: true,
    };
    let load = traffic.start(server, COPY, table)?;
    std::thread::sleep(WARM_UP);
    Ok(Some(load))
}

/// Where the report begins at once, its snapshot is older than the run.
fn start_reports(server: &Server, arguments: &Arguments, table: &Table) -> Result<Option<Reports>> {
    let Some(time) = arguments.report else {
        return Ok(None);
    };
    let mut client = server.connect_as(SUPERUSER, COPY)?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let (delay, time) = (
        Duration::from_secs_f64(arguments.report_after),
        Duration::from_secs_f64(time),
    );
    let reports = Reports::start(client, &table.name, delay, time, arguments.repeat_reports);
    if delay.is_zero() {
        let mut client = server.connect()?;
        testenv::wait_for("the report to have its snapshot", || {
            const SNAPSHOT: &str = "
                SELECT count(*) > 0 FROM pg_stat_activity
                WHERE pid = $1 AND backend_xmin IS NOT NULL AND xact_start IS NOT NULL";
            Ok(client.query_one(SNAPSHOT, &[&pid])?.get(0))
        })?;
    }
    Ok(Some(reports))
}

fn start_sampler(client: &mut Client, arguments: &Arguments) -> Result<Option<Sampler>> {
    if !arguments.memory {
        return Ok(None);
    }
    let backend = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    Ok(Some(Sampler::start(backend)?))
}
