//! Jobs that are paused, resumed, cancelled and cleared away from other sessions.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Ended, failure, saying};

/// A table whose rows take a millisecond each, in batches of ten.
fn slow_table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, c int DEFAULT 0); INSERT INTO t SELECT i, NULL FROM generate_series(1, {rows}) i"
    ))?;
    db.slow_down("t")
}

const SLOWLY: &str = "SET test.pause = 0.001; SET safe_backfill.max_batch_time = '10ms'";
const CALL: &str = "CALL safe_backfill('t', 'c', 1, 10)";

fn job(db: &Database) -> Result<i64> {
    db.value("SELECT max(job_id) FROM safe_backfill_job")
}

fn steer(db: &Database, what: &str) -> Result<bool> {
    db.value(&format!("SELECT safe_backfill_{what}({})", job(db)?))
}

fn state(db: &Database) -> Result<String> {
    db.value("SELECT state FROM safe_backfill_progress ORDER BY job_id DESC LIMIT 1")
}

fn wait_until_under_way(db: &Database) -> Result<()> {
    db.wait_until("SELECT count(*) >= 20 FROM t WHERE c IS NOT NULL")
}

fn filled(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c IS NOT NULL")
}

#[test]
fn a_pause_takes_effect_within_a_batch_and_holds_nothing() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 1000)?;
    let run = db.start_after(SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    ensure!(steer(&db, "pause")?);
    let before = filled(&db)?;
    thread::sleep(Duration::from_millis(300));
    let after = filled(&db)?;
    ensure!(
        after - before <= 30,
        "{} rows after the pause",
        after - before
    );
    db.wait_until("SELECT state = 'paused' AND waits_for IS NOT NULL AND pid IS NOT NULL AND time_left IS NULL FROM safe_backfill_progress")?;
    let held: i64 = db.value(&format!(
        "SELECT count(*) FROM pg_locks WHERE pid = {} AND locktype NOT IN ('object', 'virtualxid')",
        run.pid
    ))?;
    assert_eq!(held, 0);
    let snapshots: i64 = db.value(&format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)",
        run.pid
    ))?;
    assert_eq!(snapshots, 0);
    ensure!(!steer(&db, "pause")?, "it is paused already");
    assert_eq!(filled(&db)?, after);
    ensure!(steer(&db, "resume")?);
    let notices = run.end()?.succeeded()?;
    assert_eq!(saying(&notices, "paused backfill of table \"t\"").len(), 1);
    assert_eq!((state(&db)?.as_str(), filled(&db)?), ("completed", 1000));
    ensure!(!steer(&db, "resume")? && !steer(&db, "cancel")? && !steer(&db, "pause")?);
    Ok(())
}

fn cancelled(run: Ended) -> Result<()> {
    let error = run.failed_with("57014")?;
    ensure!(error.message.contains("safe_backfill_cancel"), "{error}");
    ensure!(
        error
            .hint
            .as_deref()
            .is_some_and(|hint| hint.contains("safe_backfill_resume(")),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_cancelled_call_can_be_taken_up_by_the_same_call() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let run = db.start_after(SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    ensure!(steer(&db, "cancel")?);
    cancelled(run.end()?)?;
    assert_eq!(state(&db)?, "cancelled");
    let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_progress")?;
    assert_eq!(counted, filled(&db)?);
    let error: String = db.value("SELECT last_error FROM safe_backfill_progress")?;
    ensure!(error.contains("safe_backfill_cancel"), "{error}");
    let first = job(&db)?;
    db.call(CALL)?.succeeded()?;
    assert_eq!((job(&db)?, filled(&db)?), (first, 300));
    assert_eq!(state(&db)?, "completed");
    let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_progress")?;
    assert_eq!(counted, 300);
    Ok(())
}

#[test]
fn a_paused_call_can_be_cancelled_and_resumed_in_the_background() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let run = db.start_after(SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    ensure!(steer(&db, "pause")?);
    db.wait_until("SELECT state = 'paused' AND pid IS NOT NULL FROM safe_backfill_progress")?;
    ensure!(steer(&db, "cancel")?);
    cancelled(run.end()?)?;
    ensure!(steer(&db, "resume")?);
    db.wait_until("SELECT state = 'completed' AND background FROM safe_backfill_progress")?;
    assert_eq!(filled(&db)?, 300);
    Ok(())
}

#[test]
fn an_order_takes_effect_when_it_is_committed() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 200)?;
    let run = db.start_after(SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    let mut other = db.connect()?;
    let mut transaction = other.transaction()?;
    transaction.execute("SELECT safe_backfill_cancel($1)", &[&job(&db)?])?;
    let before = filled(&db)?;
    db.wait_until(&format!(
        "SELECT count(*) > {before} + 20 FROM t WHERE c IS NOT NULL"
    ))?;
    transaction.rollback()?;
    run.end()?.succeeded()?;
    assert_eq!(state(&db)?, "completed");
    Ok(())
}

#[test]
fn an_error_stays_with_the_job_until_it_is_taken_up() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 1000) i;
         ALTER TABLE t ADD CONSTRAINT low CHECK (id + c < 900) NOT VALID",
    )?;
    db.call(CALL)?.failed_with("23514")?;
    let row = db.connect()?.query_one(
        "SELECT state, last_error, percent::float8, rows_filled, pid FROM safe_backfill_progress",
        &[],
    )?;
    let (state, error): (String, String) = (row.get(0), row.get(1));
    assert_eq!(state, "failed");
    ensure!(
        error.contains("violates check constraint \"low\""),
        "{error}"
    );
    assert_eq!(row.get::<_, i64>(3), filled(&db)?);
    assert_eq!(row.get::<_, Option<i32>>(4), None);
    let code: String = db.value("SELECT error ->> 'sqlstate' FROM safe_backfill_job")?;
    assert_eq!(code, "23514");
    db.execute("ALTER TABLE t DROP CONSTRAINT low")?;
    db.call(CALL)?.succeeded()?;
    let error: Option<String> = db.value("SELECT last_error FROM safe_backfill_progress")?;
    assert_eq!((error, filled(&db)?), (None, 1000));
    Ok(())
}

