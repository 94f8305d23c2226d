//! Jobs in background workers: whatever becomes of the session that started them, and of the server.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, Server, Shutdown, failure};

const SLOW: &str = "CREATE TABLE t (id int, c int DEFAULT 0);
    INSERT INTO t SELECT i, NULL FROM generate_series(1, 400) i;
    CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
    CREATE TRIGGER pause BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pause()";
const START: &str = "SELECT safe_backfill_start('t', 'c', 1, 10)";

fn filled(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c IS NOT NULL")
}

fn wait_for_state(db: &Database, state: &str) -> Result<()> {
    db.wait_until(&format!(
        "SELECT state = '{state}' FROM safe_backfill_progress"
    ))
}

#[test]
fn a_job_goes_on_after_its_client_has_left() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    let mut client = db.connect()?;
    let job: i64 = client.query_one(START, &[])?.get(0);
    drop(client);
    wait_for_state(&db, "filling")?;
    ensure!(db.value::<i64>("SELECT job_id FROM safe_backfill_progress")? == job);
    let worker = "SELECT backend_type || ' ' || usename FROM pg_stat_activity
                  WHERE pid = (SELECT pid FROM safe_backfill_progress)";
    assert_eq!(db.value::<String>(worker)?, "pg_safe_backfill postgres");
    wait_for_state(&db, "completed")?;
    assert_eq!(filled(&db)?, 400);
    let row = db.connect()?.query_one(
        "SELECT rows_filled, percent::float8, background, last_error, pid FROM safe_backfill_progress",
        &[],
    )?;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, f64>(1)), (400, 100.0));
    ensure!(row.get::<_, bool>(2));
    assert_eq!(
        (
            row.get::<_, Option<String>>(3),
            row.get::<_, Option<i32>>(4)
        ),
        (None, None)
    );
    Ok(())
}

#[test]
fn a_job_begins_when_its_transaction_is_committed() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    let mut client = db.connect()?;
    let mut transaction = client.transaction()?;
    transaction.batch_execute("ALTER TABLE t RENAME TO u; ALTER TABLE u ADD d text DEFAULT ''")?;
    transaction.batch_execute("SELECT safe_backfill_start_using('u', 'd', 'id::text')")?;
    transaction.rollback()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    db.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill' AND datname = current_database()")?;
    let mut transaction = client.transaction()?;
    transaction.batch_execute(
        "ALTER TABLE t RENAME TO u; ALTER TABLE u ADD d text; ALTER TABLE u DISABLE TRIGGER ALL",
    )?;
    transaction
        .batch_execute("SELECT safe_backfill_start_using('u', 'd', 'id::text', 100, 'id > 10')")?;
    transaction.commit()?;
    wait_for_state(&db, "completed")?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM u WHERE d = id::text")?,
        390
    );
    Ok(())
}

#[test]
fn a_job_reads_its_sql_as_the_session_did_that_started_it() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE SCHEMA app; CREATE FUNCTION app.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
         CREATE TABLE app.t (id int, at timestamptz DEFAULT '2024-01-01 00:00Z', c int DEFAULT 0, d date);
         INSERT INTO app.t SELECT i, '2024-01-01 00:00Z', NULL FROM generate_series(1, 10) i",
    )?;
    let mut client = db.connect()?;
    client.batch_execute(
        "SET search_path = app, public; SET timezone = 'America/New_York'; SET app.tenant = '7'",
    )?;
    client.batch_execute("SELECT safe_backfill_start_using('t', 'c', 'twice(id) + current_setting(''app.tenant'')::int')")?;
    client.batch_execute("SELECT safe_backfill_start_using('t', 'd', 'at::date')")?;
    db.wait_until("SELECT count(*) = 2 FROM safe_backfill_progress WHERE state = 'completed'")?;
    let right = "SELECT bool_and(c = 2 * id + 7 AND d = '2023-12-31') FROM app.t";
    ensure!(db.value::<bool>(right)?);
    Ok(())
}

#[test]
fn each_transaction_of_a_worker_has_its_own_time() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    db.execute("ALTER TABLE t ADD at timestamptz")?;
    let start = "SELECT safe_backfill_start_using('t', 'at', 'now()', 10)";
    db.connect()?.batch_execute(start)?;
    wait_for_state(&db, "completed")?;
    ensure!(db.value::<i64>("SELECT count(DISTINCT at) FROM t")? > 10);
    Ok(())
}

#[test]
fn mistakes_are_errors_of_the_function_and_start_no_job() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    for (statement, code) in [
        ("SELECT safe_backfill_start('t', 'nope', 1)", "42703"),
        ("SELECT safe_backfill_start('t', 'c', 'x')", "22P02"),
        ("SELECT safe_backfill_start('t', 'c', NULL::int)", "22004"),
        ("SELECT safe_backfill_start('t', 'c', 1, 0)", "22023"),
        (
            "SELECT safe_backfill_start_using('t', 'c', 'nope + 1')",
            "42703",
        ),
        ("SELECT safe_backfill_start_using('t', 'c', NULL)", "22004"),
        (
            "BEGIN READ ONLY; SELECT safe_backfill_start('t', 'c', 1)",
            "25006",
        ),
        ("SELECT safe_backfill_pause(7)", "42704"),
    ] {
        let error = db.connect()?.batch_execute(statement).err();
        failure(
            error.with_context(|| format!("no error from {statement}"))?,
            code,
        )?;
    }
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    Ok(())
}

