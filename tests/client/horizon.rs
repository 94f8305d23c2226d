//! Old snapshots: a run ends well beside them, names who holds them, and they see what they always saw.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client_tests::{Database, Notice, Options, Server, Shutdown, saying};
use postgres::{Client, IsolationLevel, Transaction};

/// A table of about 5000 blocks, which are several windows.
pub(crate) fn table(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, filler text, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 850), NULL FROM generate_series(1, 40000) i",
    )?;
    db.execute("VACUUM t")
}

pub(crate) fn fill(db: &Database) -> Result<Vec<Notice>> {
    let notices = db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        40000
    );
    Ok(notices)
}

/// A transaction that sees the table as it is now, and holds the horizon until it ends.
pub(crate) fn snapshot_of(client: &mut Client) -> Result<Transaction<'_>> {
    let mut reading = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()?;
    reading.query_one("SELECT count(*) FROM t", &[])?;
    Ok(reading)
}

/// The only message about old row versions has `holder` in it, and a hint.
pub(crate) fn names(notices: &[Notice], holder: &str) -> Result<()> {
    let said = saying(notices, "dead row versions");
    ensure!(said.len() == 1, "{notices:#?}");
    ensure!(
        said[0].detail.as_deref().unwrap_or("").contains(holder) && said[0].hint.is_some(),
        "{}",
        said[0]
    );
    Ok(())
}

#[test]
fn an_old_snapshot_is_named_and_keeps_seeing_the_past() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut reader = db.connect()?;
    let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let mut reading = snapshot_of(&mut reader)?;
    // Short transactions are not worth a word.
    thread::sleep(Duration::from_millis(500));

    names(&fill(&db)?, &format!("process {pid}"))?;

    let seen = reading.query_one("SELECT count(*), count(c) FROM t", &[])?;
    assert_eq!((seen.get::<_, i64>(0), seen.get::<_, i64>(1)), (40000, 0));
    Ok(())
}

#[test]
fn an_analyze_of_the_table_is_waited_for() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let analysis = slow_analyze(&db)?;
    let run = db.start_after(
        "SET client_min_messages = notice",
        "CALL safe_backfill('t', 'c', 1)",
    )?;
    db.wait_until(
        "SELECT state = 'waiting' AND waits_for LIKE 'ANALYZE of the table by process %' FROM safe_backfill_progress",
    )?;
    end_analyze(&db, analysis)?;
    let notices = run.end()?.succeeded()?;
    ensure!(
        saying(&notices, "dead row versions").is_empty(),
        "{notices:#?}"
    );
    let hot: f64 = db.value("SELECT hot_percent::float8 FROM safe_backfill_progress")?;
    ensure!(hot >= 70.0, "{hot}% HOT updates");
    Ok(())
}

#[test]
fn an_analyze_that_takes_too_long_is_waited_for_once() -> Result<()> {
    const WAITS: &str = "SELECT coalesce(bool_or(waits_for LIKE 'ANALYZE of the table %'), false) FROM safe_backfill_progress";
    let db = Database::new()?;
    table(&db)?;
    let analysis = slow_analyze(&db)?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    db.wait_until(WAITS)?;
    db.wait_until(&format!("SELECT NOT ({WAITS})"))?;
    let mut watcher = db.connect()?;
    while !run.has_ended() {
        let waits_again: bool = watcher.query_one(WAITS, &[])?.get(0);
        ensure!(!waits_again, "it waits for the same ANALYZE again");
        thread::sleep(Duration::from_millis(20));
    }
    let notices = run.end()?.succeeded()?;
    end_analyze(&db, analysis)?;
    names(&notices, "process")
}

const ANALYZING: &str = "pg_stat_progress_analyze WHERE datname = current_database()";

/// Begins an ANALYZE that would take minutes.
fn slow_analyze(db: &Database) -> Result<thread::JoinHandle<Result<(), postgres::Error>>> {
    let mut analyzer = db.connect()?;
    let analysis = thread::spawn(move || {
        analyzer.batch_execute("SET vacuum_cost_delay = '100ms'; SET vacuum_cost_limit = 1")?;
        analyzer.batch_execute("ANALYZE t")
    });
    db.wait_until(&format!("SELECT count(*) = 1 FROM {ANALYZING}"))?;
    Ok(analysis)
}

fn end_analyze(
    db: &Database,
    analysis: thread::JoinHandle<Result<(), postgres::Error>>,
) -> Result<()> {
    db.execute(&format!("SELECT pg_cancel_backend(pid) FROM {ANALYZING}"))?;
    let ended = analysis.join();
    ensure!(
        ended.is_ok_and(|ended| ended.is_err()),
        "it was not cancelled"
    );
    Ok(())
}

