//! Several processes that fill one table: `workers => n`.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Ended, Options, Run, Shutdown, failure, saying};

use crate::application::{Application, ensure_filled_once, hurry, prepare, processes, table};

const ROWS: i64 = 20_000;
/// A row takes so long that helpers have begun before much is filled, and a run is not over before it is disturbed.
const SLOWLY: &str = "SET test.pause = 0.0005";
const COUNT_OF_WORKERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'pg_safe_backfill' AND datname = current_database()";

fn call(workers: u32) -> String {
    format!("CALL safe_backfill_using('t', 'c', 'id', 100, workers => {workers})")
}

fn start(workers: u32) -> String {
    format!("SELECT safe_backfill_start_using('t', 'c', 'id', 100, workers => {workers})")
}

fn database(rows: i64) -> Result<Database> {
    let db = Database::new()?;
    prepare(&db)?;
    table(&db, "t", rows)?;
    Ok(db)
}

fn no_worker_is_left(db: &Database) -> Result<()> {
    db.wait_until(&format!("SELECT ({COUNT_OF_WORKERS}) = 0"))
}

fn state(db: &Database) -> Result<String> {
    db.value("SELECT state FROM safe_backfill_progress ORDER BY job_id DESC LIMIT 1")
}

fn wait_for_state(db: &Database, state: &str) -> Result<()> {
    db.wait_until(&format!(
        "SELECT state = '{state}' FROM safe_backfill_progress"
    ))
}

/// Waits until so many processes have filled rows.
fn until_they_fill(db: &Database, workers: u32) -> Result<()> {
    db.wait_until(&format!(
        "SELECT count(DISTINCT pid) = {workers} FROM log WHERE NOT app"
    ))
}

/// Whoever fills rows but for this process.
fn helper(db: &Database, leader: i32) -> Result<i32> {
    db.value(&format!(
        "SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill'
         AND datname = current_database() AND pid <> {leader}"
    ))
}

/// A run of two processes, both of which have filled rows.
fn two_under_way(db: &Database) -> Result<Run> {
    let run = db.start_after(SLOWLY, &call(2))?;
    until_they_fill(db, 2)?;
    Ok(run)
}

/// The same CALL with another number of workers fills what is left, each row once.
fn goes_on_with(db: &Database, workers: u32) -> Result<()> {
    no_worker_is_left(db)?;
    let job: i64 = db.value("SELECT max(job_id) FROM safe_backfill_job")?;
    let left: i64 = db.value("SELECT count(*) FROM t WHERE c IS NULL")?;
    ensure!(left > 0, "it was over before it was disturbed");
    hurry(db)?;
    db.call(&call(workers))?.succeeded()?;
    no_worker_is_left(db)?;
    ensure_filled_once(db, "t")?;
    assert_eq!(state(db)?, "completed");
    assert_eq!(
        db.value::<i64>("SELECT max(job_id) FROM safe_backfill_job")?,
        job
    );
    assert_eq!(
        db.value::<i32>("SELECT workers FROM safe_backfill_job")?,
        workers as i32
    );
    Ok(())
}

fn fill_beside_the_application(workers: u32) -> Result<()> {
    let db = database(ROWS)?;
    let application = Application::start(&db, &["t"]);
    db.call(&call(workers))?.succeeded()?;
    let growth = application.stop()?;
    no_worker_is_left(&db)?;
    assert_eq!(processes(&db, "t")?, i64::from(workers));
    let log: i64 = db.value("SELECT count(*) FROM log WHERE NOT app")?;
    let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_part")?;
    assert_eq!(counted, log);
    // NULLs that came at the very end are nobody's fault.
    db.call(&call(1))?.succeeded()?;
    ensure_filled_once(&db, "t")?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t")?, ROWS + growth);
    Ok(())
}

#[test]
fn two_processes_fill_a_table_beside_the_application() -> Result<()> {
    fill_beside_the_application(2)
}

#[test]
fn four_processes_fill_a_table_beside_the_application() -> Result<()> {
    fill_beside_the_application(4)
}

#[test]
fn two_processes_fill_a_table_in_the_background_beside_the_application() -> Result<()> {
    let db = database(ROWS)?;
    let application = Application::start(&db, &["t"]);
    db.execute(&start(2))?;
    db.wait_until("SELECT finished_at IS NOT NULL FROM safe_backfill_job")?;
    let growth = application.stop()?;
    no_worker_is_left(&db)?;
    assert_eq!(processes(&db, "t")?, 2);
    db.call(&call(1))?.succeeded()?;
    ensure_filled_once(&db, "t")?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t")?, ROWS + growth);
    Ok(())
}

