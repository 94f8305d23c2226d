//! What the application notices of a DDL statement: nothing, or one lock timeout.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, PATIENCE, saying};

use crate::probe::{Background, Longest, Probe, cancelled_within, leave_alone};

/// No strong lock may be held for longer.
const SHORT: Duration = Duration::from_millis(100);
/// What a run may add to an application's statement besides a lock timeout.
const STATEMENT: Duration = Duration::from_millis(300);
const SHORT_TIMEOUT: &str = "SET safe_backfill.lock_timeout = '200ms'";
const TIMEOUT: Duration = Duration::from_millis(200);

/// The longest that anyone was seen to hold, and to wait for, an ACCESS EXCLUSIVE lock on a table.
#[derive(Debug, Default)]
struct Seen {
    held: Duration,
    waited: Duration,
    looks: u32,
}

/// Looks at `pg_locks` again and again.
fn watch_locks(db: &Database, table: &str) -> Result<Background<Seen>> {
    let mut client = db.connect()?;
    let statement = client.prepare(&format!(
        "SELECT pid, granted FROM pg_locks
         WHERE relation = to_regclass('{table}') AND mode = 'AccessExclusiveLock' AND pid IS NOT NULL
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ))?;
    Ok(Background::start(move |stop| {
        let mut seen = Seen::default();
        let mut since: HashMap<(i32, bool), Instant> = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            let rows = client.query(&statement, &[])?;
            let now = Instant::now();
            let locks: Vec<(i32, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            since.retain(|lock, _| locks.contains(lock));
            for lock in locks {
                let span = now - *since.entry(lock).or_insert(now);
                let longest = if lock.1 {
                    &mut seen.held
                } else {
                    &mut seen.waited
                };
                *longest = span.max(*longest);
            }
            seen.looks += 1;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(seen)
    }))
}

/// DDL that takes no time, again and again, on the table that is left alone.
fn trivial_ddl(db: &Database) -> Result<Background<()>> {
    let mut client = db.connect()?;
    Ok(Background::start(move |stop| {
        while !stop.load(Ordering::Relaxed) {
            client.batch_execute("ALTER TABLE alone SET (fillfactor = 100)")?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }))
}

#[test]
fn three_steps_on_a_big_table_and_nobody_waits() -> Result<()> {
    const ROWS: i32 = 2_000_000;
    let db = Database::alone(Options::default().set("autovacuum", "off"))?;
    db.execute(&format!(
        "CREATE TABLE t (id int, n int DEFAULT 0, filler text);
         INSERT INTO t SELECT i, 0, repeat('x', 200) FROM generate_series(1, {ROWS}) i;
         ALTER TABLE t ADD PRIMARY KEY (id);
         CREATE TABLE alone (LIKE t INCLUDING ALL);
         INSERT INTO alone SELECT * FROM t WHERE id <= 100000"
    ))?;
    db.execute("VACUUM ANALYZE")?;
    let (watch, watch_alone) = (watch_locks(&db, "t")?, watch_locks(&db, "alone")?);
    let ddl = trivial_ddl(&db)?;
    let reads = Probe::start(&db, "t", ROWS, |table| {
        format!("SELECT FROM {table} WHERE id = $1")
    })?;
    let writes = Probe::start(&db, "t", ROWS, |table| {
        format!("UPDATE {table} SET n = n + 1 WHERE id = $1")
    })?;
    db.call_after(
        SHORT_TIMEOUT,
        "CALL safe_add_column('t', 'c', 'varchar(20)')",
    )?
    .succeeded()?;
    db.execute("ALTER TABLE t ALTER c SET DEFAULT 'active'")?;
    db.call("CALL safe_backfill('t', 'c', 'active')")?
        .succeeded()?;
    let notices = db
        .call_after(SHORT_TIMEOUT, "CALL safe_set_not_null('t', 'c')")?
        .succeeded()?;
    let (seen, alone) = (watch.result()?, watch_alone.result()?);
    ddl.result()?;
    let (read, written) = (reads.slowest()?, writes.slowest()?);
    assert_eq!(
        saying(&notices, "validating column \"c\" of table \"t\"").len(),
        1
    );
    ensure!(seen.looks > 100, "looked {} times only", seen.looks);
    Longest {
        beside: seen.held,
        alone: alone.held,
    }
    .is_within(SHORT)
    .context("held")?;
    Longest {
        beside: seen.waited,
        alone: alone.waited,
    }
    .is_within(TIMEOUT + SHORT)
    .context("waited for")?;
    read.is_within(TIMEOUT + STATEMENT).context("a read")?;
    written.is_within(TIMEOUT + STATEMENT).context("a write")?;

    // The same eyes see what plain SET NOT NULL does.
    db.execute("ALTER TABLE t ALTER c DROP NOT NULL")?;
    let watch = watch_locks(&db, "t")?;
    db.execute("ALTER TABLE t ALTER c SET NOT NULL")?;
    let seen = watch.result()?;
    ensure!(seen.held > SHORT, "{seen:?}");
    Ok(())
}

fn small(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i",
    )
}

const CALLS: [&str; 2] = [
    "CALL safe_add_column('t', 'd', 'int')",
    "CALL safe_set_not_null('t', 'c')",
];

#[test]
fn nobody_queues_for_longer_than_one_lock_timeout() -> Result<()> {
    for call in CALLS {
        let db = Database::new()?;
        small(&db)?;
        let mut holder = db.connect()?;
        let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let mut holding = holder.transaction()?;
        holding.execute("SELECT FROM t", &[])?;
        leave_alone(&db, "t")?;
        let reads = Probe::start(&db, "t", 1000, |table| {
            format!("SELECT FROM {table} WHERE id = $1")
        })?;
        let run = db.start_after(SHORT_TIMEOUT, call)?;
        db.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid))",
            run.pid
        ))
        .context("no reader ever met the queue")?;
        let mut retries = vec![];
        while retries.len() < 4 {
            retries.push(run.notices.wait(PATIENCE).context("no further retry")?);
        }
        holding.commit()?;
        run.end()?.succeeded()?;
        reads
            .slowest()?
            .is_within(TIMEOUT + STATEMENT)
            .context("a read")?;
        for (number, retry) in retries.iter().enumerate() {
            let expected = format!("within 200 ms, retry {} of 30", number + 1);
            ensure!(retry.message.contains(&expected), "{retry}");
            let detail = retry.detail.clone().unwrap_or_default();
            ensure!(
                detail.contains(&format!("process {pid} ")) && detail.contains("SELECT FROM t"),
                "{detail}"
            );
        }
    }
    Ok(())
}