#[test]
fn a_prepared_transaction_is_named() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("CREATE TABLE other (); BEGIN; INSERT INTO other DEFAULT VALUES; PREPARE TRANSACTION 'forgotten one'")?;
    let notices = fill(&db);
    db.execute("ROLLBACK PREPARED 'forgotten one'")?;
    names(&notices?, "\"forgotten one\"")
}

#[test]
fn nothing_is_said_and_most_updates_are_hot_when_nobody_is_in_the_way() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let notices = fill(&db)?;
    ensure!(
        saying(&notices, "dead row versions").is_empty(),
        "{notices:#?}"
    );
    let hot: f64 = db.value("SELECT hot_percent::float8 FROM safe_backfill_progress")?;
    // The rows grow by a tenth: so many have to move.
    ensure!(hot > 80.0, "{hot} % of the updates were HOT");
    let blocks: i64 = db.value("SELECT pg_relation_size('t') / 8192")?;
    ensure!(blocks < 5000 * 13 / 10, "the table has {blocks} blocks now");
    Ok(())
}

#[test]
fn a_standby_is_named_and_nothing_runs_on_it() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    let options = Options::default()
        .set("hot_standby_feedback", "on")
        .set("wal_receiver_status_interval", "1s")
        .set("max_standby_streaming_delay", "-1");
    let standby = Server::standby_of(db.server(), options)?;
    standby.catch_up_with(db.server())?;

    let mut reader = standby.connect()?;
    let error = reader.batch_execute("CALL safe_backfill('t', 'c', 1)");
    let error = client_tests::failure(error.expect_err("a standby is read only"), "25006")?;
    ensure!(
        error.message.contains("standby") && error.hint.is_some(),
        "{error}"
    );

    let mut reading = snapshot_of(&mut reader)?;
    db.wait_until("SELECT backend_xmin IS NOT NULL FROM pg_stat_replication")?;
    names(&fill(&db)?, "standby")?;
    let seen = reading.query_one("SELECT count(*), count(c) FROM t", &[])?;
    assert_eq!((seen.get::<_, i64>(0), seen.get::<_, i64>(1)), (40000, 0));
    drop(reading);

    standby.catch_up_with(db.server())?;
    let filled = reader.query_one("SELECT count(*) FROM t WHERE c = 1", &[])?;
    assert_eq!(filled.get::<_, i64>(0), 40000);
    // A failover: the standby has the job, and the same CALL works there.
    db.execute("UPDATE t SET c = NULL WHERE id <= 10")?;
    standby.catch_up_with(db.server())?;
    standby.promote()?;
    reader.batch_execute("CALL safe_backfill('t', 'c', 1)")?;
    let filled = reader.query_one("SELECT count(*) FROM t WHERE c = 1", &[])?;
    assert_eq!(filled.get::<_, i64>(0), 40000);
    Ok(())
}

/// Large enough for more windows than may be in flight with so few shared buffers.
fn large_table() -> Result<Database> {
    let options = Options::default()
        .set("shared_buffers", "32MB")
        .set("max_prepared_transactions", 2);
    let db = Database::alone(options)?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, filler text, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 850), NULL FROM generate_series(1, 160000) i",
    )?;
    db.execute("VACUUM t")?;
    Ok(db)
}

/// Rows filled up to now, and how many of them by HOT updates.
pub(crate) fn counts(db: &Database) -> Result<(f64, f64)> {
    let count =
        |what: &str| db.value::<f64>(&format!("SELECT {what}::float8 FROM safe_backfill_part"));
    Ok((count("rows_filled")?, count("rows_hot")?))
}

#[test]
fn recycling_comes_back_when_a_report_has_ended() -> Result<()> {
    let db = large_table()?;
    let mut reader = db.connect()?;
    let report = snapshot_of(&mut reader)?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    db.wait_until("SELECT count(*) = 1 FROM safe_backfill_progress WHERE percent >= 30")?;
    report.commit()?;
    let (rows, hot) = counts(&db)?;
    let notices = run.end()?.succeeded()?;
    let (all, all_hot) = counts(&db)?;
    let (share, share_before) = ((all_hot - hot) / (all - rows), hot / rows);
    // Windows that were in flight already go on as if nothing had been; so do the others.
    ensure!(
        share >= 0.75 && share_before < 0.3,
        "{share_before} and then {share} of the updates were HOT: {notices:#?}"
    );
    Ok(())
}