#[test]
fn one_constant_is_filled_by_several_processes_too() -> Result<()> {
    let db = database(ROWS)?;
    db.call("CALL safe_backfill('t', 'c', 7, 500, filter => 'id % 2 = 0', workers => 3)")?
        .succeeded()?;
    let right: bool =
        db.value("SELECT bool_and(c IS NOT DISTINCT FROM CASE id % 2 WHEN 0 THEN 7 END) FROM t")?;
    ensure!(right);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, ROWS / 2);
    no_worker_is_left(&db)
}

#[test]
fn the_view_shows_what_each_process_has_filled() -> Result<()> {
    const FIGURES: &str = "
        SELECT count(*), count(*) FILTER (WHERE (f ->> 'rows_filled')::bigint > 0), count(DISTINCT f ->> 'pid'),
               sum((f ->> 'rows_filled')::bigint)::bigint
        FROM safe_backfill_part, jsonb_array_elements(processes) f";
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    db.wait_until(
        "SELECT jsonb_array_length(processes) = 2 AND rows_filled > 0
         AND pid IN (SELECT (f ->> 'pid')::int FROM jsonb_array_elements(processes) f)
         FROM safe_backfill_progress",
    )?;
    ensure!(!run.has_ended());
    hurry(&db)?;
    run.end()?.succeeded()?;
    let row = db.connect()?.query_one(FIGURES, &[])?;
    let figures: [i64; 4] = [row.get(0), row.get(1), row.get(2), row.get(3)];
    assert_eq!(figures, [2, 2, 2, ROWS]);
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_progress")?,
        ROWS
    );
    // As the processes themselves see it.
    db.wait_until(
        "SELECT bool_and((f ->> 'rows_filled')::bigint = (SELECT count(*) FROM log WHERE pid = (f ->> 'pid')::int))
         FROM safe_backfill_part, jsonb_array_elements(processes) f",
    )
}

#[test]
fn one_worker_is_the_process_of_the_call_alone() -> Result<()> {
    let db = database(2000)?;
    let run = db.start_after(SLOWLY, &call(1))?;
    run.wait_for_rows("t", 100)?;
    assert_eq!(db.value::<i64>(COUNT_OF_WORKERS)?, 0);
    let none: bool = db.value("SELECT processes IS NULL FROM safe_backfill_progress")?;
    ensure!(none);
    let pid = run.pid;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>(&format!("SELECT count(*) FROM log WHERE pid = {pid}"))?,
        2000
    );
    Ok(())
}

#[test]
fn numbers_that_make_no_sense_are_refused_and_change_nothing() -> Result<()> {
    let db = database(10)?;
    for (workers, code) in [
        ("0", "22023"),
        ("-1", "22023"),
        ("65", "22023"),
        ("1000000", "22023"),
        ("NULL", "22004"),
    ] {
        for statement in [
            "CALL safe_backfill('t', 'c', 1",
            "CALL safe_backfill('t', 'c', '1'::text",
            "CALL safe_backfill_using('t', 'c', 'id'",
            "SELECT safe_backfill_start('t', 'c', 1",
            "SELECT safe_backfill_start_using('t', 'c', 'id'",
        ] {
            let statement = format!("{statement}, workers => {workers})");
            let error = db.connect()?.batch_execute(&statement).err();
            let error = failure(error.with_context(|| statement.clone())?, code)?;
            ensure!(error.message.contains("workers"), "{statement}: {error}");
        }
    }
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    Ok(())
}

/// The CALL ended with this error, the job has it, and nobody is left.
fn failed_cleanly(db: &Database, ended: Ended, code: &str, text: &str) -> Result<()> {
    let error = ended.failed_with(code)?;
    ensure!(error.message.contains(text), "{error}");
    no_worker_is_left(db)?;
    let row = db.connect()?.query_one(
        "SELECT j.state, error ->> 'sqlstate', last_error, p.pid, p.state
         FROM safe_backfill_job j JOIN safe_backfill_progress p USING (job_id)",
        &[],
    )?;
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, &str>(1)),
        ("failed", code)
    );
    let last: &str = row.get(2);
    ensure!(last.contains(text), "{last}");
    assert_eq!(
        (row.get::<_, Option<i32>>(3), row.get::<_, &str>(4)),
        (None, "failed")
    );
    Ok(())
}