#[test]
fn jobs_that_are_done_can_be_forgotten_and_running_ones_cannot() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let run = db.start_after(SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    let forget = format!("SELECT safe_backfill_forget({})", job(&db)?);
    let error = db.execute(&forget).err().context("it is running")?;
    let error = failure(error.downcast()?, "55006")?;
    ensure!(
        error
            .hint
            .as_deref()
            .is_some_and(|hint| hint.contains("safe_backfill_cancel("))
    );
    assert_eq!(
        db.value::<i64>("SELECT safe_backfill_forget('0'::interval)")?,
        0
    );
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT safe_backfill_forget('1 day'::interval)")?,
        0
    );
    assert_eq!(
        db.value::<i64>("SELECT safe_backfill_forget('0'::interval)")?,
        1
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_part")?,
        0
    );
    let error = db.execute(&forget).err().context("there is no such job")?;
    failure(error.downcast()?, "42704")?;
    Ok(())
}

#[test]
fn who_finds_a_column_taken_by_a_paused_job_is_told_how_to_go_on() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let run = db.start_after(SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    let job = job(&db)?;
    db.execute(&format!("SELECT safe_backfill_pause({job})"))?;
    db.wait_until("SELECT waits_for = 'safe_backfill_resume' FROM safe_backfill_job")?;
    for other in [
        CALL,
        "CALL safe_set_not_null('t', 'c')",
        "SELECT safe_backfill_start('t', 'c', 1)",
    ] {
        let error = db.call(other)?.failed_with("55006")?;
        let (detail, hint) = (
            error.detail.unwrap_or_default(),
            error.hint.unwrap_or_default(),
        );
        ensure!(
            detail.contains(&format!("has paused job {job}.")),
            "{detail}"
        );
        ensure!(
            hint.contains(&format!("safe_backfill_resume({job})")),
            "{hint}"
        );
        ensure!(
            hint.contains(&format!("safe_backfill_cancel({job})")),
            "{hint}"
        );
    }
    db.execute(&format!("SELECT safe_backfill_resume({job})"))?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn only_those_who_may_can_steer_a_job() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 200)?;
    let (owner, starter, reader) = ("owner_of_t", "starter", "reader");
    for role in [owner, starter, reader] {
        db.execute(&format!(
            "DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role} LOGIN; END IF; END $$"
        ))?;
    }
    db.execute(&format!(
        "ALTER TABLE t OWNER TO {owner}; GRANT SELECT, UPDATE ON t TO {starter}; GRANT SELECT ON t TO {reader}"
    ))?;
    let run = db.start_as(starter, SLOWLY, CALL)?;
    wait_until_under_way(&db)?;
    let id = job(&db)?;
    for function in ["pause", "resume", "cancel", "forget"] {
        let error = db
            .connect_as(reader)?
            .query_one(&format!("SELECT safe_backfill_{function}({id})"), &[])
            .err()
            .context("it is not theirs")?;
        failure(error, "42501")?;
    }
    for (role, function) in [
        (owner, "pause"),
        (starter, "resume"),
        (starter, "pause"),
        (owner, "cancel"),
    ] {
        let done: bool = db
            .connect_as(role)?
            .query_one(&format!("SELECT safe_backfill_{function}({id})"), &[])?
            .get(0);
        ensure!(done, "{role} could not {function}");
    }
    cancelled(run.end()?)?;
    db.start_as(starter, "", CALL)?.end()?.succeeded()?;
    let forgets = |role: &str, what: &str| -> Result<i64> {
        let mut client = db.connect_as(role)?;
        let row = client.query_one(&format!("SELECT safe_backfill_forget({what})"), &[])?;
        Ok(row.get(0))
    };
    let error = forgets(reader, &id.to_string())
        .err()
        .context("it is not theirs")?;
    failure(error.downcast()?, "42501")?;
    assert_eq!(forgets(reader, "'0'::interval")?, 0);
    assert_eq!(job(&db)?, id);
    assert_eq!(forgets(owner, "'0'::interval")?, 1);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    Ok(())
}