#[test]
fn a_trigger_made_while_the_horizon_is_held_is_heeded() -> Result<()> {
    let db = large_table()?;
    let mut reader = db.connect()?;
    let report = snapshot_of(&mut reader)?;
    let run = db.start_after(
        "SET safe_backfill.pause = '5ms'",
        "CALL safe_backfill('t', 'c', 1)",
    )?;
    db.wait_until("SELECT count(*) = 1 FROM safe_backfill_progress WHERE percent >= 20")?;
    db.execute(
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.c := NULL; RETURN NEW; END $$;
         CREATE TRIGGER undo BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id % 100 = 0) EXECUTE FUNCTION undo()",
    )?;
    run.end()?.succeeded()?;
    report.commit()?;
    let filled: f64 = db.value("SELECT count(c)::float8 FROM t")?;
    let (counted, _) = counts(&db)?;
    ensure!(
        filled < 159_000.0,
        "{filled} rows: the trigger came too late"
    );
    // Rows that it undoes are told from others as soon as another window begins, which has 8000 rows or 16000.
    ensure!(
        counted - filled < 300.0,
        "{counted} rows counted, {filled} filled"
    );
    Ok(())
}

#[test]
fn rows_that_a_lock_kept_back_are_not_left_until_the_horizon_moves() -> Result<()> {
    let db = large_table()?;
    db.execute(
        "CREATE TABLE other AS SELECT 1 AS id;
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM FROM other FOR UPDATE; RETURN NEW; END $$;
         CREATE TRIGGER wait BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id % 4000 = 0) EXECUTE FUNCTION wait()",
    )?;
    let mut reader = db.connect()?;
    let mut locking = reader
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()?;
    locking.query_one("SELECT FROM other FOR UPDATE", &[])?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    db.wait_until("SELECT count(*) = 1 FROM safe_backfill_progress WHERE percent >= 65")?;
    // Windows that lie behind the first one, whose dead row versions cannot be pruned.
    let null: i64 =
        db.value("SELECT count(*) FROM t WHERE c IS NULL AND id BETWEEN 20000 AND 60000")?;
    ensure!(!run.has_ended());
    locking.commit()?;
    run.end()?.succeeded()?;
    ensure!(null <= 20, "{null} rows are NULL");
    Ok(())
}

#[test]
fn whoever_holds_the_horizon_next_is_named_too() -> Result<()> {
    let db = large_table()?;
    db.execute("CREATE TABLE other (id int)")?;
    let mut first = db.connect()?;
    let mut reading = first.transaction()?;
    reading.execute("INSERT INTO other VALUES (1)", &[])?;
    thread::sleep(Duration::from_millis(500));
    let run = db.start_after(
        "SET safe_backfill.progress_interval = '1ms'",
        "CALL safe_backfill('t', 'c', 1)",
    )?;
    db.wait_until("SELECT count(*) = 1 FROM safe_backfill_progress WHERE percent >= 20")?;
    db.execute("BEGIN; INSERT INTO other VALUES (2); PREPARE TRANSACTION 'the next one'")?;
    reading.commit()?;
    let notices = run.end()?.succeeded()?;
    db.execute("ROLLBACK PREPARED 'the next one'")?;
    let said = saying(&notices, "dead row versions");
    ensure!(
        said.len() == 2 && said[1].to_string().contains("the next one"),
        "{notices:#?}"
    );
    Ok(())
}

#[test]
fn progress_is_stored_while_the_horizon_is_waited_for() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut reader = db.connect()?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t")?;
    let run = db.start_after(
        "SET safe_backfill.horizon_patience = 1000",
        "CALL safe_backfill('t', 'c', 1)",
    )?;
    db.wait_until(
        "SELECT rows_filled > 0 AND rows_filled = (SELECT count(c) FROM t) AND waits_for LIKE 'the xmin horizon%'
         FROM safe_backfill_progress",
    )?;
    db.execute("SELECT pg_sleep(2)")?;
    db.wait_until(
        "SELECT waits_for LIKE 'the xmin horizon%' AND updated_at > statement_timestamp() - interval '1.5 s'
         FROM safe_backfill_progress",
    )?;
    reader.batch_execute("COMMIT")?;
    run.end()?.succeeded()?;
    Ok(())
}

/// A standby of `db` that sends feedback about so often, through a slot if it has the name of one.
pub(crate) fn standby_with_feedback(db: &Database, interval: &str, slot: &str) -> Result<Server> {
    let options = Options::default()
        .set("hot_standby_feedback", "on")
        .set("wal_receiver_status_interval", interval)
        .set("primary_slot_name", slot);
    let standby = Server::standby_of(db.server(), options)?;
    standby.catch_up_with(db.server())?;
    db.wait_until(
        "SELECT bool_or(r.backend_xmin IS NOT NULL OR s.xmin IS NOT NULL)
         FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid",
    )?;
    Ok(standby)
}