/// Fills with an expression that fails for one row, which is in the blocks of the one or the other process.
fn fail_at(id: i64, workers: u32) -> Result<()> {
    let db = database(ROWS)?;
    db.execute(&format!(
        "CREATE TABLE bad AS SELECT {id} AS id;
         CREATE FUNCTION bad() RETURNS int LANGUAGE sql STABLE AS 'SELECT id FROM bad'"
    ))?;
    let call = |workers| {
        format!(
            "CALL safe_backfill_using('t', 'c', 'id + 0 / (bad() - id)', 100, workers => {workers})"
        )
    };
    let ended = db.call_after(SLOWLY, &call(workers))?;
    failed_cleanly(&db, ended, "22012", "division by zero")?;
    let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_part")?;
    let filled: i64 = db.value("SELECT count(c) FROM t")?;
    ensure!(filled < ROWS && counted <= filled, "{counted} of {filled}");
    db.execute("UPDATE bad SET id = -1")?;
    hurry(&db)?;
    db.call(&call(workers + 1))?.succeeded()?;
    no_worker_is_left(&db)?;
    ensure_filled_once(&db, "t")?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        1
    );
    Ok(())
}

#[test]
fn an_error_of_the_leader_stops_its_helpers() -> Result<()> {
    fail_at(1, 2)
}

#[test]
fn an_error_of_a_helper_stops_the_leader_and_is_the_error_of_the_call() -> Result<()> {
    // The leader begins, so that the second half is a helper's, or one of the helpers'.
    fail_at(ROWS * 6 / 10, 2)?;
    fail_at(ROWS / 2, 4)
}

#[test]
fn a_violated_constraint_stops_all_with_its_own_words() -> Result<()> {
    let db = database(ROWS)?;
    db.execute(&format!(
        "ALTER TABLE t ADD CONSTRAINT low CHECK (c <> {}) NOT VALID",
        ROWS * 6 / 10
    ))?;
    let ended = db.call_after(SLOWLY, &call(2))?;
    let error = ended.failed_with("23514")?;
    ensure!(
        error.message.contains("violates check constraint \"low\""),
        "{error}"
    );
    ensure!(
        error
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("Failing row"),
        "{error}"
    );
    db.execute("ALTER TABLE t DROP CONSTRAINT low")?;
    goes_on_with(&db, 3)
}

#[test]
fn an_error_of_a_background_helper_lands_in_the_job() -> Result<()> {
    let db = database(ROWS)?;
    db.execute(&format!(
        "ALTER TABLE t ADD CONSTRAINT low CHECK (c <> {}) NOT VALID",
        ROWS * 6 / 10
    ))?;
    db.execute(&format!("{SLOWLY}; {}", start(2)))?;
    wait_for_state(&db, "failed")?;
    no_worker_is_left(&db)?;
    let code: String = db.value("SELECT error ->> 'sqlstate' FROM safe_backfill_job")?;
    assert_eq!(code, "23514");
    db.execute("ALTER TABLE t DROP CONSTRAINT low")?;
    goes_on_with(&db, 1)
}

#[test]
fn a_helper_that_is_terminated_ends_the_run_with_an_error_that_says_so() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    db.execute(&format!(
        "SELECT pg_terminate_backend({})",
        helper(&db, run.pid)?
    ))?;
    let error = run.end()?.failed_with("57P01")?;
    ensure!(error.message.contains("background worker"), "{error}");
    ensure!(
        error
            .hint
            .as_deref()
            .unwrap_or_default()
            .contains("server log"),
        "{error}"
    );
    assert_eq!(state(&db)?, "interrupted");
    goes_on_with(&db, 3)
}

#[test]
fn a_helper_that_is_cancelled_ends_the_run() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    db.execute(&format!(
        "SELECT pg_cancel_backend({})",
        helper(&db, run.pid)?
    ))?;
    run.end()?.failed_with("57014")?;
    goes_on_with(&db, 1)
}

#[test]
fn a_leader_that_is_cancelled_takes_its_helpers_with_it() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    assert_eq!(state(&db)?, "interrupted");
    goes_on_with(&db, 3)
}

#[test]
fn a_leader_that_is_terminated_takes_its_helpers_with_it() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    db.execute(&format!("SELECT pg_terminate_backend({})", run.pid))?;
    run.end()?.failed()?;
    no_worker_is_left(&db)?;
    assert_eq!(state(&db)?, "interrupted");
    goes_on_with(&db, 1)
}

#[test]
fn a_leader_that_is_terminated_while_paused_takes_its_helpers_with_it() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    ensure!(db.value::<bool>("SELECT safe_backfill_pause(job_id) FROM safe_backfill_job")?);
    wait_for_state(&db, "paused")?;
    db.execute(&format!("SELECT pg_terminate_backend({})", run.pid))?;
    run.end()?.failed()?;
    no_worker_is_left(&db)?;
    ensure!(db.value::<bool>("SELECT safe_backfill_resume(job_id) FROM safe_backfill_job")?);
    hurry(&db)?;
    wait_for_state(&db, "completed")?;
    no_worker_is_left(&db)?;
    ensure_filled_once(&db, "t")?;
    Ok(())
}

