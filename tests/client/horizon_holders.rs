//! Who is named as the holder of the xmin horizon, when several hold it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use client_tests::{Database, Options, PATIENCE, Shutdown, saying, signal};

use crate::horizon::{counts, fill, names, standby_with_feedback, table};

const IMPATIENTLY: &str = "SET safe_backfill.horizon_patience = 0";
const CALL: &str = "CALL safe_backfill('t', 'c', 1)";

fn with_prepared_transactions() -> Options {
    Options::default().set("max_prepared_transactions", 2)
}

/// Waits until the feedback of the standby goes back to the oldest transaction that is prepared or has written.
fn wait_for_feedback(db: &Database) -> Result<()> {
    db.wait_until(
        "SELECT r.backend_xmin IN (SELECT transaction FROM pg_prepared_xacts
                                   UNION ALL SELECT backend_xid FROM pg_stat_activity) FROM pg_stat_replication r",
    )
}

#[test]
fn a_prepared_transaction_is_named_before_the_standby_that_follows_it() -> Result<()> {
    let db = Database::alone(with_prepared_transactions())?;
    table(&db)?;
    db.execute("CREATE TABLE other (id int)")?;
    let _standby = standby_with_feedback(&db, "1s", "")?;
    db.execute("BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'forgotten one'")?;
    wait_for_feedback(&db)?;
    let notices = fill(&db);
    db.execute("ROLLBACK PREPARED 'forgotten one'")?;
    names(&notices?, "\"forgotten one\"")
}

#[test]
fn a_transaction_of_another_database_counts_where_a_standby_takes_it_over() -> Result<()> {
    let db = Database::alone(with_prepared_transactions())?;
    table(&db)?;
    db.server().create_database("elsewhere")?;
    let mut session = db
        .server()
        .connect_as(client_tests::SUPERUSER, "elsewhere")?;
    session.batch_execute("CREATE TABLE other (id int); BEGIN; INSERT INTO other VALUES (1)")?;
    thread::sleep(Duration::from_millis(300));
    let notices = fill(&db)?;
    ensure!(
        saying(&notices, "dead row versions").is_empty(),
        "{notices:#?}"
    );
    let (rows, hot) = counts(&db)?;
    ensure!(hot / rows > 0.8, "{hot} of {rows}");

    let _standby = standby_with_feedback(&db, "1s", "")?;
    wait_for_feedback(&db)?;
    db.execute("UPDATE t SET c = NULL")?;
    let notices = db.call_after(IMPATIENTLY, CALL)?.succeeded()?;
    names(&notices, "database \"elsewhere\"), whose transaction began")?;

    session.batch_execute("PREPARE TRANSACTION 'elsewhere'")?;
    db.execute("UPDATE t SET c = NULL")?;
    let notices = db.call_after(IMPATIENTLY, CALL)?.succeeded();
    session.batch_execute("ROLLBACK PREPARED 'elsewhere'")?;
    names(&notices?, "in database \"elsewhere\"")
}

#[test]
fn a_standby_that_catches_up_is_a_standby() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    db.execute("SELECT pg_create_physical_replication_slot('late', true)")?;
    let standby = standby_with_feedback(&db, "1h", "late")?;
    standby.stop(Shutdown::Fast)?;
    db.execute(
        "CREATE TABLE other AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 200000) i",
    )?;
    standby.start_again()?;
    db.wait_until("SELECT state = 'catchup' AND replay_lsn IS NOT NULL FROM pg_stat_replication")?;
    let receiver: i32 = standby
        .connect()?
        .query_one("SELECT pid FROM pg_stat_wal_receiver", &[])?
        .get(0);
    signal("-STOP", receiver)?;
    let notices = db.call_after(
        "SET safe_backfill.horizon_patience = 0; SET safe_backfill.max_replica_lag = 0",
        CALL,
    );
    signal("-CONT", receiver)?;
    names(&notices?.succeeded()?, "standby \"")
}

#[test]
fn an_autovacuum_worker_is_named_as_one() -> Result<()> {
    let slowly = Options::default()
        .set("autovacuum", "on")
        .set("autovacuum_naptime", "1s")
        .set("autovacuum_vacuum_cost_delay", "100ms")
        .set("autovacuum_vacuum_cost_limit", 1);
    let db = Database::alone(slowly)?;
    table(&db)?;
    db.execute(
        "ALTER TABLE t SET (autovacuum_enabled = off);
         CREATE TABLE other WITH (autovacuum_vacuum_insert_threshold = -1)
         AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 20000) i",
    )?;
    db.wait_until(
        "SELECT count(*) > 0 FROM pg_stat_activity
         WHERE backend_type = 'autovacuum worker' AND backend_xmin IS NOT NULL
         AND query LIKE '%ANALYZE public.other%' AND clock_timestamp() - xact_start > interval '1 second'",
    )?;
    let notices = db.call_after(IMPATIENTLY, CALL)?.succeeded()?;
    names(&notices, "(autovacuum worker), whose transaction began")
}

