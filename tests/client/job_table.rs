//! The table of the jobs, while others lock, move or drop it.

use anyhow::{Result, ensure};
use client_tests::{Database, Run};
use std::thread;
use std::time::{Duration, Instant};

const ROWS: i64 = 1200;

fn table(db: &Database) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i"
    ))?;
    db.slow_down("t")
}

/// A run in the middle of table `t`; `schema` is where the extension is.
fn in_the_middle(db: &Database, setup: &str, schema: &str) -> Result<Run> {
    table(db)?;
    let run = db.start_after(
        &format!("SET test.pause = 0.002; {setup}"),
        &format!("CALL {schema}.safe_backfill('t', 'c', 7, 50)"),
    )?;
    db.wait_until("SELECT count(c) >= 200 FROM t")?;
    ensure!(
        !run.has_ended(),
        "the CALL has ended before it could be looked at"
    );
    Ok(run)
}

/// Waits until a query is true, which it must be before the CALL ends.
fn wait_until(db: &Database, run: &Run, query: &str) -> Result<()> {
    db.wait_until(&format!(
        "SELECT ({query}) OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND state = 'active')",
        run.pid
    ))?;
    ensure!(
        db.value::<bool>(query)?,
        "the CALL has ended before: {query}"
    );
    Ok(())
}

fn filled(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c = 7")
}

fn all_filled(db: &Database) -> Result<()> {
    assert_eq!(filled(db)?, ROWS);
    Ok(())
}

/// The rows of the only job, wherever its table is.
fn recorded(db: &Database, schema: &str) -> Result<i64> {
    db.value(&format!(
        "SELECT rows_filled FROM {schema}.safe_backfill_part"
    ))
}

#[test]
fn filling_goes_on_while_the_jobs_are_locked() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db, "", "public")?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute("LOCK TABLE safe_backfill_job IN ACCESS EXCLUSIVE MODE")?;
    let before = filled(&db)?;
    let further = format!("SELECT count(*) >= {before} + 300 FROM t WHERE c = 7");
    wait_until(&db, &run, &further)?;
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    all_filled(&db)?;
    // What was done meanwhile counts.
    assert_eq!(recorded(&db, "public")?, ROWS);
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "completed"
    );
    Ok(())
}

/// The application must not wait for rows that were filled while the run waits for the lock on the jobs.
#[test]
fn no_row_is_locked_while_the_run_waits_for_the_jobs() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db, "", "public")?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute("LOCK TABLE safe_backfill_job IN ACCESS EXCLUSIVE MODE")?;
    let all = format!("SELECT count(*) = {ROWS} FROM t WHERE c = 7");
    wait_until(&db, &run, &all)?;
    let mut application = db.connect()?;
    application.batch_execute("SET lock_timeout = '10s'; LOCK TABLE t IN SHARE MODE")?;
    application.batch_execute("UPDATE t SET c = c")?;
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(recorded(&db, "public")?, ROWS);
    Ok(())
}

const IMPATIENT: &str =
    "SET safe_backfill.lock_timeout = '200ms'; SET safe_backfill.lock_retry_limit = 3";

/// The error of a run that never gets the lock on the jobs.
fn gives_up(run: Run) -> Result<()> {
    let error = run.end()?.failed_with("55P03")?;
    ensure!(error.message.contains("\"safe_backfill_job\""), "{error}");
    Ok(())
}

#[test]
fn ends_when_the_jobs_stay_locked() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db, IMPATIENT, "public")?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute("LOCK TABLE safe_backfill_job IN ACCESS EXCLUSIVE MODE")?;
    gives_up(run)?;
    let kept = filled(&db)?;
    ensure!(kept >= 200, "{kept} rows are filled");
    holding.commit()?;
    // The next CALL takes the job up.
    db.call("CALL safe_backfill('t', 'c', 7, 50)")?
        .succeeded()?;
    all_filled(&db)?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        1
    );
    Ok(())
}

#[test]
fn ends_when_the_jobs_are_locked_at_the_start() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute("LOCK TABLE safe_backfill_job IN ACCESS EXCLUSIVE MODE")?;
    gives_up(db.start_after(IMPATIENT, "CALL safe_backfill('t', 'c', 7)")?)?;
    assert_eq!(filled(&db)?, 0);
    holding.commit()?;
    db.call("CALL safe_backfill('t', 'c', 7)")?.succeeded()?;
    all_filled(&db)
}

#[test]
fn waits_for_jobs_that_are_locked_for_a_second_at_the_start() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute("LOCK TABLE safe_backfill_job IN ACCESS EXCLUSIVE MODE")?;
    // A setting of the session's own is for the statements of the application.
    let run = db.start_after(
        "SET lock_timeout = '1ms'",
        "CALL safe_backfill('t', 'c', 7)",
    )?;
    thread::sleep(Duration::from_secs(1));
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    all_filled(&db)
}

#[test]
fn the_extension_is_not_dropped_while_a_job_runs() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db, "", "public")?;
    let refused = db.execute("SET lock_timeout = '100ms'; DROP EXTENSION pg_safe_backfill CASCADE");
    let refused = refused.expect_err("dropped while a job runs");
    ensure!(
        format!("{refused:?}").contains("lock timeout"),
        "{refused:?}"
    );
    ensure!(!run.has_ended());
    run.end()?.succeeded()?;
    all_filled(&db)?;
    db.execute("SET lock_timeout = '10s'; DROP EXTENSION pg_safe_backfill")
}