#[test]
fn a_leader_in_the_background_that_is_terminated_takes_its_helpers_with_it() -> Result<()> {
    let db = database(ROWS)?;
    db.execute(&format!("{SLOWLY}; {}", start(3)))?;
    until_they_fill(&db, 3)?;
    db.execute("SELECT pg_terminate_backend(pid) FROM safe_backfill_progress")?;
    no_worker_is_left(&db)?;
    assert_eq!(state(&db)?, "interrupted");
    ensure!(db.value::<bool>("SELECT safe_backfill_resume(job_id) FROM safe_backfill_job")?);
    hurry(&db)?;
    wait_for_state(&db, "completed")?;
    no_worker_is_left(&db)?;
    assert_eq!(ensure_filled_once(&db, "t")?, ROWS);
    Ok(())
}

#[test]
fn after_a_kill_and_after_a_crash_nobody_is_left_and_a_call_goes_on() -> Result<()> {
    let db = Database::alone(Options::default())?;
    prepare(&db)?;
    table(&db, "t", ROWS)?;
    let run = two_under_way(&db)?;
    db.server().kill_backend(run.pid)?;
    run.end()?.failed()?;
    db.server().wait_until_ready()?;
    no_worker_is_left(&db)?;
    assert_eq!(state(&db)?, "interrupted");

    let run = db.start_after(SLOWLY, &call(3))?;
    db.wait_until(&format!("SELECT ({COUNT_OF_WORKERS}) = 2"))?;
    db.server().kill_backend(helper(&db, run.pid)?)?;
    run.end()?.failed()?;
    db.server().wait_until_ready()?;

    let run = db.start_after(SLOWLY, &call(2))?;
    db.wait_until(&format!("SELECT ({COUNT_OF_WORKERS}) = 1"))?;
    db.server().stop(Shutdown::Immediate)?;
    run.end()?.failed()?;
    db.server().start_again()?;
    goes_on_with(&db, 3)
}

/// Nobody fills anything, nor keeps a transaction, a snapshot or a lock on the table.
fn all_stand_still(db: &Database) -> Result<()> {
    const BUSY: &str = "
        SELECT NOT EXISTS (
            SELECT FROM pg_stat_activity a JOIN safe_backfill_part p ON true, jsonb_array_elements(p.processes) f
            WHERE a.pid = (f ->> 'pid')::int AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL))
        AND NOT EXISTS (SELECT FROM pg_locks WHERE relation = 't'::regclass)";
    db.wait_until(BUSY)?;
    let before: i64 = db.value("SELECT count(*) FROM log")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, before);
    Ok(())
}

fn steer(db: &Database, what: &str) -> Result<bool> {
    db.value(&format!(
        "SELECT safe_backfill_{what}(max(job_id)) FROM safe_backfill_job"
    ))
}

#[test]
fn a_pause_stops_all_processes_and_a_resume_lets_all_go_on() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    ensure!(steer(&db, "pause")?);
    wait_for_state(&db, "paused")?;
    all_stand_still(&db)?;
    assert_eq!(db.value::<i64>(COUNT_OF_WORKERS)?, 1);
    db.execute("TRUNCATE log")?;
    let nulls: i64 = db.value("SELECT count(*) FROM t WHERE c IS NULL")?;
    ensure!(steer(&db, "resume")?);
    until_they_fill(&db, 2)?;
    hurry(&db)?;
    let notices = run.end()?.succeeded()?;
    assert_eq!(saying(&notices, "paused").len(), 1, "{notices:#?}");
    no_worker_is_left(&db)?;
    assert_eq!(ensure_filled_once(&db, "t")?, nulls);
    Ok(())
}

#[test]
fn a_cancel_ends_all_processes_even_while_they_are_paused() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    ensure!(steer(&db, "cancel")?);
    let error = run.end()?.failed_with("57014")?;
    ensure!(error.message.contains("safe_backfill_cancel"), "{error}");
    no_worker_is_left(&db)?;
    assert_eq!(state(&db)?, "cancelled");

    // Taken up in the background, as it was: with two processes.
    db.execute("TRUNCATE log")?;
    db.execute(&format!("{SLOWLY}; {}", start(2)))?;
    until_they_fill(&db, 2)?;
    ensure!(steer(&db, "pause")?);
    wait_for_state(&db, "paused")?;
    all_stand_still(&db)?;
    ensure!(steer(&db, "cancel")?);
    wait_for_state(&db, "cancelled")?;
    no_worker_is_left(&db)?;

    db.execute("TRUNCATE log")?;
    ensure!(steer(&db, "resume")?);
    until_they_fill(&db, 2)?;
    hurry(&db)?;
    wait_for_state(&db, "completed")?;
    no_worker_is_left(&db)?;
    ensure_filled_once(&db, "t")?;
    Ok(())
}