#[test]
fn gives_up_on_a_holder_that_never_goes_and_names_it() -> Result<()> {
    for call in CALLS {
        let db = Database::new()?;
        small(&db)?;
        let before = "SELECT format('%s %s', (SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass),
                      (SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass))";
        let untouched: String = db.value(before)?;
        let mut holder = db.connect()?;
        let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let mut holding = holder.transaction()?;
        holding.execute("SELECT FROM t", &[])?;
        let setup = format!("{SHORT_TIMEOUT}; SET safe_backfill.lock_retry_limit = 2");
        let ended = db.call_after(&setup, call)?;
        assert_eq!(saying(&ended.notices, "retry").len(), 2);
        let error = ended.failed_with("55P03")?;
        let detail = error.detail.unwrap_or_default();
        ensure!(detail.contains("in 3 attempts"), "{detail}");
        ensure!(detail.contains(&format!("process {pid} ")), "{detail}");
        assert_eq!(db.value::<String>(before)?, untouched);
    }
    Ok(())
}

#[test]
fn a_prepared_transaction_is_named_too() -> Result<()> {
    let db = Database::new()?;
    small(&db)?;
    let name = db.name().to_owned();
    db.execute(&format!(
        "BEGIN; UPDATE t SET c = 0 WHERE id = 1; PREPARE TRANSACTION '{name}'"
    ))?;
    let setup = format!("{SHORT_TIMEOUT}; SET safe_backfill.lock_retry_limit = 0");
    let error = db.call_after(&setup, CALLS[0])?.failed_with("55P03")?;
    db.execute(&format!("ROLLBACK PREPARED '{name}'"))?;
    let detail = error.detail.unwrap_or_default();
    ensure!(
        detail.contains(&format!("prepared transaction \"{name}\"")),
        "{detail}"
    );
    Ok(())
}