#[test]
fn dropping_the_extension_waits_for_a_job_and_lets_no_other_begin() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE other (c int); INSERT INTO other VALUES (NULL)")?;
    let run = in_the_middle(&db, "", "public")?;
    let drop = db.start("DROP EXTENSION pg_safe_backfill")?;
    db.wait_until(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE classid = 'pg_extension'::regclass AND NOT granted)",
    )?;
    let error = db
        .call("CALL safe_backfill('other', 'c', 1)")?
        .failed_with("55P03")?;
    ensure!(error.message.contains("dropping"), "{error}");
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    drop.end()?.succeeded()?;
    let kept = filled(&db)?;
    ensure!((200..=ROWS).contains(&kept), "{kept} rows are filled");
    db.execute("CREATE EXTENSION pg_safe_backfill")?;
    db.call("CALL safe_backfill('t', 'c', 7)")?.succeeded()?;
    all_filled(&db)
}

/// What the catalogs have of the extension and of what it made: nothing but the table and its rows.
#[test]
fn dropping_the_extension_leaves_nothing() -> Result<()> {
    const OBJECTS: &str = "
        SELECT coalesce(string_agg(o.class || ' ' || o.name, ', ' ORDER BY 1), '') FROM (
            SELECT 'relation' AS class, relname::text AS name FROM pg_class
            UNION ALL SELECT 'routine', proname FROM pg_proc
            UNION ALL SELECT 'type', typname FROM pg_type
            UNION ALL SELECT 'constraint', conname FROM pg_constraint
            UNION ALL SELECT 'trigger', tgname FROM pg_trigger
            UNION ALL SELECT 'policy', polname FROM pg_policy
            UNION ALL SELECT 'event trigger', evtname FROM pg_event_trigger
            UNION ALL SELECT 'privileges', defaclobjtype::text FROM pg_default_acl
            UNION ALL SELECT 'role', rolname FROM pg_roles) o
        WHERE (o.class, o.name) NOT IN (SELECT b.class, b.name FROM before b)";
    let db = Database::new()?;
    db.execute(&format!(
        "DROP EXTENSION pg_safe_backfill;
         CREATE TABLE before (class text, name text);
         CREATE TABLE t (id int PRIMARY KEY);
         INSERT INTO t SELECT generate_series(1, {ROWS})"
    ))?;
    let before = OBJECTS.replace(
        "coalesce(string_agg(o.class || ' ' || o.name, ', ' ORDER BY 1), '')",
        "o.class, o.name",
    );
    db.execute(&format!("INSERT INTO before {before}"))?;
    db.execute("CREATE EXTENSION pg_safe_backfill")?;
    ensure!(db.value::<String>(OBJECTS)?.contains("safe_backfill"));
    for call in [
        "CALL safe_add_column('t', 'c', 'int')",
        "CALL safe_backfill('t', 'c', 7, 100)",
        "CALL safe_set_not_null('t', 'c')",
    ] {
        db.call(call)?.succeeded()?;
    }
    db.execute("DROP EXTENSION pg_safe_backfill")?;
    let left: String = db.value(OBJECTS)?;
    // From 18 on, NOT NULL is a constraint with a name.
    ensure!(
        ["", "constraint t_c_not_null"].contains(&left.as_str()),
        "left: {left}"
    );
    all_filled(&db)
}

/// A run in the middle, with the extension in schema `ext`, survives `change`, after which the jobs are in `schema`.
fn survives(change: &str, schema: &str) -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "DROP EXTENSION pg_safe_backfill;
         CREATE SCHEMA ext;
         CREATE EXTENSION pg_safe_backfill SCHEMA ext",
    )?;
    let run = in_the_middle(&db, "", "ext")?;
    db.execute(change)?;
    ensure!(!run.has_ended());
    run.end()?.succeeded()?;
    all_filled(&db)?;
    assert_eq!(recorded(&db, schema)?, ROWS);
    Ok(())
}

#[test]
fn goes_on_when_the_schema_of_the_extension_is_renamed() -> Result<()> {
    survives("ALTER SCHEMA ext RENAME TO \"Other\"", "\"Other\"")
}

#[test]
fn goes_on_when_the_jobs_are_moved_to_another_schema() -> Result<()> {
    survives(
        "CREATE SCHEMA other; ALTER TABLE ext.safe_backfill_job SET SCHEMA other;
         ALTER TABLE ext.safe_backfill_part SET SCHEMA other",
        "other",
    )
}

/// Another session locks `table` for a second, while the lock_timeout of the session that runs is one millisecond.
fn waits_whatever_lock_timeout_says(table: &str) -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db, "SET lock_timeout = '1ms'", "public")?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) && !run.has_ended() {
        thread::sleep(Duration::from_millis(10));
    }
    holding.commit()?;
    run.end()?.succeeded()?;
    all_filled(&db)
}

#[test]
fn the_lock_timeout_of_the_session_does_not_end_a_run_that_waits_for_the_table() -> Result<()> {
    waits_whatever_lock_timeout_says("t")
}

#[test]
fn the_lock_timeout_of_the_session_does_not_end_a_run_that_waits_for_the_jobs() -> Result<()> {
    waits_whatever_lock_timeout_says("safe_backfill_job")
}

#[test]
fn the_lock_timeout_of_the_session_does_not_end_a_run_at_the_start() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut other = db.connect()?;
    let mut holding = other.transaction()?;
    holding.batch_execute("LOCK TABLE t IN SHARE MODE")?;
    let run = db.start_after(
        "SET lock_timeout = '1ms'",
        "CALL safe_backfill('t', 'c', 7)",
    )?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) && !run.has_ended() {
        thread::sleep(Duration::from_millis(10));
    }
    holding.commit()?;
    run.end()?.succeeded()?;
    all_filled(&db)
}