#[test]
fn small_partitions_and_a_large_one_are_filled_by_several_processes() -> Result<()> {
    let db = Database::new()?;
    prepare(&db)?;
    db.execute(
        "CREATE TABLE t (id int, part int, filler text, app bool DEFAULT false, c int DEFAULT 0) PARTITION BY LIST (part);
         DO $$ BEGIN FOR part IN 0..40 LOOP
             EXECUTE format('CREATE TABLE t%1$s PARTITION OF t FOR VALUES IN (%1$s)', part);
         END LOOP; END $$;
         INSERT INTO t SELECT i, i % 40 + 1, repeat('x', 200), false, NULL FROM generate_series(1, 4000) i;
         INSERT INTO t SELECT i, 0, repeat('x', 200), false, NULL FROM generate_series(4001, 24000) i;
         CREATE TRIGGER log AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log()",
    )?;
    for (workers, rows) in [(3, 24000), (2, 24000)] {
        let run = db.start_after("SET test.pause = 0.0001", &call(workers))?;
        // Rows of a partition that is filled first move, and one is locked for a while.
        db.wait_until("SELECT count(*) > 500 FROM log")?;
        db.execute("ALTER TABLE t DISABLE TRIGGER log; UPDATE t SET part = 40 WHERE id BETWEEN 23000 AND 23100; ALTER TABLE t ENABLE TRIGGER log")?;
        run.end()?.succeeded()?;
        no_worker_is_left(&db)?;
        assert_eq!(
            db.value::<i64>("SELECT count(*) FROM t WHERE c = id")?,
            rows
        );
        assert_eq!(db.value::<i64>("SELECT count(DISTINCT id) FROM log")?, rows);
        assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, rows);
        let many: i64 = db.value("SELECT count(DISTINCT pid) FROM log WHERE name = 't0'")?;
        assert_eq!(many, i64::from(workers));
        assert_eq!(
            db.value::<i64>("SELECT rows_filled FROM safe_backfill_progress WHERE leaf_tables IS NOT NULL ORDER BY job_id DESC LIMIT 1")?,
            rows
        );
        db.execute("ALTER TABLE t DISABLE TRIGGER log; UPDATE t SET c = NULL; ALTER TABLE t ENABLE TRIGGER log; TRUNCATE log")?;
    }
    Ok(())
}

#[test]
fn partitions_that_go_are_no_trouble_to_helpers() -> Result<()> {
    let db = Database::new()?;
    prepare(&db)?;
    db.execute(
        "CREATE TABLE t (id int, part int, filler text, app bool DEFAULT false, c int DEFAULT 0) PARTITION BY LIST (part);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3);
         INSERT INTO t SELECT i, i / 8000 + 1, repeat('x', 200), false, NULL FROM generate_series(0, 23999) i;
         CREATE TRIGGER log AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log()",
    )?;
    let run = db.start_after(SLOWLY, &call(2))?;
    until_they_fill(&db, 2)?;
    db.execute("DROP TABLE t1")?;
    db.wait_until("SELECT count(DISTINCT pid) = 2 FROM log WHERE name = 't2'")?;
    db.execute("ALTER TABLE t DETACH PARTITION t2")?;
    db.wait_until("SELECT count(DISTINCT pid) = 2 FROM log WHERE name = 't3'")?;
    // It has kept its lock.
    db.call(&call(2))?.failed_with("55006")?;
    hurry(&db)?;
    run.end()?.succeeded()?;
    no_worker_is_left(&db)?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = id")?,
        8000
    );
    Ok(())
}

#[test]
fn a_table_that_is_dropped_ends_all_processes() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    db.execute("DROP TABLE t")?;
    run.end()?.failed_with("42P01")?;
    no_worker_is_left(&db)
}

#[test]
fn a_table_that_is_rewritten_is_gone_over_from_its_first_block_by_all() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    for _ in 0..3 {
        db.execute("VACUUM FULL t")?;
        db.execute("TRUNCATE log")?;
        until_they_fill(&db, 2)?;
        // It has kept its lock.
        db.call(&call(2))?.failed_with("55006")?;
    }
    hurry(&db)?;
    let notices = run.end()?.succeeded()?;
    ensure!(!saying(&notices, "rewritten").is_empty(), "{notices:#?}");
    no_worker_is_left(&db)?;
    ensure_filled_once(&db, "t")?;
    Ok(())
}

