//! What `safe_backfill_plan` foresees, beside what then happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::report::{count, markdown};
use bench::shape::{self, Shape};
use postgres::{Client, IsolationLevel};
use testenv::Server;

/// A forecast may be off by this share of what happens, or of the table's and its indexes' size, if that is more.
const TOLERANCE: f64 = 0.25;
const FLOOR: f64 = 0.01;
/// So long a snapshot is old.
const OLD: Duration = Duration::from_millis(1500);

/// Foreseen or measured.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rows: f64,
    heap: f64,
    indexes: f64,
    wal: f64,
    batches: f64,
    seconds: f64,
}

struct Compared {
    shape: &'static Shape,
    bound: f64,
    size: f64,
    blocks: String,
    planning: Duration,
    forecast: Figures,
    fact: Figures,
}

/// Fills a table of each shape, and prints a table of forecast and fact.
///
/// # Errors
/// If a forecast is further off than it may be.
pub fn compare(server: &Server, rows: u64) -> Result<()> {
    let mut client = server.connect()?;
    let mut all = vec![];
    for shape in shape::ALL {
        eprintln!("{}", shape.title);
        all.push(
            measure(server, &mut client, shape, rows)
                .with_context(|| format!("\"{}\"", shape.title))?,
        );
    }
    println!(
        "\n{} rows, wide and toasted ones a quarter of that\n",
        count(rows as f64)
    );
    let header = [
        "shape",
        "blocks read",
        "rows to fill",
        "bound",
        "filled",
        "heap growth",
        "fact",
        "ratio",
        "index growth",
        "fact",
        "ratio",
        "WAL",
        "fact",
        "ratio",
        "batches",
        "fact",
        "time",
        "fact",
        "planning",
    ];
    let table: Vec<_> = all.iter().map(Compared::row).collect();
    print!("{}", markdown(&header, &table));
    println!(
        "\nRatio: forecast / fact; with * where they differ by more than {:.0} % of the fact, and by less than {:.0} % of table and indexes",
        TOLERANCE * 100.0,
        FLOOR * 100.0
    );
    let off: Vec<_> = all.iter().flat_map(Compared::off).collect();
    ensure!(
        off.is_empty(),
        "further off than they may be: {}",
        off.join("; ")
    );
    Ok(())
}

fn measure(
    server: &Server,
    client: &mut Client,
    shape: &'static Shape,
    rows: u64,
) -> Result<Compared> {
    client.batch_execute("DROP TABLE IF EXISTS t")?;
    client.batch_execute(&shape.create.replace("$rows", &rows.to_string()))?;
    for statement in shape.then {
        client.batch_execute(statement)?;
    }
    client.batch_execute("CHECKPOINT")?;
    let mut reader = server.connect()?;
    let mut snapshot = None;
    if shape.snapshot {
        let mut transaction = reader
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()?;
        transaction.query_one("SELECT count(*) FROM t", &[])?;
        snapshot = Some(transaction);
        std::thread::sleep(OLD);
    }
    let began = Instant::now();
    let (forecast, bound, blocks) = plan(client, shape)?;
    let planning = began.elapsed();
    let before = sizes(client)?;
    let began = Instant::now();
    // Its messages are of no interest here.
    client.batch_execute("SET client_min_messages = error")?;
    client.batch_execute(&format!("CALL safe_backfill('t', 'c', {})", shape.value))?;
    let seconds = began.elapsed().as_secs_f64();
    let after = sizes(client)?;
    drop(snapshot);
    let done = client.query_one(
        "SELECT sum(rows_filled)::float8, sum(batches)::float8 FROM safe_backfill_part p
         WHERE job_id = (SELECT max(job_id) FROM safe_backfill_job)",
        &[],
    )?;
    Ok(Compared {
        shape,
        bound,
        size: before.0 + before.1,
        blocks,
        planning,
        forecast,
        fact: Figures {
            rows: done.get(0),
            heap: after.0 - before.0,
            indexes: after.1 - before.1,
            wal: after.2 - before.2,
            batches: done.get(1),
            seconds,
        },
    })
}