#[test]
fn a_lost_slot_holds_nothing() -> Result<()> {
    let db = Database::alone(with_prepared_transactions())?;
    table(&db)?;
    db.execute(
        "CREATE TABLE other (id int); SELECT pg_create_physical_replication_slot('gone', true)",
    )?;
    standby_with_feedback(&db, "1s", "gone")?.stop(Shutdown::Fast)?;
    db.execute("BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'forgotten one'")?;
    // Not before: a slot that is lost while the standby is made cannot be used by it.
    db.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")?;
    db.execute("SELECT pg_reload_conf()")?;
    for _ in 0..4 {
        db.execute("INSERT INTO other VALUES (2); SELECT pg_switch_wal()")?;
    }
    db.execute("CHECKPOINT")?;
    db.wait_until("SELECT wal_status = 'lost' AND xmin IS NOT NULL FROM pg_replication_slots")?;
    let notices = fill(&db);
    db.execute("ROLLBACK PREPARED 'forgotten one'")?;
    names(&notices?, "\"forgotten one\"")
}

#[test]
fn a_logical_slot_holds_only_tables_that_decoding_reads() -> Result<()> {
    let db = Database::alone(Options::default().set("wal_level", "logical"))?;
    table(&db)?;
    db.execute("SELECT pg_create_logical_replication_slot('decoding', 'pgoutput')")?;
    let notices = fill(&db)?;
    ensure!(
        saying(&notices, "dead row versions").is_empty(),
        "{notices:#?}"
    );
    db.execute("UPDATE t SET c = NULL; ALTER TABLE t SET (user_catalog_table)")?;
    names(
        &db.call(CALL)?.succeeded()?,
        "replication slot \"decoding\"",
    )
}

#[test]
fn not_every_one_of_many_short_holders_is_named() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let has_ended = AtomicBool::new(false);
    let report = |db: &Database| -> Result<()> {
        let mut client = db.connect()?;
        while !has_ended.load(Ordering::Relaxed) {
            client.batch_execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t LIMIT 1; SELECT pg_sleep(0.8); COMMIT",
            )?;
        }
        Ok(())
    };
    let notices = thread::scope(|scope| {
        let first = scope.spawn(|| report(&db));
        thread::sleep(Duration::from_millis(400));
        let second = scope.spawn(|| report(&db));
        let ended = db.call_after(
            "SET safe_backfill.horizon_patience = 0; SET safe_backfill.progress_interval = '1h';
             SET safe_backfill.pause = '50ms'",
            "CALL safe_backfill('t', 'c', 1, 500)",
        );
        has_ended.store(true, Ordering::Relaxed);
        for reports in [first, second] {
            ensure!(matches!(reports.join(), Ok(Ok(()))), "a report has failed");
        }
        ended?.succeeded()
    })?;
    names(&notices, "process")
}

#[test]
fn a_long_wait_is_told_anew() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db)?;
    db.execute("CREATE TABLE other (filler text)")?;
    // What it has to replay differs from one moment to the next.
    let _standby = standby_with_feedback(&db, "4s", "")?;
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let mut client = db.connect()?;
            while !has_ended.load(Ordering::Relaxed) {
                client.batch_execute("INSERT INTO other VALUES (repeat('x', 1000))")?;
            }
            Ok(())
        });
        let run = db.start_after("SET safe_backfill.horizon_patience = 1000", CALL)?;
        let changes = until_a_wait_is_told_twice(&db);
        run.cancel()?;
        run.end()?;
        has_ended.store(true, Ordering::Relaxed);
        ensure!(matches!(writer.join(), Ok(Ok(()))), "the writer has failed");
        changes
    })
}

/// Waits until `waits_for` differs from what it was before during the same wait.
fn until_a_wait_is_told_twice(db: &Database) -> Result<()> {
    const TOLD: &str =
        "SELECT waits_for, extract(epoch FROM waits_since)::float8 FROM safe_backfill_progress
                        WHERE waits_for LIKE 'the xmin horizon, held by standby%'";
    let mut client = db.connect()?;
    let mut before: Option<(String, f64)> = None;
    let began = Instant::now();
    while began.elapsed() < PATIENCE / 2 {
        if let Some(row) = client.query_opt(TOLD, &[])? {
            let (told, since): (String, f64) = (row.get(0), row.get(1));
            match &before {
                Some((same, then)) if (since - then).abs() < 0.5 => {
                    if *same != told {
                        return Ok(());
                    }
                }
                _ => before = Some((told, since)),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("it says the same from the beginning of a wait to its end: {before:?}")
}