#[test]
fn rows_that_the_application_holds_are_stepped_around_and_filled_later() -> Result<()> {
    let db = database(ROWS)?;
    let mut holder = db.connect()?;
    let mut holding = holder.transaction()?;
    holding.batch_execute("SELECT FROM t WHERE id % 500 = 0 FOR UPDATE")?;
    let held = ROWS / 500;
    let run = db.start(&call(3))?;
    db.wait_until(&format!("SELECT count(*) = {held} FROM t WHERE c IS NULL"))?;
    ensure!(!run.has_ended());
    assert_eq!(processes(&db, "t")?, 3);
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(ensure_filled_once(&db, "t")?, ROWS);
    no_worker_is_left(&db)
}

#[test]
fn without_a_free_slot_the_error_names_the_setting_and_nothing_changes() -> Result<()> {
    let db = Database::alone(Options::default().set("max_worker_processes", 3))?;
    prepare(&db)?;
    table(&db, "t", 2000)?;
    // One slot is the logical replication launcher's.
    let error = db.call(&call(4))?.failed_with("53400")?;
    ensure!(
        error
            .hint
            .as_deref()
            .unwrap_or_default()
            .contains("max_worker_processes"),
        "{error}"
    );
    no_worker_is_left(&db)?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    let jobs: i64 = db.value(
        "SELECT count(*) FROM safe_backfill_progress WHERE state <> 'failed' OR pid IS NOT NULL",
    )?;
    assert_eq!(jobs, 0);

    db.execute(&start(4))?;
    wait_for_state(&db, "failed")?;
    no_worker_is_left(&db)?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    let error: String = db.value("SELECT error ->> 'sqlstate' FROM safe_backfill_job")?;
    assert_eq!(error, "53400");

    db.call(&call(2))?.succeeded()?;
    ensure_filled_once(&db, "t")?;
    no_worker_is_left(&db)
}

/// The role may fill the table, but is one that sessions only turn into.
#[test]
fn a_role_that_cannot_log_in_has_helpers_where_postgresql_allows_it() -> Result<()> {
    let db = database(2000)?;
    db.execute(
        "DO $$ BEGIN IF to_regrole('no_login') IS NULL THEN CREATE ROLE no_login NOLOGIN; END IF; END $$;
         GRANT SELECT, UPDATE ON t TO no_login; GRANT INSERT, SELECT ON log TO no_login",
    )?;
    let ended = db.call_after("SET ROLE no_login", &call(2))?;
    if db.value::<i32>("SELECT current_setting('server_version_num')::int")? < 170_000 {
        let error = ended.failed_with("28000")?;
        ensure!(error.message.contains("no_login"), "{error}");
        no_worker_is_left(&db)?;
        assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
        db.call_after("SET ROLE no_login", &call(1))?.succeeded()?;
    } else {
        ended.succeeded()?;
    }
    ensure_filled_once(&db, "t")?;
    Ok(())
}

#[test]
fn helpers_have_the_rights_and_the_settings_of_the_session() -> Result<()> {
    let db = database(ROWS)?;
    db.execute(
        "DO $$ BEGIN IF to_regrole('filler') IS NULL THEN CREATE ROLE filler LOGIN; END IF; END $$;
         GRANT SELECT, UPDATE ON t TO filler; GRANT INSERT, SELECT ON log TO filler;
         CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO filler;
         CREATE FUNCTION app.me(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             ASSERT current_user = 'filler' AND session_user = 'filler'
                 AND current_setting('app.tenant') = '7' AND current_setting('timezone') = 'America/New_York';
             RETURN $1;
         END $$",
    )?;
    db.start_as(
        "filler",
        "SET search_path = app, public; SET app.tenant = '7'; SET timezone = 'America/New_York'",
        "CALL safe_backfill_using('t', 'c', 'me(id)', 100, workers => 3)",
    )?
    .end()?
    .succeeded()?;
    assert_eq!(processes(&db, "t")?, 3);
    assert_eq!(ensure_filled_once(&db, "t")?, ROWS);
    Ok(())
}

/// Adds what makes the update of some rows take very long where a helper makes it.
fn stick_in_helpers(db: &Database) -> Result<()> {
    db.execute(
        "CREATE FUNCTION stick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()) = 'pg_safe_backfill' THEN
                 PERFORM pg_sleep(600);
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER stick BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id % 100 = 0) EXECUTE FUNCTION stick()",
    )
}

/// A helper is in the middle of a statement that takes very long.
fn until_one_is_stuck(db: &Database) -> Result<()> {
    db.wait_until(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill'
         AND datname = current_database() AND wait_event = 'PgSleep' AND xact_start < clock_timestamp() - interval '1 s'",
    )
}