#[test]
fn a_worker_runs_with_the_rights_of_the_role_that_started_it() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    db.execute(
        "DO $$ BEGIN IF to_regrole('filler') IS NULL THEN CREATE ROLE filler LOGIN; END IF; END $$;
         ALTER TABLE t DISABLE TRIGGER ALL;
         CREATE TABLE log (who text, session text); GRANT INSERT ON log TO filler;
         CREATE FUNCTION who() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (current_user, session_user); RETURN 1; END $$;
         GRANT SELECT, UPDATE ON t TO filler",
    )?;
    let mut client = db.connect_as("filler")?;
    client.batch_execute("SELECT safe_backfill_start_using('t', 'c', 'who()', 10)")?;
    wait_for_state(&db, "completed")?;
    let seen: String =
        db.value("SELECT string_agg(DISTINCT who || ' ' || session, ', ') FROM log")?;
    assert_eq!(seen, "filler filler");
    // Taken up by another role, it goes on as the role that has started it.
    db.execute("UPDATE t SET c = NULL")?;
    db.execute("REVOKE UPDATE ON t FROM filler")?;
    let error = client
        .batch_execute("SELECT safe_backfill_start_using('t', 'c', 'who()', 10)")
        .err();
    failure(error.context("it may not")?, "42501")?;
    Ok(())
}

#[test]
fn a_worker_has_the_settings_of_its_role_and_its_database() -> Result<()> {
    let db = Database::new()?;
    let role = "throttled";
    db.execute(&format!(
        "DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role} LOGIN; END IF; END $$;
         CREATE TABLE t (id int, c int DEFAULT 0); INSERT INTO t SELECT i, NULL FROM generate_series(1, 100) i;
         ALTER TABLE t OWNER TO {role}"
    ))?;
    let database = format!("DATABASE \"{}\"", db.name());
    for whose in [database.clone(), format!("ROLE {role} IN {database}")] {
        db.execute(&format!("ALTER {whose} SET safe_backfill.pause = '2h'"))?;
        let id: i64 = db
            .connect_as(role)?
            .query_one("SELECT safe_backfill_start('t', 'c', 1, 10)", &[])?
            .get(0);
        db.wait_until(
            "SELECT bool_or(state = 'waiting' AND waits_for LIKE 'the next batch, for %')
             FROM safe_backfill_progress",
        )?;
        db.execute(&format!("SELECT safe_backfill_cancel({id})"))?;
        wait_for_state(&db, "cancelled")?;
        db.execute(&format!("SELECT safe_backfill_forget({id})"))?;
        db.execute(&format!("ALTER {whose} RESET safe_backfill.pause"))?;
    }
    Ok(())
}