#[test]
fn cancelled_while_it_waits_it_ends_at_once() -> Result<()> {
    let db = Database::new()?;
    small(&db)?;
    let mut holder = db.connect()?;
    let mut holding = holder.transaction()?;
    holding.execute("SELECT FROM t", &[])?;
    // Once within the queue, and once in the pause after it.
    for (timeout, event) in [("60s", "relation"), ("20ms", "Extension")] {
        let setup = format!("SET safe_backfill.lock_timeout = '{timeout}'");
        let run = db.start_after(&setup, CALLS[0])?;
        db.wait_until(&format!(
            "SELECT wait_event = '{event}' FROM pg_stat_activity WHERE pid = {}",
            run.pid
        ))?;
        cancelled_within(&db, run, Duration::from_secs(2))?.failed_with("57014")?;
    }
    Ok(())
}

/// It waits for one table while it holds nothing, so that no circle of waits can close.
#[test]
fn the_application_wins_a_deadlock() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         INSERT INTO t SELECT i, i FROM generate_series(0, 9) i",
    )?;
    let mut application = db.connect()?;
    let mut working = application.transaction()?;
    working.execute("UPDATE t1 SET c = 1 WHERE id = 1", &[])?;
    // The run needs t and t1; the application, which has t1, asks for t.
    let run = db.start_after("SET safe_backfill.lock_timeout = '5s'", CALLS[0])?;
    db.wait_until(&format!(
        "SELECT wait_event = 'relation' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    working.execute("SELECT FROM t", &[])?;
    working.commit()?;
    run.end()?.succeeded()?;
    Ok(())
}

/// Autovacuum leaves a table to whoever has waited for `deadlock_timeout`: longer than an attempt takes.
#[test]
fn autovacuum_gives_way() -> Result<()> {
    let db = Database::alone(
        Options::default()
            .set("autovacuum_naptime", "1s")
            .set("deadlock_timeout", "10s"),
    )?;
    db.execute(
        "CREATE TABLE t (id int, c int) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
             autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
         INSERT INTO t SELECT i, i FROM generate_series(1, 100000) i;
         DELETE FROM t WHERE id % 2 = 0",
    )?;
    db.wait_until("SELECT count(*) > 0 FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass")?;
    let notices = db
        .call_after("SET safe_backfill.lock_retry_limit = 1", CALLS[0])?
        .succeeded()?;
    ensure!(notices.is_empty(), "{notices:#?}");
    Ok(())
}

/// Even to look at a table can mean to wait for it.
#[test]
fn a_table_that_is_locked_exclusively_is_not_waited_for_without_end() -> Result<()> {
    let db = Database::new()?;
    small(&db)?;
    let mut holder = db.connect()?;
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let mut holding = holder.transaction()?;
    holding.execute("LOCK TABLE t", &[])?;
    for call in CALLS {
        let setup = format!("{SHORT_TIMEOUT}; SET safe_backfill.lock_retry_limit = 1");
        let error = db.call_after(&setup, call)?.failed_with("55P03")?;
        ensure!(
            error
                .detail
                .as_deref()
                .unwrap_or("")
                .contains("in 2 attempts"),
            "{error:?}"
        );
        let detail = error.detail.unwrap_or_default();
        ensure!(detail.contains(&format!("process {pid} ")), "{detail}");
    }
    Ok(())
}

/// A reader of one partition does not make those of the others wait.
#[test]
fn only_the_busy_table_of_a_tree_is_waited_for() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         INSERT INTO t SELECT i, i FROM generate_series(0, 19) i",
    )?;
    let mut holder = db.connect()?;
    let mut holding = holder.transaction()?;
    holding.execute("SELECT FROM t2", &[])?;
    leave_alone(&db, "t1")?;
    let reads = Probe::start(&db, "t1", 10, |table| {
        format!("SELECT FROM {table} WHERE id = $1")
    })?;
    let (watch, watch_alone) = (watch_locks(&db, "t")?, watch_locks(&db, "alone")?);
    let ddl = trivial_ddl(&db)?;
    let run = db.start_after("SET safe_backfill.lock_timeout = '800ms'", CALLS[0])?;
    for _ in 0..2 {
        run.notices.wait(PATIENCE).context("no further retry")?;
    }
    holding.commit()?;
    run.end()?.succeeded()?;
    let (seen, alone) = (watch.result()?, watch_alone.result()?);
    ddl.result()?;
    Longest {
        beside: seen.held,
        alone: alone.held,
    }
    .is_within(SHORT)
    .context("held")?;
    reads.slowest()?.is_within(STATEMENT).context("a read")?;
    Ok(())
}
