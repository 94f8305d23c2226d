//! Rows and tables that the application holds: it never notices, and the run ends.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use client_tests::{Database, saying};

use crate::probe::{ended_within, leave_alone};

/// A run gives up on rows that are held throughout within about half a minute, beyond what it takes without them.
const GIVES_UP: Duration = Duration::from_secs(35);

fn table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, c int DEFAULT 0);
         INSERT INTO t SELECT i, 0, NULL FROM generate_series(1, {rows}) i"
    ))
}

fn fill_c(table: &str) -> String {
    format!("CALL safe_backfill('{table}', 'c', 1)")
}

/// The application holds the rows that `lock` locks for as long as it takes.
fn gives_up_on(lock: &str, held: i64) -> Result<()> {
    let db = Database::new()?;
    table(&db, 5000)?;
    let mut application = db.connect()?;
    let holder: i32 = application
        .query_one("SELECT pg_backend_pid()", &[])?
        .get(0);
    let mut holding = application.transaction()?;
    holding.execute(lock, &[])?;
    leave_alone(&db, "t")?;

    let error = ended_within(&db, GIVES_UP, fill_c)?.failed_with("55P03")?;
    let detail = error.detail.clone().unwrap_or_default();
    ensure!(
        detail.contains(&holder.to_string()),
        "holder {holder} is not named: {error}"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        held
    );

    holding.execute("UPDATE t SET n = 1 WHERE id = 2500", &[])?;
    holding.commit()?;
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS DISTINCT FROM 1")?,
        0
    );
    assert_eq!(db.value::<i32>("SELECT n FROM t WHERE id = 2500")?, 1);
    assert_eq!(
        db.value::<String>(
            "SELECT format('%s jobs, %s rows', count(*), sum(rows_filled)) FROM safe_backfill_part
             WHERE table_name::text = 't'"
        )?,
        "1 jobs, 5000 rows"
    );
    Ok(())
}

#[test]
fn gives_up_on_a_row_locked_throughout_and_fills_it_the_next_time() -> Result<()> {
    gives_up_on("SELECT FROM t WHERE id = 2500 FOR UPDATE", 1)
}

#[test]
fn gives_up_on_a_row_updated_in_an_open_transaction() -> Result<()> {
    gives_up_on("UPDATE t SET n = 7 WHERE id = 2500", 1)
}

#[test]
fn gives_up_in_time_on_many_locked_rows() -> Result<()> {
    gives_up_on(
        "SELECT FROM t WHERE id BETWEEN 2000 AND 2999 FOR SHARE",
        1000,
    )
}

#[test]
fn waits_for_a_row_that_is_locked_for_a_second() -> Result<()> {
    let db = Database::new()?;
    table(&db, 5000)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("SELECT FROM t WHERE id = 77 FOR UPDATE", &[])?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    thread::sleep(Duration::from_secs(1));
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    Ok(())
}

#[test]
fn fills_rows_that_foreign_keys_hold() -> Result<()> {
    let db = Database::new()?;
    table(&db, 3000)?;
    db.execute("CREATE TABLE child (t int REFERENCES t)")?;
    let mut one = db.connect()?;
    let mut two = db.connect()?;
    // Some rows are held by one transaction, some by two, whose locks PostgreSQL stores in another way.
    let mut one = one.transaction()?;
    let mut two = two.transaction()?;
    one.execute("INSERT INTO child SELECT generate_series(1, 2000)", &[])?;
    two.execute("INSERT INTO child SELECT generate_series(1001, 3000)", &[])?;
    // Had it waited for them, it would have given up: they are held until it is done.
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    one.commit()?;
    two.commit()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM child JOIN t ON id = child.t")?,
        4000
    );
    Ok(())
}

/// Foreign keys hold the key of a row, and here the column is part of one.
#[test]
fn gives_up_on_rows_that_foreign_keys_hold_if_the_column_is_part_of_a_key() -> Result<()> {
    let db = Database::new()?;
    table(&db, 3000)?;
    db.execute(
        "CREATE TABLE child (t int REFERENCES t);
         CREATE UNIQUE INDEX ON t (id, c)",
    )?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("INSERT INTO child SELECT generate_series(1, 1000)", &[])?;
    leave_alone(&db, "t")?;
    ended_within(&db, GIVES_UP, fill_c)?.failed_with("55P03")?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 2000);
    holding.commit()?;
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 3000);
    Ok(())
}

/// A value that refers to a row of another table, which the application holds; `deferrable` is how.
fn waits_for_referenced_row(deferrable: &str) -> Result<()> {
    let db = Database::new()?;
    table(&db, 2000)?;
    db.execute(&format!(
        "CREATE TABLE parent (id int PRIMARY KEY, n int);
         INSERT INTO parent VALUES (1, 0);
         ALTER TABLE t ADD parent int REFERENCES parent {deferrable}"
    ))?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("SELECT FROM parent FOR UPDATE", &[])?;
    let run = db.start("CALL safe_backfill('t', 'parent', 1)")?;
    thread::sleep(Duration::from_millis(1500));
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE parent IS NULL")?,
        0
    );
    Ok(())
}

#[test]
fn waits_for_a_referenced_row_that_is_held() -> Result<()> {
    waits_for_referenced_row("")
}

