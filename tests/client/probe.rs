//! What an application notices of a run, beside what it would notice without one. A busy machine makes everyone slow: so
//! the same is done to a table that is left alone, at the same moment, and what that takes is allowed for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client_tests::{Database, Ended, Run};

/// The slowest of some statements varies from one moment to the next: it may be so many times as slow as its companion.
const VARIATION: u32 = 3;
/// How often a probe looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Something that goes on in the background until it is asked for its result.
pub struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Background<T> {
    pub fn start(work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        Background {
            stop,
            thread: thread::spawn(move || work(&flag)),
        }
    }

    pub fn result(self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The longest that something took beside a run, and the same on a table left alone at that time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Longest {
    pub beside: Duration,
    pub alone: Duration,
}

impl Longest {
    /// Fails if the run made it take more than `limit`.
    pub fn is_within(self, limit: Duration) -> Result<()> {
        ensure!(
            self.beside <= limit + VARIATION * self.alone,
            "{:?} beside the run, where {limit:?} are allowed; {:?} on a table left alone",
            self.beside,
            self.alone
        );
        Ok(())
    }
}

/// An application on a table, and its companion on another.
pub struct Probe {
    beside: Background<Duration>,
    alone: Background<Duration>,
}

impl Probe {
    /// Runs what `sql` makes of the name of a table, with a number up to `rows` as $1, on `table` and on `alone`.
    pub fn start(
        db: &Database,
        table: &str,
        rows: i32,
        sql: impl Fn(&str) -> String,
    ) -> Result<Self> {
        Ok(Probe {
            beside: stream(db, &sql(table), rows)?,
            alone: stream(db, &sql("alone"), rows)?,
        })
    }

    /// The slowest statement of each.
    pub fn slowest(self) -> Result<Longest> {
        let (beside, alone) = (self.beside.result(), self.alone.result());
        Ok(Longest {
            beside: beside?,
            alone: alone?,
        })
    }
}

/// One statement after the other; the slowest one.
fn stream(db: &Database, sql: &str, rows: i32) -> Result<Background<Duration>> {
    let mut client = db.connect()?;
    let statement = client.prepare(sql)?;
    Ok(Background::start(move |stop| {
        let mut slowest = Duration::ZERO;
        let mut id = 0;
        while !stop.load(Ordering::Relaxed) {
            id = (id + 7919) % rows;
            let began = Instant::now();
            client.execute(&statement, &[&id])?;
            slowest = slowest.max(began.elapsed());
            thread::sleep(PAUSE);
        }
        Ok(slowest)
    }))
}

/// Makes a copy of a table, named `alone`.
pub fn leave_alone(db: &Database, table: &str) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE alone (LIKE {table} INCLUDING ALL); INSERT INTO alone SELECT * FROM {table}"
    ))
}

/// How a CALL on `t` ended, which takes no more than `limit` beyond the same CALL on `alone`.
pub fn ended_within(
    db: &Database,
    limit: Duration,
    call: impl Fn(&str) -> String + Sync,
) -> Result<Ended> {
    thread::scope(|scope| {
        let alone = scope.spawn(|| timed(|| db.call(&call("alone"))));
        let (ended, beside) = timed(|| db.call(&call("t")))?;
        let (companion, alone) = alone.join().expect("the companion")?;
        companion.succeeded()?;
        Longest { beside, alone }.is_within(limit)?;
        Ok(ended)
    })
}

/// Cancels a run, which ends no more than `limit` later than a plain statement that is cancelled with it.
pub fn cancelled_within(db: &Database, run: Run, limit: Duration) -> Result<Ended> {
    let companion = db.start("SELECT pg_sleep(600)")?;
    db.wait_until(&format!(
        "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        companion.pid
    ))?;
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            timed(|| {
                companion.cancel()?;
                companion.end()
            })
        });
        let (ended, beside) = timed(|| {
            run.cancel()?;
            run.end()
        })?;
        let (companion, alone) = alone.join().expect("the companion")?;
        companion.failed_with("57014")?;
        Longest { beside, alone }.is_within(limit)?;
        Ok(ended)
    })
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let began = Instant::now();
    let result = work()?;
    Ok((result, began.elapsed()))
}

#[test]
fn a_probe_tells_a_table_that_is_locked_from_a_busy_machine() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")?;
    leave_alone(&db, "t")?;
    let probe = || {
        Probe::start(&db, "t", 1000, |table| {
            format!("SELECT FROM {table} WHERE id = $1")
        })
    };
    let limit = Duration::from_millis(300);
    let locked = probe()?;
    db.execute("BEGIN; LOCK TABLE t; SELECT pg_sleep(5); COMMIT")?;
    ensure!(locked.slowest()?.is_within(limit).is_err());
    let free = probe()?;
    db.execute("SELECT pg_sleep(1)")?;
    free.slowest()?.is_within(limit)
}
