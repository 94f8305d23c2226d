//! What a run says while it goes on, and the settings that steer it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, PATIENCE, SUPERUSER, failure};

use crate::probe::{Probe, leave_alone};

fn slow_table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, filler text, c int DEFAULT 0) WITH (fillfactor = 10);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 450), NULL FROM generate_series(1, {rows}) i"
    ))?;
    db.slow_down("t")
}

#[test]
fn lines_with_percent_rate_and_time_left_come_while_it_runs() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 2000)?;
    let setup = "SET test.pause = 0.001; SET safe_backfill.progress_interval = '300ms'";
    let run = db.start_after(setup, "CALL safe_backfill('t', 'c', 1, 100)")?;
    let mut lines = vec![];
    while let Some(notice) = run.notices.wait(PATIENCE) {
        if notice.message.contains("% done") {
            ensure!(!run.has_ended(), "it came when all was over: {notice}");
            lines.push(notice.message);
        } else if notice.message.contains("filled 2000 rows of") {
            break;
        }
    }
    run.end()?.succeeded()?;
    ensure!(lines.len() >= 3, "{lines:#?}");
    for line in &lines {
        // The last look at the table has no rate, and is told where it takes long enough.
        let has_rate = line.contains("rows/s") || line.contains("verifying");
        ensure!(
            line.contains("rows filled") && has_rate && line.contains("left"),
            "{line}"
        );
    }
    let percent = |line: &String| -> Result<f64> {
        let number = line
            .split(": ")
            .nth(1)
            .and_then(|rest| rest.split('%').next());
        Ok(number.context("a number")?.parse()?)
    };
    let percents: Vec<f64> = lines.iter().map(percent).collect::<Result<_>>()?;
    ensure!(
        percents.is_sorted() && percents.iter().all(|p| (0.0..=100.0).contains(p)),
        "{percents:?}"
    );
    ensure!(percents.last() > percents.first(), "{percents:?}");
    Ok(())
}

#[test]
fn the_view_tells_running_from_interrupted_and_completed() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 3000)?;
    let call = "CALL safe_backfill('t', 'c', 1, 100)";
    let seen = || -> Result<(String, Option<i32>, f64, i64)> {
        let query = "SELECT state, pid, percent::float8, rows_filled FROM safe_backfill_progress";
        let row = db.connect()?.query_one(query, &[])?;
        Ok((row.get(0), row.get(1), row.get(2), row.get(3)))
    };
    let run = db.start_after("SET test.pause = 0.001", call)?;
    db.wait_until("SELECT percent > 0 FROM safe_backfill_progress")?;
    let (state, pid, percent, rows) = seen()?;
    assert_eq!((state.as_str(), pid), ("filling", Some(run.pid)));
    ensure!(percent > 0.0 && percent < 100.0, "{percent}");
    assert!(db.value::<bool>(
        "SELECT time_left >= '0' AND rows_per_second BETWEEN 1 AND 2000 AND started_at < updated_at
             FROM safe_backfill_progress"
    )?);
    run.cancel()?;
    let ended = run.end()?;
    let (state, pid, _, interrupted_rows) = seen()?;
    assert_eq!((state.as_str(), pid), ("interrupted", None));
    ensure!((rows..3000).contains(&interrupted_rows));
    drop(ended);
    db.call(call)?.succeeded()?;
    let (state, pid, percent, rows) = seen()?;
    assert_eq!(
        (state.as_str(), pid, percent, rows),
        ("completed", None, 100.0, 3000)
    );
    Ok(())
}

#[test]
fn steps_that_wait_are_shown_as_long_as_they_do() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
    )?;
    for (command, call) in [
        ("safe_add_column", "CALL safe_add_column('t', 'd', 'int')"),
        ("safe_set_not_null", "CALL safe_set_not_null('t', 'c')"),
    ] {
        let mut application = db.connect()?;
        let mut reading = application.transaction()?;
        reading.execute("LOCK TABLE t IN ACCESS SHARE MODE", &[])?;
        let run = db.start_after("SET safe_backfill.lock_timeout = '50ms'", call)?;
        db.wait_until(&format!(
            "SELECT count(*) = 1 FROM safe_backfill_progress
             WHERE command = '{command}' AND state = 'waiting' AND pid = {} AND waits_since < now()
             AND job_id IS NULL AND waits_for LIKE 'a lock on table \"t\", held by process %'",
            run.pid
        ))?;
        reading.commit()?;
        run.end()?.succeeded()?;
        assert_eq!(
            db.value::<i64>("SELECT count(*) FROM safe_backfill_step")?,
            0
        );
    }
    Ok(())
}