#[test]
fn waits_for_a_referenced_row_that_is_held_even_if_checked_at_commit() -> Result<()> {
    waits_for_referenced_row("DEFERRABLE INITIALLY DEFERRED")
}

#[test]
fn gives_up_on_a_referenced_row_that_is_held_throughout() -> Result<()> {
    let db = Database::new()?;
    table(&db, 2000)?;
    db.execute(
        "CREATE TABLE parent (id int PRIMARY KEY);
         INSERT INTO parent VALUES (1);
         ALTER TABLE t ADD parent int REFERENCES parent",
    )?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("SELECT FROM parent FOR UPDATE", &[])?;
    leave_alone(&db, "t")?;
    ended_within(&db, GIVES_UP, |table| {
        format!("CALL safe_backfill('{table}', 'parent', 1)")
    })?
    .failed_with("55P03")?;
    Ok(())
}

#[test]
fn a_locked_table_is_waited_for() -> Result<()> {
    let db = Database::new()?;
    table(&db, 2000)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("LOCK TABLE t IN SHARE MODE", &[])?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    thread::sleep(Duration::from_millis(1500));
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn a_table_that_is_locked_during_a_run_is_shown_and_the_run_heeds_its_orders() -> Result<()> {
    let db = Database::new()?;
    table(&db, 3000)?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.001",
        "CALL safe_backfill('t', 'c', 1, 100)",
    )?;
    run.wait_for_rows("t", 1)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("LOCK TABLE t IN SHARE MODE", &[])?;
    db.wait_until(
        "SELECT state = 'waiting' AND waits_for LIKE 'a lock on table \"t\", held by process %' AND waits_since < now()
         FROM safe_backfill_progress",
    )?;
    ensure!(db.value::<bool>("SELECT safe_backfill_cancel(job_id) FROM safe_backfill_progress")?);
    run.end()?.failed_with("57014")?;
    holding.commit()?;
    Ok(())
}

#[test]
fn whose_row_locks_a_run_waits_for_is_shown() -> Result<()> {
    let db = Database::new()?;
    table(&db, 2000)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    let pid: i32 = holding.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    holding.execute("SELECT FROM t WHERE id = 7 FOR UPDATE", &[])?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    db.wait_until(&format!(
        "SELECT state = 'waiting' AND time_left IS NULL
                AND waits_for LIKE 'locks on 1 row of table \"t\", held by process {pid} %' FROM safe_backfill_progress"
    ))?;
    holding.commit()?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn only_one_run_fills_a_column() -> Result<()> {
    let db = Database::new()?;
    table(&db, 3000)?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.001",
        "CALL safe_backfill('t', 'c', 1, 100)",
    )?;
    run.wait_for_rows("t", 1)?;
    let error = db
        .call("CALL safe_backfill('t', 'c', 2)")?
        .failed_with("55006")?;
    ensure!(!run.has_ended(), "it failed only when the other had ended");
    let detail = error.detail.clone().unwrap_or_default();
    ensure!(
        detail.contains(&run.pid.to_string()),
        "{} is not named: {error}",
        run.pid
    );
    let job: i64 = db.value("SELECT job_id FROM safe_backfill_job")?;
    ensure!(detail.contains(&format!("works on job {job}.")), "{error}");
    let hint = error.hint.unwrap_or_default();
    ensure!(
        hint.contains(&format!("SELECT safe_backfill_cancel({job});")),
        "{hint}"
    );
    run.end()?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 3000);
    assert_eq!(
        db.value::<i64>("SELECT count(DISTINCT job_id) FROM safe_backfill_job")?,
        1
    );
    // The lock goes with the run.
    db.call("CALL safe_backfill('t', 'c', 2)")?.succeeded()?;
    Ok(())
}

#[test]
fn two_columns_are_filled_at_the_same_time() -> Result<()> {
    let db = Database::new()?;
    table(&db, 20000)?;
    db.execute("ALTER TABLE t ADD d int")?;
    let one = db.start("CALL safe_backfill('t', 'c', 1, 500)")?;
    let two = db.start("CALL safe_backfill('t', 'd', 2, 500)")?;
    let one = one.end()?.succeeded()?;
    let two = two.end()?.succeeded()?;
    assert_eq!(saying(&one, "filled 20000 rows").len(), 1, "{one:#?}");
    assert_eq!(saying(&two, "filled 20000 rows").len(), 1, "{two:#?}");
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = 1 AND d = 2")?,
        20000
    );
    Ok(())
}

#[test]
fn gives_up_on_rows_that_a_prepared_transaction_holds_and_names_it() -> Result<()> {
    const GID: &str = "two phases of locks.rs";
    let db = Database::new()?;
    table(&db, 5000)?;
    db.execute(&format!(
        "BEGIN; SELECT FROM t WHERE id = 2500 FOR UPDATE; PREPARE TRANSACTION '{GID}'"
    ))?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    let ended = run.end();
    db.execute(&format!("ROLLBACK PREPARED '{GID}'"))?;
    let error = ended?.failed_with("55P03")?;
    let detail = error.detail.clone().unwrap_or_default();
    ensure!(
        detail.contains(&format!("prepared transaction \"{GID}\"")),
        "{error}"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        1
    );
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    Ok(())
}
