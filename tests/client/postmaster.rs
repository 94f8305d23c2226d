//! A CALL does not outlive its server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client_tests::{Database, Options, PATIENCE, Run};

const CALL: &str = "CALL safe_backfill('t', 'c', 1, 50)";
const ROWS: i64 = 20_000;

/// A table whose rows take a millisecond each to update, which is spent working: who sleeps notices by himself that
/// the postmaster is gone.
fn table(db: &Database) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, c int DEFAULT 1);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         CREATE FUNCTION work() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE until timestamptz := clock_timestamp() + interval '1 ms';
         BEGIN
             WHILE clock_timestamp() < until LOOP END LOOP;
             RETURN NEW;
         END $$;
         CREATE TRIGGER work BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION work()"
    ))
}

/// Waits for the end of a CALL whose server cannot be asked any more.
fn wait_for_end(run: &Run, limit: Duration) -> Result<()> {
    let began = Instant::now();
    while !run.has_ended() {
        ensure!(
            began.elapsed() < limit,
            "the backend was there {limit:?} after its postmaster had gone"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The processes of the old server leave one after the other, and a new one waits for the last of them.
fn start_again(db: &Database) -> Result<()> {
    let began = Instant::now();
    while let Err(error) = db.server().start_again() {
        ensure!(began.elapsed() < PATIENCE, "{error:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn a_run_ends_soon_after_the_postmaster_was_killed_and_goes_on_in_the_next_server() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    let run = db.start(CALL)?;
    run.wait_for_rows("t", 100)?;

    db.server().kill_postmaster()?;

    wait_for_end(&run, Duration::from_secs(8))?;
    run.end()?.failed()?;
    start_again(&db)?;
    let filled: i64 = db.value("SELECT count(*) FROM t WHERE c = 1")?;
    ensure!((100..ROWS).contains(&filled), "{filled} rows");
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "interrupted"
    );
    db.execute("DROP TRIGGER work ON t")?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, ROWS);
    Ok(())
}