/// A job in the background, with rows that take so many seconds each, in batches of ten.
fn start_in_background(db: &Database, seconds: &str) -> Result<i64> {
    let mut client = db.connect()?;
    client.batch_execute(&format!(
        "SET test.pause = {seconds}; SELECT safe_backfill_start('t', 'c', 1, 10)"
    ))?;
    job(db)
}

#[test]
fn a_job_that_is_resumed_before_its_worker_has_begun_goes_on() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let mut client = db.connect()?;
    client.batch_execute("SET test.pause = 0.001")?;
    for steps in [
        "SELECT safe_backfill_resume(max(job_id)) FROM safe_backfill_job",
        "SELECT safe_backfill_pause(max(job_id)) FROM safe_backfill_job;
         SELECT safe_backfill_resume(max(job_id)) FROM safe_backfill_job",
        "SELECT safe_backfill_cancel(max(job_id)) FROM safe_backfill_job;
         SELECT safe_backfill_resume(max(job_id)) FROM safe_backfill_job",
    ] {
        client.batch_execute(&format!(
            "BEGIN; SELECT safe_backfill_start('t', 'c', 1, 10); {steps}; COMMIT"
        ))?;
        db.wait_until(
            "SELECT finished_at IS NOT NULL FROM safe_backfill_job ORDER BY job_id DESC LIMIT 1",
        )?;
        let error: Option<String> = db.value(
            "SELECT error ->> 'message' FROM safe_backfill_job ORDER BY job_id DESC LIMIT 1",
        )?;
        assert_eq!(
            (error, state(&db)?.as_str()),
            (None, "completed"),
            "{steps}"
        );
        assert_eq!(filled(&db)?, 300);
        db.execute("UPDATE t SET c = NULL")?;
    }
    Ok(())
}

/// Cancels the job and resumes it before its process, which is in the middle of a batch, knows; that commits when it does.
fn cancel_and_resume_at_once(db: &Database, id: i64) -> Result<()> {
    let (mut first, mut second) = (db.connect()?, db.connect()?);
    let mut resuming = second.transaction()?;
    first.execute("SELECT safe_backfill_cancel($1)", &[&id])?;
    let done: bool = resuming
        .query_one("SELECT safe_backfill_resume($1)", &[&id])?
        .get(0);
    ensure!(done);
    thread::sleep(Duration::from_secs(1));
    resuming.commit()?;
    db.execute("ALTER TABLE t DISABLE TRIGGER pause")?;
    db.wait_until("SELECT state = 'completed' FROM safe_backfill_progress")?;
    assert_eq!(filled(db)?, 300);
    Ok(())
}

#[test]
fn a_cancelled_job_that_is_resumed_before_its_worker_has_ended_goes_on() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let id = start_in_background(&db, "0.02")?;
    wait_until_under_way(&db)?;
    cancel_and_resume_at_once(&db, id)
}

#[test]
fn a_cancelled_call_that_is_resumed_before_it_has_ended_goes_on() -> Result<()> {
    let db = Database::new()?;
    slow_table(&db, 300)?;
    let run = db.start_after("SET test.pause = 0.02", CALL)?;
    wait_until_under_way(&db)?;
    cancel_and_resume_at_once(&db, job(&db)?)?;
    // Whether the CALL itself goes on, or a worker in its place.
    if let Err(error) = run.end()?.succeeded() {
        ensure!(
            format!("{error:#}").contains("safe_backfill_cancel"),
            "{error:#}"
        );
    }
    Ok(())
}