/// Bytes of the table, of its indexes, and of all WAL so far.
fn sizes(client: &mut Client) -> Result<(f64, f64, f64)> {
    let row = client.query_one(
        "SELECT sum(pg_relation_size(oid))::float8, sum(pg_indexes_size(oid))::float8,
                (pg_current_wal_insert_lsn() - '0/0')::float8
         FROM (SELECT relid AS oid FROM pg_partition_tree('t') UNION SELECT 't'::regclass) tree",
        &[],
    )?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

/// What the plan says: figures, the bound of the rows, and how many blocks it has read.
fn plan(client: &mut Client, shape: &Shape) -> Result<(Figures, f64, String)> {
    let found = client.query(
        &format!(
            "SELECT * FROM safe_backfill_plan('t', 'c', {})",
            shape.value
        ),
        &[],
    )?;
    let finding = |topic: &str| -> Result<String> {
        let row = found.iter().find(|row| row.get::<_, String>(0) == topic);
        Ok(row.with_context(|| format!("no {topic}"))?.get(2))
    };
    let rows = finding("rows to fill")?;
    let bound = rows.split("± ").nth(1).map_or(0.0, |rest| numbers(rest)[0]);
    let blocks = rows
        .split('(')
        .nth(1)
        .unwrap_or_default()
        .split(" blocks")
        .next()
        .unwrap_or_default();
    let sizes = |topic| Ok::<_, anyhow::Error>(bytes(&finding(topic)?));
    let indexes = sizes("index size")?;
    let figures = Figures {
        rows: numbers(&rows)[0],
        heap: sizes("table size")?[0],
        indexes: indexes.first().copied().unwrap_or_default(),
        wal: sizes("WAL")?[0],
        batches: numbers(&finding("batches")?)[0],
        seconds: time(&finding("time")?),
    };
    Ok((figures, bound, blocks.to_owned()))
}

fn numbers(text: &str) -> Vec<f64> {
    let digits = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

/// The sizes in a text, such as `1.24 MB`.
fn bytes(text: &str) -> Vec<f64> {
    let words: Vec<&str> = text
        .split([' ', ',', ';', '(', ')'])
        .filter(|word| !word.is_empty())
        .collect();
    let size = |pair: &[&str]| {
        let unit = ["bytes", "kB", "MB", "GB", "TB"]
            .iter()
            .position(|unit| *unit == pair[1])?;
        let number: f64 = pair[0].parse().ok()?;
        Some(number * 1024f64.powi(unit as i32))
    };
    words.windows(2).filter_map(size).collect()
}

/// Less than a second counts as one.
fn time(text: &str) -> f64 {
    if text.starts_with("less than a second") {
        return 1.0;
    }
    let text = text.split(" with").next().unwrap_or_default();
    let found = numbers(text);
    let scale = |unit: &str| match unit {
        _ if text.contains(" h ") => [3600.0, 60.0],
        _ if text.contains(" min ") => [60.0, 1.0],
        _ => [1.0, 0.0],
    };
    found
        .iter()
        .zip(scale(text))
        .map(|(number, scale)| number * scale)
        .sum()
}

impl Compared {
    fn row(&self) -> Vec<String> {
        let (forecast, fact) = (self.forecast, self.fact);
        let seconds = |seconds: f64| format!("{seconds:.1} s");
        let mut cells = vec![
            self.shape.title.to_owned(),
            self.blocks.clone(),
            count(forecast.rows),
            count(self.bound),
            count(fact.rows),
        ];
        for (forecast, fact) in self.pairs() {
            let mark = match (
                self.is_close(forecast, fact),
                (forecast - fact).abs() <= TOLERANCE * fact,
            ) {
                (true, false) => "*",
                _ => "",
            };
            let ratio = match fact > 0.0 {
                true => format!("{:.2}{mark}", forecast / fact),
                false => format!("-{mark}"),
            };
            cells.extend([megabytes(forecast), megabytes(fact), ratio]);
        }
        cells.extend([
            count(forecast.batches),
            count(fact.batches),
            seconds(forecast.seconds),
            seconds(fact.seconds),
            format!("{} ms", self.planning.as_millis()),
        ]);
        cells
    }

    fn pairs(&self) -> [(f64, f64); 3] {
        let (forecast, fact) = (self.forecast, self.fact);
        [
            (forecast.heap, fact.heap),
            (forecast.indexes, fact.indexes),
            (forecast.wal, fact.wal),
        ]
    }

    fn is_close(&self, forecast: f64, fact: f64) -> bool {
        (forecast - fact).abs() <= (TOLERANCE * fact).max(FLOOR * self.size)
    }

    /// What is further off than it may be.
    fn off(&self) -> Vec<String> {
        let named = ["heap growth", "index growth", "WAL"]
            .iter()
            .zip(self.pairs());
        let mut off: Vec<_> = named
            .filter(|(_, (forecast, fact))| !self.is_close(*forecast, *fact))
            .map(|(name, (forecast, fact))| {
                format!(
                    "{}: {name} {} instead of {}",
                    self.shape.title,
                    megabytes(forecast),
                    megabytes(fact)
                )
            })
            .collect();
        if (self.forecast.rows - self.fact.rows).abs() > self.bound {
            off.push(format!("{}: rows", self.shape.title));
        }
        off
    }
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1024.0 / 1024.0)
}
