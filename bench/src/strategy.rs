//! Ways to fill a column.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use postgres::Client;
use serde::Serialize;

use crate::standby::Feedback;
use crate::table::{COLUMN, VALUE};

/// A way to fill a column. All but [`Strategy::Update`] commit every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Nothing for ten seconds: what the application sees of a table that is left alone
    Idle,
    /// One UPDATE of the whole table: not safe, what everything is compared with
    Update,
    /// `id IN (SELECT id … IS NULL LIMIT n)` until nothing is left
    Limit,
    /// Ranges of the primary key
    KeyRanges,
    /// Ranges of blocks
    CtidRanges,
    /// `CALL safe_backfill(…)`
    SafeBackfill,
}

/// A way to fill a column, with so many processes, and beside such a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Contestant {
    /// The way.
    pub strategy: Strategy,
    /// How many processes work on it; the strategies that are no command of ours have one.
    pub workers: u32,
    /// What the standby sends, if there is one.
    pub feedback: Option<Feedback>,
}

impl Contestant {
    /// Each strategy, with each of these numbers of workers where it can have several, beside each of these standbys.
    #[must_use]
    pub fn all(strategies: &[Strategy], workers: &[u32], standbys: &[Feedback]) -> Vec<Self> {
        let standbys: Vec<_> = match standbys {
            [] => vec![None],
            standbys => standbys.iter().copied().map(Some).collect(),
        };
        let mut all = vec![];
        for &strategy in strategies {
            let workers = match strategy {
                Strategy::SafeBackfill => workers,
                _ => &[1],
            };
            for &workers in workers {
                all.extend(standbys.iter().map(|&feedback| Contestant {
                    strategy,
                    workers,
                    feedback,
                }));
            }
        }
        all
    }

    /// The name in reports.
    #[must_use]
    pub fn title(&self) -> String {
        let mut title = self.strategy.title().to_owned();
        if self.workers > 1 {
            title += &format!(", {} workers", self.workers);
        }
        if let Some(feedback) = self.feedback {
            title += &format!(", {}", feedback.title());
        }
        title
    }
}

/// The table to fill and how many rows to fill at a time.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The table's name.
    pub table: &'a str,
    /// Rows per batch.
    pub batch_size: i64,
    /// How many processes fill it, if the strategy can have several.
    pub workers: u32,
}

impl Strategy {
    /// The name in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Idle => "nothing",
            Self::Update => "one UPDATE",
            Self::Limit => "IS NULL LIMIT n",
            Self::KeyRanges => "primary key ranges",
            Self::CtidRanges => "ctid ranges",
            Self::SafeBackfill => "safe_backfill",
        }
    }

    /// Whether no NULL may be left when it is done.
    #[must_use]
    pub fn fills(self) -> bool {
        self != Self::Idle
    }

    /// Installs what the strategy needs.
    pub fn prepare(self, client: &mut Client) -> Result<()> {
        if self == Self::SafeBackfill {
            client.batch_execute("CREATE EXTENSION pg_safe_backfill")?;
        }
        Ok(())
    }

    /// Fills the column.
    pub fn run(self, client: &mut Client, job: Job) -> Result<()> {
        match self {
            Self::Idle => idle(),
            Self::Update => update(client, job),
            Self::Limit => limit(client, job),
            Self::KeyRanges => key_ranges(client, job),
            Self::CtidRanges => ctid_ranges(client, job),
            Self::SafeBackfill => safe_backfill(client, job),
        }
    }
}

fn idle() -> Result<()> {
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

fn update(client: &mut Client, job: Job) -> Result<()> {
    client.execute(&fill(job, "true"), &[])?;
    Ok(())
}

fn limit(client: &mut Client, job: Job) -> Result<()> {
    let table = job.table;
    let batch = client.prepare(&fill(
        job,
        &format!("id IN (SELECT id FROM {table} WHERE {COLUMN} IS NULL LIMIT $1)"),
    ))?;
    while client.execute(&batch, &[&job.batch_size])? > 0 {}
    Ok(())
}

fn key_ranges(client: &mut Client, job: Job) -> Result<()> {
    let query = format!("SELECT coalesce(max(id), 0) FROM {}", job.table);
    let last: i64 = client.query_one(&query, &[])?.get(0);
    let batch = client.prepare(&fill(job, "id > $1 AND id <= $1 + $2"))?;
    let mut start = 0;
    while start < last {
        client.execute(&batch, &[&start, &job.batch_size])?;
        start += job.batch_size;
    }
    Ok(())
}

fn ctid_ranges(client: &mut Client, job: Job) -> Result<()> {
    let table = job.table;
    let size = client.query_one(
        "SELECT pg_relation_size(oid) / current_setting('block_size')::bigint, reltuples::bigint
         FROM pg_class WHERE oid = $1::text::regclass",
        &[&table],
    )?;
    let (blocks, rows): (i64, i64) = (size.get(0), size.get(1));
    let step = (job.batch_size * blocks / rows.max(1)).max(1);
    let range =
        "ctid >= format('(%s,0)', $1::bigint)::tid AND ctid < format('(%s,0)', $2::bigint)::tid";
    let batch = client.prepare(&fill(job, range))?;
    let mut start = 0;
    while start < blocks {
        client.execute(&batch, &[&start, &(start + step)])?;
        start += step;
    }
    // Rows that the application has updated meanwhile may have moved behind the last range.
    limit(client, job)
}

fn safe_backfill(client: &mut Client, job: Job) -> Result<()> {
    let (table, batch_size, workers) = (job.table, job.batch_size, job.workers);
    let call = format!(
        "CALL safe_backfill('{table}', '{COLUMN}', '{VALUE}', {batch_size}, workers => {workers})"
    );
    client.batch_execute(&call)?;
    Ok(())
}

fn fill(job: Job, condition: &str) -> String {
    let table = job.table;
    format!("UPDATE {table} SET {COLUMN} = '{VALUE}' WHERE {COLUMN} IS NULL AND {condition}")
}