#[test]
fn a_helper_whose_statement_takes_very_long_does_not_outlive_its_run() -> Result<()> {
    let db = database(ROWS)?;
    stick_in_helpers(&db)?;
    let run = db.start_after(SLOWLY, &call(2))?;
    until_one_is_stuck(&db)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    no_worker_is_left(&db)?;

    let run = db.start_after(SLOWLY, &call(2))?;
    until_one_is_stuck(&db)?;
    ensure!(steer(&db, "cancel")?);
    run.end()?.failed_with("57014")?;
    no_worker_is_left(&db)?;

    // The leader fails where it fills a row itself.
    db.execute(
        "ALTER TABLE t ADD CONSTRAINT high CHECK (c > 100 OR id > 100 OR c <> id) NOT VALID",
    )?;
    db.execute("ALTER TABLE t DISABLE TRIGGER log; UPDATE t SET c = NULL WHERE id < 1000; ALTER TABLE t ENABLE TRIGGER log; TRUNCATE log")?;
    db.execute("UPDATE safe_backfill_part SET next_block = 0")?;
    db.call_after(SLOWLY, &call(2))?.failed_with("23514")?;
    no_worker_is_left(&db)?;
    db.execute("ALTER TABLE t DROP CONSTRAINT high; DROP TRIGGER stick ON t")?;
    goes_on_with(&db, 2)
}

#[test]
fn a_statement_timeout_of_the_leader_ends_all() -> Result<()> {
    let db = database(ROWS)?;
    db.call_after(&format!("{SLOWLY}; SET statement_timeout = '1s'"), &call(3))?
        .failed_with("57014")?;
    assert_eq!(processes(&db, "t")?, 3);
    assert_eq!(state(&db)?, "interrupted");
    goes_on_with(&db, 2)
}

#[test]
fn a_table_smaller_than_its_workers_is_filled_and_so_is_none() -> Result<()> {
    for rows in [0, 1, 100] {
        let db = Database::new()?;
        prepare(&db)?;
        table(&db, "t", 100)?;
        db.execute(&format!("DELETE FROM t WHERE id > {rows}"))?;
        db.execute("VACUUM t")?;
        for _ in 0..3 {
            db.call(&call(8))?.succeeded()?;
            no_worker_is_left(&db)?;
            assert_eq!(state(&db)?, "completed");
            db.execute("UPDATE t SET c = NULL; TRUNCATE log")?;
        }
        db.execute(&start(8))?;
        db.wait_until(
            "SELECT finished_at IS NOT NULL FROM safe_backfill_job ORDER BY job_id DESC LIMIT 1",
        )?;
        no_worker_is_left(&db)?;
        assert_eq!(ensure_filled_once(&db, "t")?, rows);
    }
    Ok(())
}

#[test]
fn a_temporary_table_is_for_one_process() -> Result<()> {
    let db = Database::new()?;
    const TEMPORARY: &str = "CREATE TEMP TABLE t (id int, c int);
        INSERT INTO t SELECT i, NULL FROM generate_series(1, 1000) i";
    for workers in [2, 4] {
        let mut client = db.connect()?;
        client.batch_execute(TEMPORARY)?;
        let error = client.batch_execute(&call(workers));
        failure(error.err().context("it was filled")?, "0A000")?;
        let filled: i64 = client.query_one("SELECT count(c) FROM t", &[])?.get(0);
        assert_eq!(filled, 0);
        no_worker_is_left(&db)?;
        for workers in [1, 2] {
            let error = client.batch_execute(&start(workers));
            failure(error.err().context("it was started")?, "0A000")?;
        }
        client.batch_execute(&call(1))?;
        let filled: i64 = client.query_one("SELECT count(c) FROM t", &[])?.get(0);
        assert_eq!(filled, 1000);
    }
    Ok(())
}

#[test]
fn a_second_run_on_the_column_is_refused_and_has_no_workers() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    db.call(&call(4))?.failed_with("55006")?;
    assert_eq!(db.value::<i64>(COUNT_OF_WORKERS)?, 1);
    let error = db.connect()?.batch_execute(&start(4)).err();
    failure(error.context("one is running")?, "55006")?;
    assert_eq!(db.value::<i64>(COUNT_OF_WORKERS)?, 1);
    hurry(&db)?;
    run.end()?.succeeded()?;
    assert_eq!(ensure_filled_once(&db, "t")?, ROWS);
    no_worker_is_left(&db)
}

#[test]
fn a_shutdown_ends_all_at_once_and_the_job_goes_on_by_itself_with_its_helpers() -> Result<()> {
    let db =
        Database::alone(Options::default().set("shared_preload_libraries", "pg_safe_backfill"))?;
    prepare(&db)?;
    table(&db, "t", ROWS)?;
    db.execute(&format!("{SLOWLY}; {}", start(2)))?;
    until_they_fill(&db, 2)?;
    let began = std::time::Instant::now();
    db.server().restart()?;
    ensure!(
        began.elapsed() < std::time::Duration::from_secs(20),
        "it took {:?}",
        began.elapsed()
    );
    until_they_fill(&db, 4)?;
    hurry(&db)?;
    wait_for_state(&db, "completed")?;
    db.wait_until(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill' AND datname IS NOT NULL",
    )?;
    assert_eq!(ensure_filled_once(&db, "t")?, ROWS);
    Ok(())
}

