//! Partitioned tables while other sessions change them.

use anyhow::{Result, ensure};
use client_tests::{Database, Run, only};

/// A table of two partitions; a run is in the middle of the second when this returns.
fn in_the_second(db: &Database) -> Result<Run> {
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         INSERT INTO t SELECT i, 1, NULL FROM generate_series(1, 500) i;
         INSERT INTO t SELECT i, 2, NULL FROM generate_series(501, 1500) i",
    )?;
    db.slow_down("t2")?;
    let run = db.start_after("SET test.pause = 0.001", CALL)?;
    run.wait_for_rows("t2", 100)?;
    Ok(run)
}

const CALL: &str = "CALL safe_backfill('t', 'c', 7, 100)";

fn nulls(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c IS NULL")
}

#[test]
fn rows_that_move_to_a_finished_partition_are_filled() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_second(&db)?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t1 WHERE c IS NULL")?,
        0
    );
    db.execute(
        "ALTER TABLE t2 DISABLE TRIGGER USER;
         UPDATE t SET part = 1 WHERE id > 1400;
         INSERT INTO t VALUES (2000, 1, NULL);
         ALTER TABLE t2 ENABLE TRIGGER USER",
    )?;
    run.end()?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t1")?, 601);
    Ok(())
}

#[test]
fn a_resumed_run_looks_at_finished_partitions_too() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_second(&db)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    db.execute("INSERT INTO t VALUES (2000, 1, NULL)")?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(
        db.value::<i64>("SELECT count(DISTINCT job_id) FROM safe_backfill_job")?,
        1
    );
    assert_eq!(
        db.value::<i64>("SELECT sum(rows_filled)::bigint FROM safe_backfill_job")?,
        1501
    );
    Ok(())
}

#[test]
fn rows_that_refuse_are_reported_once() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         INSERT INTO t SELECT i, 1 + i % 2, NULL FROM generate_series(1, 100) i",
    )?;
    let call = "CALL safe_backfill_using('t', 'c', 'CASE WHEN part = 2 THEN id END')";
    let notices = db.call(call)?.succeeded()?;
    let warning = only(&notices, "WARNING")?;
    ensure!(
        warning.message.starts_with("50 rows of table \"t1\""),
        "{warning}"
    );
    assert_eq!(nulls(&db)?, 50);
    Ok(())
}

#[test]
fn ends_when_the_whole_tree_is_dropped() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_second(&db)?;
    db.execute("DROP TABLE t")?;
    let error = run.end()?.failed_with("42P01")?;
    ensure!(error.message.contains("\"t\" was dropped"), "{error}");
    Ok(())
}

#[test]
fn only_one_run_fills_a_partition() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_second(&db)?;
    let error = db
        .call("CALL safe_backfill('t2', 'c', 7)")?
        .failed_with("55006")?;
    let detail = error.detail.clone().unwrap_or_default();
    ensure!(detail.contains(&run.pid.to_string()), "{error}");
    run.end()?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    Ok(())
}

#[test]
fn children_that_allow_null_are_filled_though_the_parent_does_not() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int); CREATE TABLE child () INHERITS (t);
         INSERT INTO child VALUES (1, NULL)",
    )?;
    // Since PostgreSQL 18 NOT NULL is a constraint that children inherit unless it says otherwise.
    if db.value::<i32>("SELECT current_setting('server_version_num')::int")? < 180_000 {
        db.execute("ALTER TABLE ONLY t ALTER c SET NOT NULL")?;
    } else {
        db.execute("ALTER TABLE t ADD CONSTRAINT n NOT NULL c NO INHERIT")?;
    }
    db.call("CALL safe_backfill('t', 'c', 7)")?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    Ok(())
}
