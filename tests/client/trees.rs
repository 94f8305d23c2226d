//! Partitioned tables while other sessions change them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use client_tests::{Database, Notice, PATIENCE, Run, only};

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
        db.value::<i64>("SELECT sum(rows_filled)::bigint FROM safe_backfill_part")?,
        1501
    );
    Ok(())
}

#[test]
fn a_finished_partition_stays_finished_when_a_run_of_several_processes_ends_later() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         INSERT INTO t SELECT i, 1 + i % 2, NULL FROM generate_series(1, 1000) i",
    )?;
    let call = "CALL safe_backfill('t', 'c', 7, 100, workers => 2)";
    let state = "SELECT state FROM safe_backfill_part WHERE table_name = 't1'::regclass";
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("SELECT FROM t2 WHERE id = 1 FOR UPDATE", &[])?;
    let run = db.start(call)?;
    db.wait_until(&format!("SELECT ({state}) = 'completed'"))?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    holding.commit()?;
    assert_eq!(db.value::<String>(state)?, "completed");
    db.execute("INSERT INTO t VALUES (2000, 1, NULL)")?;
    db.call(call)?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
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

/// The first notice in which `text` is, which must come before the run ends.
fn wait_for_notice(run: &Run, text: &str) -> Result<Notice> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match run.notices.wait(Duration::from_millis(20)) {
            Some(notice) if notice.to_string().contains(text) => return Ok(notice),
            None if run.has_ended() => bail!("the CALL has ended without saying: {text}"),
            _ => {}
        }
    }
    bail!("gave up waiting for a notice that says: {text}")
}

/// A run on partition `busy` of three goes on, because it waits for a row of another session's, until the run on the
/// whole table has filled the others and waits for the first.
fn waits_for_the_run_on(busy: &str) -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3);
         INSERT INTO t SELECT i, 1 + i % 3, NULL FROM generate_series(1, 3000) i",
    )?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.batch_execute(&format!(
        "SELECT FROM {busy} ORDER BY id LIMIT 1 FOR UPDATE"
    ))?;
    let part = db.start(&format!("CALL safe_backfill('{busy}', 'c', 7)"))?;
    part.wait_for_rows(busy, 999)?;
    let whole = db.start(CALL)?;
    wait_for_notice(&whole, &part.pid.to_string())?;
    // Of 3000 rows only the one that is held is left: the others did not have to wait.
    db.wait_until("SELECT count(*) = 1 FROM t WHERE c IS NULL")?;
    ensure!(!whole.has_ended() && !part.has_ended());
    holding.commit()?;
    part.end()?.succeeded()?;
    whole.end()?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(
        db.value::<String>("SELECT string_agg(DISTINCT state, ' ') FROM safe_backfill_job")?,
        "completed"
    );
    Ok(())
}

#[test]
fn a_partition_that_another_run_fills_is_waited_for_last() -> Result<()> {
    waits_for_the_run_on("t1")
}

#[test]
fn the_last_partition_is_waited_for_if_another_run_fills_it() -> Result<()> {
    waits_for_the_run_on("t3")
}

#[test]
fn a_cancelled_run_on_a_partition_leaves_the_rest_to_the_run_on_the_table() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         INSERT INTO t SELECT i, 1, NULL FROM generate_series(1, 1000) i",
    )?;
    db.slow_down("t1")?;
    let part = db.start_after(
        "SET test.pause = 0.01",
        "CALL safe_backfill('t1', 'c', 7, 10)",
    )?;
    part.wait_for_rows("t1", 50)?;
    let whole = db.start(CALL)?;
    wait_for_notice(&whole, &part.pid.to_string())?;
    part.cancel()?;
    part.end()?.failed_with("57014")?;
    whole.end()?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    Ok(())
}

#[test]
fn a_run_that_waits_for_another_can_be_cancelled() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         INSERT INTO t SELECT i, 1, NULL FROM generate_series(1, 500) i",
    )?;
    db.slow_down("t1")?;
    let part = db.start_after(
        "SET test.pause = 0.01",
        "CALL safe_backfill('t1', 'c', 7, 10)",
    )?;
    part.wait_for_rows("t1", 1)?;
    let whole = db.start(CALL)?;
    wait_for_notice(&whole, &part.pid.to_string())?;
    whole.cancel()?;
    whole.end()?.failed_with("57014")?;
    part.end()?.succeeded()?;
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

#[test]
fn a_partition_that_was_detached_is_left_alone() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         INSERT INTO t SELECT i, 1, NULL FROM generate_series(1, 1500) i;
         INSERT INTO t SELECT i, 2, NULL FROM generate_series(1, 10) i",
    )?;
    db.slow_down("t1")?;
    let run = db.start_after("SET test.pause = 0.001", CALL)?;
    run.wait_for_rows("t1", 100)?;
    db.execute("ALTER TABLE t DETACH PARTITION t2")?;
    run.end()?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t2 WHERE c IS NULL")?,
        10
    );
    Ok(())
}