#[test]
fn an_error_lands_in_the_job_and_in_the_server_log() -> Result<()> {
    let db = Database::alone(Options::default())?;
    db.execute(SLOW)?;
    db.execute("ALTER TABLE t DISABLE TRIGGER ALL; ALTER TABLE t ADD CONSTRAINT low CHECK (id + c < 300) NOT VALID")?;
    db.connect()?.batch_execute(START)?;
    wait_for_state(&db, "failed")?;
    let error: String = db.value("SELECT last_error FROM safe_backfill_progress")?;
    ensure!(
        error.contains("violates check constraint \"low\""),
        "{error}"
    );
    let log = db.server().log()?;
    ensure!(log.contains("violates check constraint \"low\""), "{log}");
    ensure!(
        log.contains("job 1: filling column \"c\" of table \"t\" in the background"),
        "{log}"
    );
    db.execute("ALTER TABLE t DROP CONSTRAINT low")?;
    ensure!(db.value::<bool>("SELECT safe_backfill_resume(1)")?);
    wait_for_state(&db, "completed")?;
    // It is said when the job is done.
    let began = std::time::Instant::now();
    while !db.server().log()?.contains("job 1: filled ") {
        ensure!(began.elapsed() < client_tests::PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn a_worker_is_terminated_within_a_batch_and_can_be_resumed() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    db.connect()?.batch_execute(START)?;
    db.wait_until(
        "SELECT pid IS NOT NULL AND EXISTS (SELECT FROM t WHERE c = 1) FROM safe_backfill_progress",
    )?;
    ensure!(
        db.value::<bool>("SELECT pg_terminate_backend(pid, 10000) FROM safe_backfill_progress")?
    );
    wait_for_state(&db, "interrupted")?;
    let before = filled(&db)?;
    ensure!(before < 400);
    ensure!(db.value::<bool>("SELECT safe_backfill_resume(job_id) FROM safe_backfill_job")?);
    wait_for_state(&db, "completed")?;
    assert_eq!(filled(&db)?, 400);
    Ok(())
}

#[test]
fn a_second_job_on_the_column_is_refused_while_one_runs() -> Result<()> {
    let db = Database::new()?;
    db.execute(SLOW)?;
    db.connect()?.batch_execute(START)?;
    db.wait_until("SELECT pid IS NOT NULL FROM safe_backfill_progress")?;
    let error = db.connect()?.batch_execute(START).err();
    failure(error.context("one is running")?, "55006")?;
    db.call("CALL safe_backfill('t', 'c', 1)")?
        .failed_with("55006")?;
    wait_for_state(&db, "completed")?;
    Ok(())
}

#[test]
fn without_a_free_worker_the_error_names_the_setting() -> Result<()> {
    let db = Database::alone(Options::default().set("max_worker_processes", 2))?;
    db.execute(SLOW)?;
    db.execute("CREATE TABLE u AS TABLE t; CREATE TABLE v AS TABLE t")?;
    let mut client = db.connect()?;
    let mut started = 0;
    let error = loop {
        let table = ["t", "u", "v"][started];
        if table != "t" {
            db.execute(&format!(
                "CREATE TRIGGER pause BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION pause()"
            ))?;
        }
        match client.batch_execute(&format!(
            "SELECT safe_backfill_start('{table}', 'c', 1, 10)"
        )) {
            Ok(()) => started += 1,
            Err(error) => break failure(error, "53400")?,
        }
    };
    ensure!(started >= 1, "{error}");
    ensure!(
        error
            .hint
            .as_deref()
            .is_some_and(|hint| hint.contains("max_worker_processes")),
        "{error}"
    );
    let jobs: i64 = db.value("SELECT count(*) FROM safe_backfill_job")?;
    assert_eq!(jobs, started as i64);
    Ok(())
}

fn crash_and_restart(db: &Database) -> Result<()> {
    db.connect()?.batch_execute(START)?;
    db.wait_until(
        "SELECT pid IS NOT NULL AND EXISTS (SELECT FROM t WHERE c = 1) FROM safe_backfill_progress",
    )?;
    db.server().stop(Shutdown::Immediate)?;
    db.server().start_again()
}

#[test]
fn after_a_crash_a_job_is_interrupted_and_one_call_takes_it_up() -> Result<()> {
    let db = Database::alone(Options::default())?;
    db.execute(SLOW)?;
    crash_and_restart(&db)?;
    wait_for_state(&db, "interrupted")?;
    ensure!(db.value::<bool>("SELECT safe_backfill_resume(1)")?);
    wait_for_state(&db, "completed")?;
    assert_eq!(filled(&db)?, 400);
    Ok(())
}

#[test]
fn with_the_library_preloaded_a_job_goes_on_by_itself_after_a_crash() -> Result<()> {
    let db =
        Database::alone(Options::default().set("shared_preload_libraries", "pg_safe_backfill"))?;
    db.execute(SLOW)?;
    crash_and_restart(&db)?;
    wait_for_state(&db, "completed")?;
    assert_eq!(filled(&db)?, 400);
    // A backend that is killed takes all others with it; the postmaster starts them again.
    db.execute("ALTER TABLE t DISABLE TRIGGER ALL; UPDATE t SET c = NULL; ALTER TABLE t ENABLE TRIGGER ALL")?;
    let job: i64 = db.value(START)?;
    let of_job =
        |what: &str| format!("SELECT {what} FROM safe_backfill_progress WHERE job_id = {job}");
    db.wait_until(&of_job(
        "pid IS NOT NULL AND EXISTS (SELECT FROM t WHERE c = 1)",
    ))?;
    let pid: i32 = db.value(&of_job("pid"))?;
    db.server().kill_backend(pid)?;
    let began = std::time::Instant::now();
    while db.value::<String>(&of_job("state")).ok().as_deref() != Some("completed") {
        ensure!(began.elapsed() < client_tests::PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(filled(&db)?, 400);
    Ok(())
}

#[test]
fn with_the_library_preloaded_a_job_goes_on_by_itself_after_a_failover() -> Result<()> {
    let preloaded = || Options::default().set("shared_preload_libraries", "pg_safe_backfill");
    let db = Database::alone(preloaded())?;
    db.execute(SLOW)?;
    let standby = Server::standby_of(db.server(), preloaded())?;
    db.connect()?.batch_execute(START)?;
    db.wait_until("SELECT rows_filled > 0 FROM safe_backfill_progress")?;
    standby.catch_up_with(db.server())?;
    db.server().stop(Shutdown::Immediate)?;
    standby.promote()?;
    let mut there = standby.connect()?;
    let began = std::time::Instant::now();
    let state = "SELECT state FROM safe_backfill_progress";
    while there.query_one(state, &[])?.get::<_, String>(0) != "completed" {
        ensure!(began.elapsed() < client_tests::PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let filled = there.query_one("SELECT count(*) FROM t WHERE c = 1", &[])?;
    assert_eq!(filled.get::<_, i64>(0), 400);
    Ok(())
}