#[test]
fn what_helpers_have_filled_is_counted_when_a_run_is_cancelled_or_fails() -> Result<()> {
    let db = database(ROWS)?;
    let counted = |when: &str| -> Result<()> {
        no_worker_is_left(&db)?;
        let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_part")?;
        let filled: i64 = db.value("SELECT count(c) FROM t")?;
        ensure!(counted == filled, "{when}: {counted} of {filled} rows");
        Ok(())
    };
    let run = two_under_way(&db)?;
    ensure!(steer(&db, "cancel")?);
    run.end()?.failed_with("57014")?;
    counted("after a cancellation")?;

    db.execute("TRUNCATE log")?;
    let run = two_under_way(&db)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    counted("after a cancelled statement")?;

    db.execute(&format!(
        "ALTER TABLE t ADD CONSTRAINT low CHECK (c <> {}) NOT VALID",
        ROWS * 8 / 10
    ))?;
    db.call_after(SLOWLY, &call(3))?.failed_with("23514")?;
    counted("after an error")?;

    db.execute("ALTER TABLE t DROP CONSTRAINT low")?;
    hurry(&db)?;
    db.call(&call(2))?.succeeded()?;
    counted("at the end")
}

/// PostgreSQL before version 18 signals a process twice when a client cancels its statement; the second signal can come when
/// the first has been heeded. Here the last words wait for the job's row meanwhile.
#[test]
fn what_is_filled_is_counted_though_the_cancellation_comes_twice() -> Result<()> {
    let db = database(ROWS)?;
    let run = two_under_way(&db)?;
    let waits = format!("FROM pg_locks WHERE pid = {} AND NOT granted", run.pid);
    let cancel = format!("SELECT pg_cancel_backend({})", run.pid);
    let mut other = db.connect()?;
    let mut held = other.transaction()?;
    held.execute("SELECT FROM safe_backfill_job FOR UPDATE", &[])?;
    db.execute(&cancel)?;
    db.wait_until(&format!("SELECT count(waitstart) = 1 {waits}"))?;
    let began: String = db.value(&format!("SELECT waitstart::text {waits}"))?;
    db.execute(&cancel)?;
    db.wait_until(&format!(
        "SELECT count(*) = 1 {waits} AND waitstart::text <> '{began}'"
    ))?;
    held.commit()?;
    run.end()?.failed_with("57014")?;
    no_worker_is_left(&db)?;
    let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_part")?;
    assert_eq!(counted, db.value::<i64>("SELECT count(c) FROM t")?);
    assert_eq!(
        db.value::<String>("SELECT error ->> 'sqlstate' FROM safe_backfill_job")?,
        "57014"
    );
    Ok(())
}

/// How often WAL was written so far, by all processes.
fn wal_writes(db: &Database) -> Result<i64> {
    let version: i32 = db.value("SELECT current_setting('server_version_num')::int")?;
    db.value(match version {
        180_000.. => "SELECT sum(writes)::bigint FROM pg_stat_io WHERE object = 'wal'",
        _ => "SELECT wal_write FROM pg_stat_wal",
    })
}

#[test]
fn processes_of_one_run_do_not_make_way_for_one_another() -> Result<()> {
    let db = Database::alone(Options::default().set("autovacuum", "off"))?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, filler text, c int DEFAULT 0);
         INSERT INTO t SELECT i, repeat('x', 100), NULL FROM generate_series(1, 200000) i",
    )?;
    db.execute("VACUUM t")?;
    let before = wal_writes(&db)?;
    db.call("CALL safe_backfill('t', 'c', 1, workers => 2)")?
        .succeeded()?;
    db.execute("SELECT pg_stat_force_next_flush()")?;
    let batches: i64 = db.value("SELECT batches FROM safe_backfill_part")?;
    let filled_by: i64 = db.value(
        "SELECT count(*) FROM safe_backfill_part, jsonb_array_elements(processes) f
         WHERE (f ->> 'rows_filled')::bigint > 0",
    )?;
    assert_eq!(filled_by, 2);
    let writes = wal_writes(&db)? - before;
    // Beside an application, a process writes its WAL after each statement, of which a batch has several.
    ensure!(
        writes < 2 * batches,
        "{writes} writes of WAL in {batches} batches"
    );
    Ok(())
}