#[test]
fn the_feedback_of_an_idle_standby_is_waited_for() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    let _standby = standby_with_feedback(&db, "2s", "")?;
    let run = db.start_after(
        "SET safe_backfill.horizon_patience = 1000; SET safe_backfill.progress_interval = 0",
        "CALL safe_backfill('t', 'c', 1)",
    )?;
    db.wait_until(
        "SELECT state = 'waiting' AND waits_for LIKE 'the xmin horizon, held by standby \"%' FROM safe_backfill_progress",
    )?;
    let notices = run.end()?.succeeded()?;
    let (rows, hot) = counts(&db)?;
    ensure!(hot / rows >= 0.8, "{hot} of {rows}: {notices:#?}");
    let waits: bool = db.value("SELECT waits_for IS NOT NULL FROM safe_backfill_progress")?;
    ensure!(!waits, "it says that it waits still");
    Ok(())
}

#[test]
fn a_run_that_waits_heeds_the_patience_that_is_set_meanwhile() -> Result<()> {
    let db = Database::alone(Options::default().set("safe_backfill.horizon_patience", 1000))?;
    table(&db)?;
    let mut reader = db.connect()?;
    let report = snapshot_of(&mut reader)?;
    let run = db.start("CALL safe_backfill('t', 'c', 1)")?;
    db.wait_until(
        "SELECT state = 'waiting' AND waits_for LIKE 'the xmin horizon, held by process %' FROM safe_backfill_progress",
    )?;
    thread::sleep(Duration::from_secs(1));
    ensure!(!run.has_ended(), "it does not wait");
    let mut session = db.connect()?;
    session.batch_execute("LOAD 'pg_safe_backfill'")?;
    session.batch_execute("ALTER SYSTEM SET safe_backfill.horizon_patience = 0")?;
    let reloaded = Instant::now();
    session.batch_execute("SELECT pg_reload_conf()")?;
    names(&run.end()?.succeeded()?, "process")?;
    ensure!(reloaded.elapsed() < Duration::from_secs(10));
    report.commit()?;
    Ok(())
}

#[test]
fn what_else_a_run_waits_for_does_not_make_it_more_patient() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("CREATE TABLE hold AS SELECT true AS it")?;
    let mut reader = db.connect()?;
    let report = snapshot_of(&mut reader)?;
    let run = db.start_after(
        "SET safe_backfill.hold_while = 'SELECT it FROM hold'; SET safe_backfill.horizon_patience = 1",
        "CALL safe_backfill('t', 'c', 1)",
    )?;
    db.wait_until("SELECT state = 'waiting' FROM safe_backfill_progress")?;
    thread::sleep(Duration::from_secs(10));
    db.execute("UPDATE hold SET it = false")?;
    let notices = run.end()?.succeeded()?;
    report.commit()?;
    ensure!(
        saying(&notices, "waits for the xmin horizon").is_empty(),
        "{notices:#?}"
    );
    Ok(())
}

#[test]
fn a_slot_is_named_as_its_standby_while_that_is_there() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    db.execute("SELECT pg_create_physical_replication_slot('of_the_standby', true)")?;
    // Feedback never comes again.
    let standby = standby_with_feedback(&db, "1h", "of_the_standby")?;
    let impatiently = "SET safe_backfill.horizon_patience = 0";
    let notices = db
        .call_after(impatiently, "CALL safe_backfill('t', 'c', 1)")?
        .succeeded()?;
    names(&notices, "standby \"")?;
    let hint = saying(&notices, "dead row versions")[0].hint.clone();
    let hint = hint.unwrap_or_default();
    ensure!(
        hint.contains("wal_receiver_status_interval") && !hint.contains("drop"),
        "{hint}"
    );

    standby.stop(Shutdown::Fast)?;
    db.wait_until("SELECT NOT active FROM pg_replication_slots")?;
    db.execute("UPDATE t SET c = NULL")?;
    let notices = db
        .call_after(impatiently, "CALL safe_backfill('t', 'c', 1)")?
        .succeeded()?;
    names(&notices, "replication slot \"of_the_standby\"")?;
    let hint = saying(&notices, "dead row versions")[0].hint.clone();
    ensure!(
        hint.unwrap_or_default()
            .contains("pg_drop_replication_slot('of_the_standby')")
    );
    Ok(())
}

/// PostgreSQL 16 has no such setting.
#[test]
fn deferred_cleanup_is_named() -> Result<()> {
    let installed = Database::new()?;
    if installed.value::<i32>("SELECT current_setting('server_version_num')::int")? >= 160_000 {
        return Ok(());
    }
    let db = Database::alone(Options::default().set("vacuum_defer_cleanup_age", 1_000_000))?;
    table(&db)?;
    names(&fill(&db)?, "vacuum_defer_cleanup_age")
}
