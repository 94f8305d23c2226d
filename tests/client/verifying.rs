//! The last look at a table: in pieces, told and taken up as the filling is, and no burden to others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use client_tests::{Database, Options, only};

use crate::probe::{Background, Longest};

/// Rows, of which each has a block of its own: three windows and more.
const ROWS: i64 = 6500;

/// A table of which a filter that takes a millisecond leaves all rows out. It counts how often it is asked.
fn slowly_left_out(db: &Database, rows: i64) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, filler text, c int DEFAULT 0) WITH (fillfactor = 10, autovacuum_enabled = off);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 450), NULL FROM generate_series(1, {rows}) i;
         CREATE SEQUENCE asked;
         CREATE FUNCTION wanted(c int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             IF c IS NULL THEN
                 PERFORM nextval('asked'), pg_sleep(0.001);
             END IF;
             RETURN false;
         END $$"
    ))
}

const CALL: &str = "CALL safe_backfill('t', 'c', 1, filter => 'wanted(c)')";

fn asked(db: &Database) -> Result<i64> {
    db.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM asked")
}

#[test]
fn a_look_is_told_and_goes_on_where_it_was() -> Result<()> {
    let db = Database::new()?;
    slowly_left_out(&db, ROWS)?;
    let run = db.start_after("SET safe_backfill.progress_interval = '200ms'", CALL)?;
    db.wait_until(
        "SELECT count(*) = 1 FROM safe_backfill_progress
         WHERE state = 'verifying' AND percent BETWEEN 1 AND 99 AND time_left IS NOT NULL",
    )?;
    run.cancel()?;
    let ended = run.end()?;
    let told = ended
        .notices
        .iter()
        .any(|notice| notice.message.contains("verifying, ") && notice.message.contains("% done"));
    ensure!(told, "{:#?}", ended.notices);
    ended.failed_with("57014")?;
    let done: i64 = db.value("SELECT next_block FROM safe_backfill_part")?;
    ensure!(done >= 2048, "{done} blocks");
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "interrupted"
    );

    let before = asked(&db)?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(asked(&db)? - before, ROWS - done);
    assert_eq!(
        db.value::<String>("SELECT state FROM safe_backfill_progress")?,
        "completed"
    );
    Ok(())
}

/// Rows whose expression is NULL are counted over all calls.
#[test]
fn rows_without_a_value_are_counted_though_the_look_was_interrupted() -> Result<()> {
    let db = Database::new()?;
    slowly_left_out(&db, ROWS)?;
    db.execute(
        "CREATE FUNCTION nothing(c int) RETURNS int STABLE LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.0005); RETURN NULL; END $$",
    )?;
    let call = "CALL safe_backfill_using('t', 'c', 'nothing(c)')";
    let run = db.start(call)?;
    db.wait_until(
        "SELECT count(*) = 1 FROM safe_backfill_part WHERE state = 'verifying' AND next_block > 0",
    )?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    let notices = db.call(call)?.succeeded()?;
    let warning = only(&notices, "WARNING")?;
    ensure!(
        warning.message.starts_with(&format!("{ROWS} rows")),
        "{warning}"
    );
    Ok(())
}

/// A lock that the filter waits for, and that lasts, is no reason to pass rows over.
#[test]
fn a_look_that_meets_a_lock_goes_on_when_it_is_gone() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE wanted (id int);
         INSERT INTO wanted VALUES (0);
         CREATE TABLE t (id int, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 1500) i;
         CREATE FUNCTION is_wanted(id int) RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.0005); RETURN id IN (SELECT w.id FROM wanted w); END $$",
    )?;
    let run = db.start("CALL safe_backfill('t', 'c', 1, filter => 'is_wanted(id)')")?;
    db.wait_until("SELECT count(*) = 1 FROM safe_backfill_part WHERE state = 'verifying'")?;
    let mut client = db.connect()?;
    let mut holding = client.transaction()?;
    holding.batch_execute("LOCK TABLE wanted; INSERT INTO wanted VALUES (1), (700), (1500)")?;
    thread::sleep(Duration::from_secs(6));
    ensure!(!run.has_ended());
    holding.commit()?;
    run.end()?.succeeded()?;
    // It is asked last.
    ensure!(db.value::<bool>("SELECT c = 1 FROM t WHERE id = 1500")?);
    Ok(())
}

#[test]
fn a_look_that_has_found_something_is_followed_by_another_one() -> Result<()> {
    let db = Database::new()?;
    slowly_left_out(&db, ROWS)?;
    db.execute("UPDATE t SET c = 0 WHERE id > 5000")?;
    let filter = "id = 1 OR wanted(c)";
    let call = format!("CALL safe_backfill('t', 'c', 1, filter => '{filter}')");
    let run = db.start(&call)?;
    let verifying =
        "SELECT count(*) = 1 FROM safe_backfill_part WHERE state = 'verifying' AND next_block ";
    db.wait_until(&format!("{verifying} < 4000"))?;
    // On a block that is yet to be looked at: found, and reason enough to look again.
    db.execute(
        "UPDATE t SET c = NULL WHERE id = 1; UPDATE t SET c = NULL, id = 1 WHERE id = 6000",
    )?;
    run.end()?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 2);
    ensure!(asked(&db)? >= 3 * 4999, "asked {} times", asked(&db)?);
    Ok(())
}

/// The age of the oldest transaction, sampled ten times a second.
fn oldest_transaction(db: &Database, application: &str) -> Result<Background<Duration>> {
    let mut client = db.connect()?;
    let query = format!(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
         FROM pg_stat_activity WHERE application_name = '{application}'"
    );
    Ok(Background::start(move |stop: &AtomicBool| {
        let mut oldest = 0.0_f64;
        while !stop.load(Ordering::Relaxed) {
            oldest = oldest.max(client.query_one(&query, &[])?.get(0));
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Duration::from_secs_f64(oldest))
    }))
}

