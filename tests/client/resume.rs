//! Stopped anywhere, by anything, a run goes on where it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use client_tests::{Database, Options, Run, Shutdown, saying};

use crate::probe::cancelled_within;

const CALL: &str = "CALL safe_backfill('t', 'c', 1, 50)";
/// More than one window of 2048 blocks, in few rows.
const ROWS: i64 = 2500;

/// A table of a row to a block.
fn table(db: &Database) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, filler text, c int DEFAULT 0) WITH (fillfactor = 10);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 450), NULL FROM generate_series(1, {ROWS}) i;
         CREATE TABLE log (id int, place int GENERATED ALWAYS AS IDENTITY);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (NEW.id);
             PERFORM pg_sleep(nullif(current_setting('test.pause', true), '')::float8);
             RETURN NULL;
         END $$;
         CREATE TRIGGER log AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log()"
    ))?;
    let blocks: i64 = db.value("SELECT pg_relation_size('t') / 8192")?;
    ensure!((2400..2600).contains(&blocks), "{blocks} blocks");
    Ok(())
}

fn run_to_second_window(db: &Database) -> Result<Run> {
    let run = db.start_after("SET test.pause = 0.001", CALL)?;
    db.wait_until("SELECT coalesce(max(next_block), 0) > 0 FROM safe_backfill_part")?;
    Ok(run)
}

#[derive(Debug, PartialEq)]
struct Stored {
    job: i64,
    rows: i64,
    next_block: i64,
}

fn stored(db: &Database) -> Result<Stored> {
    let row = db.connect()?.query_one(
        "SELECT job_id, rows_filled, next_block FROM safe_backfill_part",
        &[],
    )?;
    Ok(Stored {
        job: row.get(0),
        rows: row.get(1),
        next_block: row.get(2),
    })
}

/// What must hold once a run was stopped in the middle, and after the same CALL has gone on.
fn goes_on(db: &Database) -> Result<()> {
    let before = stored(db)?;
    ensure!(
        before.next_block >= 1000 && before.rows < ROWS,
        "{before:?}"
    );
    // Nothing that was committed is lost. What the job does not know of yet was filled since the last window or second.
    let filled: i64 = db.value("SELECT count(*) FROM t WHERE c = 1")?;
    ensure!(
        filled >= before.rows && filled < ROWS,
        "{filled} of {before:?}"
    );
    let beyond: i64 = db.value(&format!(
        "SELECT count(*) FROM t WHERE c = 1 AND (ctid::text::point)[0] >= {} + 2048",
        before.next_block
    ))?;
    assert_eq!(beyond, 0, "the position lies behind by more than a window");
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "interrupted"
    );
    // A row of a block that is done: if the second run began at block 0, it would be filled first.
    db.execute(
        "TRUNCATE log; ALTER TABLE t DISABLE TRIGGER log; UPDATE t SET c = NULL WHERE id = 1",
    )?;
    db.execute("ALTER TABLE t ENABLE TRIGGER log; DELETE FROM log")?;

    db.call(CALL)?.succeeded()?;

    let after = stored(db)?;
    assert_eq!(after.job, before.job);
    assert_eq!(after.rows, before.rows + ROWS + 1 - filled);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS DISTINCT FROM 1")?,
        0
    );
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "completed"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM log")?,
        ROWS + 1 - filled
    );
    assert_eq!(
        db.value::<i32>("SELECT id FROM log ORDER BY place DESC LIMIT 1")?,
        1
    );
    Ok(())
}

#[test]
fn goes_on_after_cancel() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let run = run_to_second_window(&db)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    goes_on(&db)
}

#[test]
fn a_cancelled_session_can_go_on_itself() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let run = db.start_after("SET test.pause = 0.001", CALL)?;
    run.wait_for_rows("t", 50)?;
    run.cancel()?;
    let mut ended = run.end()?;
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "interrupted"
    );
    ended.client.batch_execute("SET test.pause = 0")?;
    ended.client.batch_execute(CALL)?;
    ended.failed_with("57014")?;
    let rows = stored(&db)?.rows;
    ensure!((1..=ROWS).contains(&rows), "{rows} rows");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, ROWS);
    Ok(())
}