#[test]
fn a_step_that_validates_is_shown_as_long_as_it_does() -> Result<()> {
    let db = Database::new()?;
    // Many pages, and few rows to be inserted.
    db.execute(
        "CREATE UNLOGGED TABLE t (c int, filler text) WITH (fillfactor = 10);
         INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 800000) i",
    )?;
    let run = db.start("CALL safe_set_not_null('t', 'c')")?;
    db.wait_until(&format!(
        "SELECT count(*) = 1 FROM safe_backfill_progress
         WHERE command = 'safe_set_not_null' AND state = 'validating' AND pid = {} AND waits_for IS NULL",
        run.pid
    ))?;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_progress")?,
        0
    );
    Ok(())
}

#[test]
fn a_step_that_has_ended_in_whatever_way_is_not_shown() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t (id int)")?;
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("LOCK TABLE t IN ACCESS SHARE MODE", &[])?;
    // Within a block of code, nothing can be stored once an error has come.
    let mut client = db.connect()?;
    client
        .batch_execute("SET safe_backfill.lock_timeout = '50ms'; SET statement_timeout = '1s'")?;
    let call = "DO $$ BEGIN CALL safe_add_column('t', 'd', 'int'); END $$";
    failure(
        client.batch_execute(call).expect_err("it is locked"),
        "57014",
    )?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_step")?,
        1
    );
    let shown = client.query_one("SELECT count(*) FROM safe_backfill_progress", &[])?;
    assert_eq!(shown.get::<_, i64>(0), 0);
    drop(client);
    let run = db.start_after(
        "SET safe_backfill.lock_timeout = '50ms'",
        "CALL safe_add_column('t', 'e', 'int')",
    )?;
    db.wait_until("SELECT bool_and(column_name = 'e') FROM safe_backfill_step")?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_step")?,
        0
    );
    Ok(())
}

#[test]
fn settings_are_listed_with_unit_and_limits_and_typos_are_errors() -> Result<()> {
    let db = Database::new()?;
    let mut client = db.connect()?;
    client.batch_execute("LOAD 'pg_safe_backfill'")?;
    let settings = client.query(
        "SELECT name, unit, min_val::bigint >= 0 AND max_val::bigint > setting::bigint, short_desc <> ''
         FROM pg_settings WHERE name LIKE 'safe\\_backfill.%' AND vartype = 'integer'",
        &[],
    )?;
    ensure!(settings.len() >= 11);
    for setting in &settings {
        let name: &str = setting.get(0);
        let unit = match name.trim_start_matches("safe_backfill.") {
            "lock_retry_limit" => None,
            "max_wal_rate" => Some("kB"),
            "max_slot_lag" | "max_archive_lag" | "max_pg_wal_size" => Some("MB"),
            _ => Some("ms"),
        };
        assert_eq!(setting.get::<_, Option<&str>>(1), unit, "{name}");
        ensure!(setting.get(2) && setting.get(3), "{name}");
    }
    for (statement, code) in [
        ("SET safe_backfill.typo = 1", "42602"),
        ("SET safe_backfill.max_batch_time = 0", "22023"),
        ("SET safe_backfill.max_batch_time = 'soon'", "22023"),
        ("SET safe_backfill.row_lock_timeout = -1", "22023"),
    ] {
        failure(client.batch_execute(statement).expect_err(statement), code)?;
    }
    client.batch_execute(
        "SET safe_backfill.max_batch_time = '2s'; SET safe_backfill.progress_interval = '1min'",
    )?;
    Ok(())
}