#[test]
fn no_transaction_is_open_for_longer_than_a_second() -> Result<()> {
    let db = Database::new()?;
    slowly_left_out(&db, 2000)?;
    // Rows that are filled fast come first: the pace is that of those when the slow ones come.
    db.execute(
        "CREATE TABLE u (LIKE t INCLUDING ALL);
         INSERT INTO u SELECT i, '', NULL FROM generate_series(1, 300000) i",
    )?;
    let mut other = db.connect()?;
    other.batch_execute("SET application_name = 'alone'")?;
    let alone = Background::start(move |stop: &AtomicBool| {
        while !stop.load(Ordering::Relaxed) {
            other.batch_execute("BEGIN; SELECT pg_sleep(0.02); COMMIT")?;
        }
        Ok(())
    });
    let (beside_age, alone_age) = (
        oldest_transaction(&db, "beside")?,
        oldest_transaction(&db, "alone")?,
    );
    let filter = "id < 298000 OR wanted(c)";
    for call in [
        CALL.to_owned(),
        format!("CALL safe_backfill('u', 'c', 1, filter => '{filter}')"),
    ] {
        db.call_after("SET application_name = 'beside'", &call)?
            .succeeded()?;
    }
    let longest = Longest {
        beside: beside_age.result()?,
        alone: alone_age.result()?,
    };
    alone.result()?;
    longest.is_within(Duration::from_secs(1))
}

#[test]
fn what_a_run_does_is_in_the_statistics_while_it_runs() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 4000) i",
    )?;
    db.slow_down("t")?;
    // Each transaction has its own now(), as ever.
    db.execute(
        "CREATE TABLE late (by interval);
         CREATE FUNCTION be_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF clock_timestamp() - now() > interval '1 second' THEN
                 INSERT INTO late VALUES (clock_timestamp() - now());
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER be_late BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION be_late()",
    )?;
    let run = db.start_after("SET test.pause = 0.001", "CALL safe_backfill('t', 'c', 1)")?;
    db.wait_until("SELECT n_tup_upd >= 500 FROM pg_stat_user_tables WHERE relname = 't'")?;
    ensure!(!run.has_ended(), "it came when all was over");
    run.end()?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM late")?, 0);
    Ok(())
}

/// Within a block of code, others have a connection to SPI that must not be lost: the statistics come when it ends.
#[test]
fn a_long_run_within_a_block_of_code_ends_well() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 1500) i;
         CREATE TABLE done (rows bigint);
         CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
         DECLARE counted bigint;
         BEGIN
             CALL safe_backfill('t', 'c', 1);
             SELECT count(c) INTO counted FROM t;
             INSERT INTO done VALUES (counted);
             COMMIT;
         END $$",
    )?;
    db.slow_down("t")?;
    for block in ["CALL fill()", "DO $$ BEGIN CALL fill(); END $$"] {
        db.execute("UPDATE t SET c = NULL")?;
        db.call_after("SET test.pause = 0.001", block)?
            .succeeded()?;
    }
    assert_eq!(
        db.value::<Vec<i64>>("SELECT array_agg(rows) FROM done")?,
        [1500, 1500]
    );
    Ok(())
}

#[test]
fn progress_is_not_stored_with_every_batch() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 50000) i",
    )?;
    db.call("CALL safe_backfill('t', 'c', 1, 20)")?
        .succeeded()?;
    let batches: i64 = db.value("SELECT batches FROM safe_backfill_part")?;
    ensure!(batches >= 2500, "{batches} batches");
    let writes = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'safe_backfill_part'";
    db.wait_until(&format!("SELECT ({writes}) > 0"))?;
    let seconds = db.value::<f64>(
        "SELECT extract(epoch FROM updated_at - started_at)::float8 FROM safe_backfill_part",
    )?;
    let writes: i64 = db.value(writes)?;
    ensure!(
        writes as f64 <= 6.0 + seconds,
        "{writes} writes in {seconds} s"
    );
    Ok(())
}

#[test]
fn pages_that_are_only_read_leave_those_of_the_application_where_they_are() -> Result<()> {
    let db = Database::alone(Options::default().set("shared_buffers", "16MB"))?;
    db.execute(
        "CREATE TABLE application AS SELECT i AS id, repeat('x', 900) AS filler FROM generate_series(1, 3000) i;
         CREATE TABLE t (id int, filler text, c int) WITH (autovacuum_enabled = off);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 900), 1 FROM generate_series(1, 80000) i;
         ANALYZE t",
    )?;
    db.execute("VACUUM application, t")?;
    let mut client = db.connect()?;
    let mut read = || -> Result<i64> {
        let query = "EXPLAIN (ANALYZE, BUFFERS) SELECT count(*) FROM application";
        for row in client.query(query, &[])? {
            let line: &str = row.get(0);
            if let Some((_, buffers)) = line.split_once("Buffers: shared") {
                let read = buffers.split("read=").nth(1).unwrap_or("0");
                let digits: String = read.chars().take_while(char::is_ascii_digit).collect();
                return Ok(digits.parse()?);
            }
        }
        bail!("no number of blocks")
    };
    read()?;
    read()?;
    assert_eq!(read()?, 0, "it is not in shared buffers in the first place");
    db.call("CALL safe_backfill('t', 'c', 2)")?.succeeded()?;
    let blocks = read()?;
    ensure!(blocks < 30, "{blocks} of 375 blocks had to be read again");
    Ok(())
}
