//! What others see of a run that waits, and what a pause changes of it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use client_tests::{Database, Options, Run, Server, saying};

/// A table whose rows take a millisecond each.
fn slow_table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, c int DEFAULT 0); INSERT INTO t SELECT i, NULL FROM generate_series(1, {rows}) i;
         CREATE TABLE hold AS SELECT false AS it"
    ))?;
    db.slow_down("t")
}

const SLOWLY: &str = "
    SET test.pause = 0.001; SET safe_backfill.max_batch_time = '10ms'; SET safe_backfill.lock_timeout = '100ms';
    SET safe_backfill.hold_while = 'SELECT it FROM hold'";
const CALL: &str = "CALL safe_backfill('t', 'c', 1, 10)";

/// A run that has filled some rows.
fn under_way(db: &Database) -> Result<Run> {
    let run = db.start_after(SLOWLY, CALL)?;
    run.wait_for_rows("t", 20)?;
    Ok(run)
}

fn steer(db: &Database, what: &str) -> Result<()> {
    db.execute(&format!(
        "SELECT safe_backfill_{what}(max(job_id)) FROM safe_backfill_job"
    ))
}

fn filled(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c IS NOT NULL")
}

fn until_it_waits_for(db: &Database, what: &str) -> Result<()> {
    db.wait_until(&format!(
        "SELECT bool_or(state = 'waiting' AND waits_for LIKE '{what}%') FROM safe_backfill_progress"
    ))
}

#[test]
fn a_paused_run_stays_so_while_nobody_can_read_the_jobs() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 1000)?;
    let run = under_way(&db)?;
    steer(&db, "pause")?;
    db.wait_until("SELECT state = 'paused' AND waits_for IS NOT NULL FROM safe_backfill_progress")?;
    let before = filled(&db)?;
    let mut locker = db.connect()?;
    let mut locking = locker.transaction()?;
    locking.execute("LOCK TABLE safe_backfill_job", &[])?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!(filled(&db)?, before);
    locking.commit()?;
    thread::sleep(Duration::from_millis(200));
    assert_eq!(filled(&db)?, before);
    steer(&db, "resume")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn a_wait_has_its_beginning_however_often_the_lock_is_asked_for() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 1000)?;
    let run = under_way(&db)?;
    let mut locker = db.connect()?;
    let mut locking = locker.transaction()?;
    locking.execute("LOCK TABLE t IN SHARE MODE", &[])?;
    until_it_waits_for(&db, "a lock on table \"t\", held by process")?;
    db.wait_until(
        "SELECT clock_timestamp() - waits_since > interval '2 seconds' FROM safe_backfill_progress",
    )?;
    locking.commit()?;
    db.wait_until("SELECT waits_for IS NULL AND waits_since IS NULL FROM safe_backfill_progress")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn a_wait_is_seen_again_after_a_pause() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 1000)?;
    let run = under_way(&db)?;
    db.execute("UPDATE hold SET it = true")?;
    until_it_waits_for(&db, "the query of")?;
    thread::sleep(Duration::from_secs(1));
    steer(&db, "pause")?;
    db.wait_until(
        "SELECT state = 'paused' AND waits_for = 'safe_backfill_resume' FROM safe_backfill_progress",
    )?;
    steer(&db, "resume")?;
    until_it_waits_for(&db, "the query of")?;
    ensure!(db.value::<bool>(
        "SELECT clock_timestamp() - waits_since > interval '1 second' FROM safe_backfill_progress"
    )?);
    db.execute("UPDATE hold SET it = false")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn what_could_not_be_told_is_told_later() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 2000)?;
    let run = under_way(&db)?;
    let mut another = db.connect()?;
    // As a session that has called a steering function and not committed yet.
    let mut open = another.transaction()?;
    open.execute("SELECT FROM safe_backfill_job FOR UPDATE", &[])?;
    db.execute("UPDATE hold SET it = true")?;
    thread::sleep(Duration::from_millis(1500));
    ensure!(db.value::<bool>("SELECT waits_for IS NULL FROM safe_backfill_progress")?);
    open.commit()?;
    until_it_waits_for(&db, "the query of")?;

    let mut open = another.transaction()?;
    open.execute("SELECT FROM safe_backfill_job FOR UPDATE", &[])?;
    let before = filled(&db)?;
    db.execute("UPDATE hold SET it = false")?;
    db.wait_until(&format!(
        "SELECT count(*) > {before} FROM t WHERE c IS NOT NULL"
    ))?;
    open.commit()?;
    db.wait_until("SELECT state = 'filling' AND waits_for IS NULL FROM safe_backfill_progress")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn the_time_of_a_pause_is_neither_work_nor_patience() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let mut application = db.connect()?;
    let mut holding = application.transaction()?;
    holding.execute("SELECT FROM t WHERE id = 300 FOR UPDATE", &[])?;
    let run = db.start_after(SLOWLY, CALL)?;
    until_it_waits_for(&db, "locks on 1 row")?;
    steer(&db, "pause")?;
    db.wait_until("SELECT state = 'paused' FROM safe_backfill_progress")?;
    // Longer than a run waits for rows.
    thread::sleep(Duration::from_secs(17));
    steer(&db, "resume")?;
    until_it_waits_for(&db, "locks on 1 row")?;
    thread::sleep(Duration::from_secs(1));
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    ensure!(db.value::<bool>(
        "SELECT active_time < finished_at - started_at - interval '16 seconds' FROM safe_backfill_part"
    )?);
    Ok(())
}

#[test]
fn a_run_on_a_partition_is_seen_to_be_waited_for() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, part int, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         INSERT INTO t SELECT i, 1 + i % 2, NULL FROM generate_series(1, 2000) i",
    )?;
    db.slow_down("t1")?;
    let first = db.start_after(
        "SET test.pause = 0.003",
        "CALL safe_backfill('t1', 'c', 1, 10)",
    )?;
    first.wait_for_rows("t1", 1)?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    until_it_waits_for(&db, "another run to end: ")?;
    first.end()?.succeeded()?;
    let notices = run.end()?.succeeded()?;
    assert_eq!(saying(&notices, "waiting for it to end").len(), 1);
    Ok(())
}

#[test]
fn on_a_standby_a_job_of_the_primary_is_not_interrupted() -> Result<()> {
    let db = Database::alone(Options::default())?;
    slow_table(&db, 3000)?;
    let standby = Server::standby_of(db.server(), Options::default())?;
    let run = under_way(&db)?;
    db.wait_until("SELECT rows_filled > 0 FROM safe_backfill_progress")?;
    standby.catch_up_with(db.server())?;
    let mut there = standby.connect()?;
    let row = there.query_one(
        "SELECT state, pid IS NULL, rows_filled FROM safe_backfill_progress",
        &[],
    )?;
    assert_eq!(row.get::<_, String>(0), "filling");
    ensure!(row.get::<_, bool>(1) && row.get::<_, i64>(2) > 0);
    db.execute("UPDATE hold SET it = true")?;
    until_it_waits_for(&db, "the query of")?;
    standby.catch_up_with(db.server())?;
    let row = there.query_one("SELECT state, waits_for FROM safe_backfill_progress", &[])?;
    assert_eq!(row.get::<_, String>(0), "waiting");
    steer(&db, "cancel")?;
    run.end()?.failed_with("57014")?;
    standby.catch_up_with(db.server())?;
    let row = there.query_one("SELECT state FROM safe_backfill_progress", &[])?;
    assert_eq!(row.get::<_, String>(0), "cancelled");
    Ok(())
}