#[test]
fn goes_on_after_statement_timeout() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let setup = "SET test.pause = 0.001; SET statement_timeout = '700ms'";
    let ended = db.call_after(setup, CALL)?;
    ended.failed_with("57014")?;
    ensure!(db.value::<bool>("SELECT count(c) > 0 FROM t")?);
    // However long it was cut off, in the end it is done.
    while db.call_after(setup, CALL)?.failed_with("57014").is_ok() {}
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS DISTINCT FROM 1")?,
        0
    );
    let rows = stored(&db)?.rows;
    ensure!((1..=ROWS).contains(&rows), "{rows} rows");
    Ok(())
}

#[test]
fn goes_on_after_termination() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let run = run_to_second_window(&db)?;
    db.execute(&format!("SELECT pg_terminate_backend({})", run.pid))?;
    // The client does not always read the last words of a session that was terminated.
    run.end()?.failed()?;
    db.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'CALL%'")?;
    goes_on(&db)
}

#[test]
fn goes_on_after_a_kill_and_after_a_crash() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    let run = run_to_second_window(&db)?;
    let postmaster = db.server().postmaster();
    db.server().kill_backend(run.pid)?;
    run.end()?.failed()?;
    db.server().wait_until_ready()?;
    assert_eq!(db.server().postmaster(), postmaster);
    goes_on(&db)?;

    db.execute("DROP TABLE t, log; DROP FUNCTION log(); DELETE FROM safe_backfill_job; DELETE FROM safe_backfill_part")?;
    table(&db)?;
    let run = run_to_second_window(&db)?;
    db.server().stop(Shutdown::Immediate)?;
    run.end()?.failed()?;
    db.server().start_again()?;
    goes_on(&db)
}

#[test]
fn another_value_is_another_job() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t AS SELECT i AS id, NULL::int AS c FROM generate_series(1, 3000) i")?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.001",
        "CALL safe_backfill('t', 'c', 1, 50)",
    )?;
    run.wait_for_rows("t", 100)?;
    run.cancel()?;
    let error = run.end()?.failed_with("57014")?;
    assert_eq!(
        error.detail.as_deref(),
        Some("All batches before this were committed.")
    );
    let hint = error.hint.unwrap_or_default();
    ensure!(hint.contains("run the same CALL again"), "{hint}");
    let first = db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?;
    let notices = db
        .call("CALL safe_backfill('t', 'c', 2, 50)")?
        .succeeded()?;
    let other = format!("has filled {first} rows of table \"t\" with another value");
    assert_eq!(saying(&notices, &other).len(), 1, "{notices:#?}");
    let second = 3000 - first;
    assert_eq!(
        saying(&notices, &format!("filled {second} rows")).len(),
        1,
        "{notices:#?}"
    );
    assert_eq!(
        db.value::<String>("SELECT string_agg(state, ' ' ORDER BY job_id) FROM safe_backfill_job")?,
        "superseded completed"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = 2")?,
        second
    );
    Ok(())
}

#[test]
fn an_incomplete_job_is_superseded_by_one_that_looks_at_the_same_rows() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 100) i",
    )?;
    let states = || {
        db.value::<String>("SELECT string_agg(state, ' ' ORDER BY job_id) FROM safe_backfill_job")
    };
    let incomplete = "CALL safe_backfill_using('t', 'c', 'nullif(id % 10, 0)')";
    db.call(incomplete)?.succeeded()?;
    db.call("CALL safe_backfill('t', 'c', 3, filter => 'id > 95')")?
        .succeeded()?;
    assert_eq!(states()?, "incomplete completed");
    let notices = db.call("CALL safe_backfill('t', 'c', 4)")?.succeeded()?;
    assert_eq!(states()?, "superseded completed completed");
    ensure!(saying(&notices, "another value").is_empty(), "{notices:#?}");
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress ORDER BY job_id LIMIT 1")?,
        "superseded"
    );
    Ok(())
}

#[test]
fn a_cancelled_run_ends_at_once_even_while_it_waits() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t AS SELECT i AS id, NULL::int AS c FROM generate_series(1, 100) i")?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("SELECT FROM t WHERE id = 50 FOR UPDATE", &[])?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    run.wait_for_rows("t", 99)?;
    cancelled_within(&db, run, Duration::from_secs(2))?.failed_with("57014")?;
    Ok(())
}
