//! Locks on tables that the application takes in the other order than a run: it is never the victim of the deadlock.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Run, saying};

fn waits(run: &Run) -> String {
    format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {} AND NOT granted)",
        run.pid
    )
}

/// The application locks `first`, and `second` after the run has waited for longer than `deadlock_timeout`: nobody but
/// the application would then find the deadlock.
fn crossed(db: &Database, first: &str, call: &str, second: &str) -> Result<()> {
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.batch_execute(first)?;
    let run = db.start(call)?;
    db.wait_until(&waits(&run))?;
    thread::sleep(Duration::from_millis(1500));
    holding
        .batch_execute(second)
        .context("the application's second lock")?;
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    Ok(())
}

/// Not analyzed by autovacuum, with whom the application could meet a deadlock as well.
const TABLES: &str = "CREATE TABLE other (id int, v text) WITH (autovacuum_enabled = off);
     INSERT INTO other VALUES (1, 'x');
     CREATE TABLE t (id int, c text) WITH (autovacuum_enabled = off);
     INSERT INTO t SELECT 1 FROM generate_series(1, 100)";

#[test]
fn the_application_wins_when_the_expression_reads_another_table() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLES)?;
    crossed(
        &db,
        "LOCK TABLE other IN ACCESS EXCLUSIVE MODE",
        "CALL safe_backfill_using('t', 'c', '(SELECT v FROM other o WHERE o.id = t.id)')",
        "LOCK TABLE t IN ACCESS EXCLUSIVE MODE",
    )
}

#[test]
fn the_application_wins_when_a_check_reads_another_table() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLES)?;
    db.execute(
        "CREATE FUNCTION known(text) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN RETURN $1 IS NULL OR EXISTS (SELECT FROM other o WHERE o.v = $1); END $$;
         ALTER TABLE t ADD CHECK (known(c))",
    )?;
    crossed(
        &db,
        "LOCK TABLE t IN ACCESS EXCLUSIVE MODE",
        "CALL safe_backfill('t', 'c', 'x')",
        "LOCK TABLE other IN ACCESS EXCLUSIVE MODE",
    )
}

#[test]
fn the_application_wins_when_it_locks_partitions_in_another_order() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c text) PARTITION BY LIST (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1) WITH (autovacuum_enabled = off);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2) WITH (autovacuum_enabled = off);
         INSERT INTO t VALUES (1), (2);
         CREATE TABLE another (id int, c text) PARTITION BY LIST (c)",
    )?;
    crossed(
        &db,
        "LOCK TABLE t2 IN ACCESS EXCLUSIVE MODE",
        "CALL safe_backfill('t', 'c', 'x')",
        "LOCK TABLE t1 IN ACCESS EXCLUSIVE MODE",
    )
}

#[test]
fn the_application_wins_when_it_holds_an_index() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLES)?;
    db.execute("CREATE INDEX t_id ON t (id)")?;
    crossed(
        &db,
        "ALTER INDEX t_id SET TABLESPACE pg_default",
        "CALL safe_backfill('t', 'c', 'x')",
        "ALTER TABLE t ALTER c SET DEFAULT 'x'",
    )
}

#[test]
fn a_run_whose_filter_meets_a_lock_ends_and_says_so() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLES)?;
    db.execute("INSERT INTO t SELECT 1 FROM generate_series(1, 3000)")?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.001",
        "CALL safe_backfill('t', 'c', 'x', 100, filter => 'EXISTS (SELECT FROM other o WHERE o.id = t.id)')",
    )?;
    run.wait_for_rows("t", 100)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.batch_execute("LOCK TABLE other IN ACCESS EXCLUSIVE MODE")?;
    let error = run.end()?.failed_with("55P03")?;
    assert_eq!(
        error.message,
        "could not fill some rows of table \"t\" because locks were not available"
    );
    holding.commit()?;
    Ok(())
}

#[test]
fn a_run_says_who_keeps_it_from_the_table() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLES)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.batch_execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")?;
    let run = db.start("CALL safe_backfill('t', 'c', 'x')")?;
    thread::sleep(Duration::from_millis(2500));
    holding.commit()?;
    let notices = run.end()?.succeeded()?;
    let waits = saying(&notices, "could not lock table \"t\"");
    let named = waits.first().and_then(|notice| notice.detail.as_deref());
    ensure!(
        named.is_some_and(|detail| detail.starts_with("Locks are held by process")),
        "{notices:?}"
    );
    Ok(())
}

#[test]
fn an_error_of_a_trigger_that_looks_like_a_lock_is_told() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLES)?;
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'busy elsewhere' USING ERRCODE = '55P03'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()",
    )?;
    let error = db
        .call("CALL safe_backfill('t', 'c', 'x')")?
        .failed_with("55P03")?;
    assert_eq!(
        error.detail.as_deref(),
        Some("The last error was: busy elsewhere.  All batches before this were committed.")
    );
    Ok(())
}
