//! How long method instant takes, and an application that reads the table meanwhile waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use bench::report::{count, markdown, median, milliseconds, seconds};
use bench::table::{COLUMN, Table, VALUE, add_column};
use postgres::Client;
use testenv::Server;

use crate::Arguments;

/// Between two requests of the application.
const PAUSE: Duration = Duration::from_micros(500);
/// Rows written after the column was added, which have an explicit NULL: they are left to the batches.
const WRITTEN_SINCE: u64 = 10_000;

/// One run; times in seconds.
#[derive(Debug, Clone, Copy)]
struct Figures {
    until_seen: f64,
    longest_request: f64,
    call: f64,
    set_not_null: f64,
}

/// What the application saw.
struct Seen {
    value: Instant,
    longest_request: Duration,
}

/// Fills a column that rows lack physically, `rounds` times, and prints a table.
///
/// # Errors
/// If a row has another value than the one it was to be filled with.
pub fn measure(server: &Server, arguments: &Arguments, rows: u64) -> Result<()> {
    let mut client = server.connect()?;
    let table = Table {
        name: "t".into(),
        rows,
        indexes: arguments.indexes,
        row_width: arguments.row_width,
    };
    client.batch_execute("DROP TABLE IF EXISTS t")?;
    table.load(&mut client)?;
    client.batch_execute("SET client_min_messages = error")?;
    let rounds = (0..arguments.rounds)
        .map(|_| run(server, &mut client, &table))
        .collect::<Result<Vec<_>>>()?;
    println!(
        "\n{} rows without the column, {} with an explicit NULL\n",
        count(rows as f64),
        count(WRITTEN_SINCE as f64)
    );
    print!("{}", report(&rounds));
    Ok(())
}

fn run(server: &Server, client: &mut Client, table: &Table) -> Result<Figures> {
    prepare(client, table)?;
    let done = Arc::new(AtomicBool::new(false));
    let application = start_application(server.connect()?, Arc::clone(&done))?;
    let began = Instant::now();
    let called = client.batch_execute(&format!(
        "CALL safe_backfill('t', '{COLUMN}', '{VALUE}', method => 'instant')"
    ));
    let call = began.elapsed();
    done.store(true, Ordering::Relaxed);
    let seen = application
        .join()
        .map_err(|_| anyhow!("the application panicked"))??;
    called?;
    let set_not_null = time(client, &format!("CALL safe_set_not_null('t', '{COLUMN}')"))?;
    verify(client, table)?;
    Ok(Figures {
        until_seen: (seen.value - began).as_secs_f64(),
        longest_request: seen.longest_request.as_secs_f64(),
        call: call.as_secs_f64(),
        set_not_null,
    })
}

fn prepare(client: &mut Client, table: &Table) -> Result<()> {
    client.batch_execute(&format!(
        "DELETE FROM t WHERE id > {rows};
         ALTER TABLE t DROP COLUMN IF EXISTS {COLUMN};
         {};
         INSERT INTO t (id, name, email, token, created_at, amount, note, {COLUMN})
             SELECT {rows} + i, '', '', gen_random_uuid(), now(), i, '', NULL
             FROM generate_series(1, {WRITTEN_SINCE}) AS i;",
        add_column("t"),
        rows = table.rows
    ))?;
    client.batch_execute("VACUUM ANALYZE t")?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// Reads one row again and again, until told to end.
fn start_application(
    mut client: Client,
    done: Arc<AtomicBool>,
) -> Result<JoinHandle<Result<Seen>>> {
    let read = format!("SELECT {COLUMN} IS NOT NULL FROM t WHERE id = 1");
    ensure!(
        !client.query_one(&read, &[])?.get::<_, bool>(0),
        "the row has a value"
    );
    Ok(thread::spawn(move || {
        let mut value = None;
        let mut longest_request = Duration::ZERO;
        while !done.load(Ordering::Relaxed) || value.is_none() {
            let began = Instant::now();
            let has_value: bool = client.query_one(&read, &[])?.get(0);
            longest_request = longest_request.max(began.elapsed());
            if has_value {
                value.get_or_insert_with(Instant::now);
            } else {
                ensure!(!done.load(Ordering::Relaxed), "the row has no value");
            }
            thread::sleep(PAUSE);
        }
        let value = value.ok_or_else(|| anyhow!("the row has no value"))?;
        Ok(Seen {
            value,
            longest_request,
        })
    }))
}

fn time(client: &mut Client, statement: &str) -> Result<f64> {
    let began = Instant::now();
    client.batch_execute(statement)?;
    Ok(began.elapsed().as_secs_f64())
}

fn verify(client: &mut Client, table: &Table) -> Result<()> {
    let counted = format!("SELECT count(*) FROM t WHERE {COLUMN} = '{VALUE}'");
    let filled: i64 = client.query_one(&counted, &[])?.get(0);
    ensure!(
        filled as u64 == table.rows + WRITTEN_SINCE,
        "{filled} rows have the value"
    );
    Ok(())
}

fn report(rounds: &[Figures]) -> String {
    let header = [
        "",
        "until the rows have the value",
        "longest request meanwhile",
        "the whole CALL",
        "safe_set_not_null",
    ];
    let row = |title: &str, of: &dyn Fn(fn(&Figures) -> f64) -> f64| {
        vec![
            title.to_owned(),
            milliseconds(1000.0 * of(|run| run.until_seen)),
            milliseconds(1000.0 * of(|run| run.longest_request)),
            seconds(of(|run| run.call)),
            seconds(of(|run| run.set_not_null)),
        ]
    };
    let most = |figure: fn(&Figures) -> f64| rounds.iter().map(figure).fold(0.0, f64::max);
    let middle = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
    markdown(&header, &[row("median", &middle), row("most", &most)])
}