#[test]
fn a_running_call_follows_the_configuration() -> Result<()> {
    // Far apart, since a row takes longer than its pause on a busy machine.
    let db = Database::alone(Options::default().set("safe_backfill.max_batch_time", "250ms"))?;
    slow_table(&db, 8000)?;
    let run = db.start_after("SET test.pause = 0.001", "CALL safe_backfill('t', 'c', 1)")?;
    run.wait_for_rows("t", 300)?;
    let rows_per_batch = |wait: &str| -> Result<f64> {
        let mut client = db.connect()?;
        let query = "SELECT rows_filled, batches FROM safe_backfill_part";
        let before = client.query_one(query, &[])?;
        db.wait_until(&format!(
            "SELECT rows_filled > {} + 500 FROM safe_backfill_part{wait}",
            before.get::<_, i64>(0)
        ))?;
        let after = client.query_one(query, &[])?;
        let grown = |column| (after.get::<_, i64>(column) - before.get::<_, i64>(column)) as f64;
        Ok(grown(0) / grown(1))
    };
    let before = rows_per_batch("")?;
    db.execute("ALTER SYSTEM SET safe_backfill.max_batch_time = '5ms'")
        .or_else(|_| {
            // The name is known once the library is loaded.
            let mut client = db.connect()?;
            client.batch_execute("LOAD 'pg_safe_backfill'")?;
            client.batch_execute("ALTER SYSTEM SET safe_backfill.max_batch_time = '5ms'")?;
            anyhow::Ok(())
        })?;
    db.execute("SELECT pg_reload_conf()")?;
    // What is counted from here on was filled afterwards: it is stored once in a second.
    db.wait_until("SELECT pg_sleep(1.5) IS NOT NULL")?;
    let after = rows_per_batch("")?;
    ensure!(!run.has_ended());
    ensure!(
        after < before / 2.0,
        "{before} rows a batch before, {after} afterwards"
    );
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn a_batch_ends_in_time_however_large_it_may_be() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 2000)?;
    leave_alone(&db, "t")?;
    let run = db.start_after(
        "SET test.pause = 0.002",
        "CALL safe_backfill('t', 'c', 1, 1000000)",
    )?;
    let writes = Probe::start(&db, "t", 2000, |table| {
        format!("UPDATE {table} SET filler = filler WHERE id = $1")
    })?;
    run.end()?.succeeded()?;
    writes.slowest()?.is_within(Duration::from_millis(900))?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    Ok(())
}

#[test]
fn memory_does_not_grow_with_the_number_of_batches() -> Result<()> {
    fn memory(pid: i32) -> Result<i64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("RssAnon:"))
            .context("RssAnon")?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .context("a number")?
            .parse()?)
    }
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c text DEFAULT 'x');
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 800000) i",
    )?;
    let run = db.start("CALL safe_backfill_using('t', 'c', 'repeat(''x'', 20)', 20)")?;
    run.wait_for_rows("t", 20000)?;
    let before = memory(run.pid)?;
    db.wait_until("SELECT rows_filled > 400000 FROM safe_backfill_part")?;
    let after = memory(run.pid)?;
    run.end()?.succeeded()?;
    let batches: i64 = db.value("SELECT batches FROM safe_backfill_part")?;
    ensure!(batches >= 40000, "{batches} batches");
    ensure!(after - before < 2048, "from {before} kB to {after} kB");
    Ok(())
}

#[test]
fn no_message_shows_the_inside_of_rust() -> Result<()> {
    let db = Database::alone(Options::default().env("RUST_BACKTRACE", "full"))?;
    db.execute("CREATE TABLE t (id int, c int); INSERT INTO t VALUES (0)")?;
    let mut client = db.server().connect_as(SUPERUSER, db.name())?;
    for call in [
        "safe_backfill('t', 'missing', 1)",
        "safe_backfill('t', 'c', 'x')",
        "safe_backfill('t', 'c', NULL)",
        "safe_backfill('pg_class', 'relname', 'x')",
        "safe_backfill_using('t', 'c', '1 / id')",
        "safe_backfill_using('t', 'c', '1, 2')",
        "safe_backfill_using('t', 'c', '(((')",
    ] {
        let error = client
            .batch_execute(&format!("CALL {call}"))
            .expect_err(call);
        let text = format!(
            "{:?}",
            error.as_db_error().context("an error of the server")?
        );
        for inside in ["backtrace", "pgrx", "panick", ".rs:"] {
            // Where in the source an error was raised is a field of its own, which clients show only when asked to.
            ensure!(
                !text.replace("file: Some(\"src/", "").contains(inside),
                "{call}: {text}"
            );
        }
    }
    for inside in ["backtrace", "panicked"] {
        ensure!(!db.server().log()?.contains(inside), "the log has {inside}");
    }
    Ok(())
}
