//! Batches wait while others do not keep up: standbys, slots, the archiver, autovacuum, and whatever the user asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, Run, Server, failure, only, saying, signal};

const CALL: &str = "CALL safe_backfill('t', 'c', 1)";

/// A table that takes about 80 bytes of WAL for each row.
fn table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, filler text, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, repeat('x', 60), NULL FROM generate_series(1, {rows}) i;
         CREATE INDEX ON t (filler, id)"
    ))?;
    db.execute("VACUUM t")
}

fn filled(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c IS NOT NULL")
}

fn wait_until_it_waits_for(db: &Database, what: &str) -> Result<()> {
    db.wait_until(&format!(
        "SELECT state = 'waiting' AND waits_for LIKE '%{what}%' AND waits_since < clock_timestamp()
         FROM safe_backfill_progress"
    ))
}

/// Nothing but the lock that keeps a second run off the column; what it asks from time to time takes milliseconds.
fn ensure_it_holds_nothing(db: &Database, run: &Run) -> Result<()> {
    db.wait_until(&format!(
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = {0} AND locktype NOT IN ('object', 'virtualxid'))
         AND NOT EXISTS (SELECT FROM pg_stat_activity
                         WHERE pid = {0} AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL))",
        run.pid
    ))
}

/// No row is filled while it waits, and nothing is held.
fn ensure_it_stands_still(db: &Database, run: &Run) -> Result<()> {
    let before = filled(db)?;
    thread::sleep(Duration::from_millis(400));
    ensure!(!run.has_ended());
    assert_eq!(filled(db)?, before);
    ensure_it_holds_nothing(db, run)
}

fn set(db: &Database, setting: &str, value: &str) -> Result<()> {
    db.execute(&format!(
        "ALTER SYSTEM SET safe_backfill.{setting} = '{value}'"
    ))?;
    db.execute("SELECT pg_reload_conf()")
}

/// A server that knows the settings before anybody has loaded the library.
fn alone(options: Options) -> Result<Database> {
    Database::alone(options.set("shared_preload_libraries", "pg_safe_backfill"))
}

/// A standby that has caught up.
fn standby_of(db: &Database) -> Result<Server> {
    let standby = Server::standby_of(db.server(), Options::default())?;
    standby.catch_up_with(db.server())?;
    Ok(standby)
}

#[test]
fn a_standby_that_does_not_replay_is_waited_for() -> Result<()> {
    let db = alone(Options::default())?;
    table(&db, 400_000)?;
    let standby = standby_of(&db)?;
    standby
        .connect()?
        .batch_execute("SELECT pg_wal_replay_pause()")?;
    let run = db.start(CALL)?;
    wait_until_it_waits_for(&db, "standby \"walreceiver\"")?;
    // As long as the speed of a standby is not known, it may have 8 MB to replay. Others wrote some WAL, too.
    let behind: i64 = db.value(
        "SELECT (pg_current_wal_insert_lsn() - replay_lsn)::bigint FROM pg_stat_replication",
    )?;
    let batch = 10_000 * behind / filled(&db)?.max(1);
    ensure!(
        behind < 8 * 1024 * 1024 + batch + 1_000_000,
        "{behind} bytes behind, where a batch writes {batch}"
    );
    let end = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let before: i64 = db.value(end)?;
    ensure_it_stands_still(&db, &run)?;
    let more = db.value::<i64>(end)? - before;
    ensure!(
        more < 1_000_000,
        "{more} bytes of WAL were written while it waited"
    );
    standby
        .connect()?
        .batch_execute("SELECT pg_wal_replay_resume()")?;
    let notices = run.end()?.succeeded()?;
    let waits = saying(&notices, "the backfill waits for standby \"walreceiver\"");
    assert_eq!(waits.len(), 1, "{notices:#?}");
    ensure!(
        waits[0]
            .hint
            .as_deref()
            .is_some_and(|hint| hint.contains("safe_backfill.max_replica_lag"))
    );
    assert_eq!(filled(&db)?, 400_000);
    Ok(())
}

#[test]
fn an_ignored_standby_is_not_waited_for() -> Result<()> {
    let db = alone(Options::default().set("safe_backfill.ignored_standbys", "other, walreceiver"))?;
    table(&db, 400_000)?;
    let standby = standby_of(&db)?;
    standby
        .connect()?
        .batch_execute("SELECT pg_wal_replay_pause()")?;
    let notices = db.call(CALL)?.succeeded()?;
    ensure!(saying(&notices, "waits for").is_empty(), "{notices:#?}");
    Ok(())
}

/// How long the standby was behind at most, by the WAL that it had not replayed, until `ended`.
fn longest_lag(db: &Database, standby: &Server, ended: &AtomicBool) -> Result<Duration> {
    let (mut here, mut there) = (db.connect()?, standby.connect()?);
    let mut ends: Vec<(Instant, i64)> = vec![];
    let mut longest = Duration::ZERO;
    loop {
        let was_ended = ended.load(Ordering::Relaxed);
        let end: i64 = here
            .query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", &[])?
            .get(0);
        ends.push((Instant::now(), end));
        let replayed: i64 = there
            .query_one("SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint", &[])?
            .get(0);
        let first = ends.partition_point(|(_, end)| *end <= replayed);
        longest = longest.max(
            ends.get(first)
                .map_or(Duration::ZERO, |(at, _)| at.elapsed()),
        );
        if was_ended && ends.get(first).is_none() {
            return Ok(longest);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// How long a process has run on a processor.
fn processor_time(pid: i32) -> Result<Duration> {
    let times = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanos = times.split(' ').next().context("no times")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// Lets a process run in one part of twenty of the time, however busy the processors are.
fn slow_down(pid: i32, ended: &AtomicBool) -> Result<()> {
    const RUN: Duration = Duration::from_millis(10);
    while !ended.load(Ordering::Relaxed) {
        signal("-STOP", pid)?;
        thread::sleep(RUN * 19);
        let (enough, late) = (processor_time(pid)? + RUN, Instant::now() + RUN * 19);
        signal("-CONT", pid)?;
        while processor_time(pid)? < enough && Instant::now() < late {
            thread::sleep(RUN / 5);
        }
    }
    signal("-CONT", pid)
}

#[test]
fn a_slow_standby_is_never_behind_for_longer_than_the_limit() -> Result<()> {
    let db = alone(Options::default())?;
    table(&db, 700_000)?;
    let standby = standby_of(&db)?;
    let startup = standby
        .connect()?
        .query_one(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'",
            &[],
        )?
        .get(0);
    let ended = AtomicBool::new(false);
    let (lag, notices) = thread::scope(|scope| -> Result<_> {
        let slowed = scope.spawn(|| slow_down(startup, &ended));
        let lag = scope.spawn(|| longest_lag(&db, &standby, &ended));
        let notices = db.call(CALL).and_then(|ended| ended.succeeded());
        ended.store(true, Ordering::Relaxed);
        slowed.join().ok().context("the thread")??;
        Ok((lag.join().ok().context("the thread")??, notices?))
    })?;
    ensure!(
        !saying(&notices, "waits for standby").is_empty(),
        "{notices:#?}"
    );
    ensure!(lag < Duration::from_secs(10), "{lag:?}");
    Ok(())
}

#[test]
fn a_slot_that_nobody_reads_is_waited_for() -> Result<()> {
    let db = alone(Options::default().set("wal_level", "logical"))?;
    db.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")?;
    table(&db, 50_000)?;
    set(&db, "max_slot_lag", "1MB")?;
    let run = db.start(CALL)?;
    wait_until_it_waits_for(&db, "replication slot \"forgotten\"")?;
    ensure_it_stands_still(&db, &run)?;
    db.execute("SELECT pg_drop_replication_slot('forgotten')")?;
    run.end()?.succeeded()?;
    assert_eq!(filled(&db)?, 50_000);
    Ok(())
}

fn failing_archiver() -> Result<Database> {
    let db = alone(
        Options::default()
            .set("archive_mode", "on")
            .set("archive_command", "false"),
    )?;
    table(&db, 50_000)?;
    db.execute("SELECT pg_switch_wal()")?;
    db.wait_until("SELECT failed_count > 0 FROM pg_stat_archiver")?;
    Ok(db)
}

#[test]
fn an_archiver_that_fails_is_waited_for() -> Result<()> {
    let db = failing_archiver()?;
    let run = db.start(CALL)?;
    wait_until_it_waits_for(&db, "the WAL archiver")?;
    ensure_it_stands_still(&db, &run)?;
    db.execute("ALTER SYSTEM SET archive_command = 'true'")?;
    db.execute("SELECT pg_reload_conf()")?;
    let notices = run.end()?.succeeded()?;
    assert_eq!(
        saying(&notices, "the backfill waits for the WAL archiver").len(),
        1
    );
    Ok(())
}

#[test]
fn an_archiver_that_fails_is_a_warning_if_that_is_set() -> Result<()> {
    let db = failing_archiver()?;
    set(&db, "archive_lag_action", "warn")?;
    let notices = db.call(CALL)?.succeeded()?;
    let warning = only(&notices, "WARNING")?;
    ensure!(warning.message.contains("the WAL archiver"), "{warning}");
    assert_eq!(filled(&db)?, 50_000);
    Ok(())
}

#[test]
fn an_archiver_that_begins_to_fail_is_noticed_within_a_minute() -> Result<()> {
    let db = alone(
        Options::default()
            .set("archive_mode", "on")
            .set("archive_command", "true"),
    )?;
    table(&db, 50_000)?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.002",
        "CALL safe_backfill('t', 'c', 1, 100)",
    )?;
    run.wait_for_rows("t", 100)?;
    db.execute("ALTER SYSTEM SET archive_command = 'false'")?;
    db.execute("SELECT pg_reload_conf()")?;
    db.execute("SELECT pg_switch_wal()")?;
    let began = Instant::now();
    wait_until_it_waits_for(&db, "the WAL archiver")?;
    ensure!(began.elapsed() < Duration::from_secs(60));
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    Ok(())
}

#[test]
fn settings_reach_a_job_in_the_background_and_its_helpers() -> Result<()> {
    let db = alone(Options::default())?;
    table(&db, 20_000)?;
    db.slow_down("t")?;
    db.execute("ALTER DATABASE postgres SET test.pause = 0.001")?;
    db.connect()?
        .batch_execute("SELECT safe_backfill_start('t', 'c', 1, 100, workers => 2)")?;
    db.wait_until("SELECT count(*) > 500 FROM t WHERE c = 1")?;
    set(&db, "pause", "1h")?;
    wait_until_it_waits_for(&db, "the next batch")?;
    // The other process may be in a batch still.
    thread::sleep(Duration::from_millis(500));
    let before = filled(&db)?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!(filled(&db)?, before);
    ensure!(before < 20_000);
    db.execute("ALTER TABLE t DISABLE TRIGGER USER")?;
    set(&db, "pause", "0")?;
    db.wait_until("SELECT state = 'completed' FROM safe_backfill_progress")?;
    assert_eq!(filled(&db)?, 20_000);
    Ok(())
}

#[test]
fn a_large_pg_wal_is_waited_for() -> Result<()> {
    let db = alone(Options::default())?;
    table(&db, 50_000)?;
    set(&db, "max_pg_wal_size", "1MB")?;
    let run = db.start(CALL)?;
    wait_until_it_waits_for(&db, "the directory pg_wal")?;
    ensure_it_stands_still(&db, &run)?;
    set(&db, "max_pg_wal_size", "0")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn autovacuum_on_the_table_is_waited_for_if_that_is_set() -> Result<()> {
    let db = alone(
        Options::default()
            .set("autovacuum_naptime", "1s")
            .set("autovacuum_vacuum_cost_delay", "100ms")
            .set("autovacuum_vacuum_cost_limit", 1),
    )?;
    table(&db, 50_000)?;
    db.execute("DELETE FROM t WHERE id % 2 = 0; ALTER TABLE t SET (autovacuum_enabled = on, autovacuum_vacuum_scale_factor = 0.01)")?;
    db.wait_until("SELECT count(*) > 0 FROM pg_stat_progress_vacuum")?;
    let run = db.start_after("SET safe_backfill.hold_for_autovacuum = on", CALL)?;
    wait_until_it_waits_for(&db, "autovacuum of the table by process")?;
    ensure_it_stands_still(&db, &run)?;
    db.execute("ALTER TABLE t SET (autovacuum_enabled = off)")?;
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn a_query_of_the_users_holds_it_with_the_callers_rights() -> Result<()> {
    let db = Database::new()?;
    table(&db, 50_000)?;
    db.execute("CREATE TABLE busy (yes boolean); INSERT INTO busy VALUES (true)")?;
    let hold = |query: &str| format!("SET safe_backfill.hold_while = $$ {query} $$");
    let run = db.start_after(&hold("SELECT yes FROM busy"), CALL)?;
    wait_until_it_waits_for(&db, "safe_backfill.hold_while")?;
    ensure_it_stands_still(&db, &run)?;
    db.execute("UPDATE busy SET yes = false")?;
    run.end()?.succeeded()?;
    for (query, why) in [
        (
            "SELECT yes FROM nothing",
            "relation \"nothing\" does not exist",
        ),
        ("SELECT 1", "not a boolean"),
        (
            "WITH written AS (INSERT INTO busy VALUES (true) RETURNING yes) SELECT yes FROM written",
            "read-only transaction",
        ),
        (
            "INSERT INTO busy VALUES (true) RETURNING yes",
            "not one query",
        ),
        ("SELECT true; DROP TABLE busy", "not one query"),
        ("SET search_path = nowhere", "not one query"),
        ("CHECKPOINT", "not one query"),
        (";", "not one query"),
    ] {
        db.execute("UPDATE t SET c = NULL WHERE id = 1")?;
        let error = db.call_after(&hold(query), CALL)?.failed_with("22023")?;
        ensure!(
            error
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains(why)),
            "{error}"
        );
    }
    for query in [
        "SELECT NULL::boolean",
        "SELECT true WHERE false",
        "SELECT count(*) > 1000 FROM busy",
    ] {
        db.execute("UPDATE t SET c = NULL WHERE id = 1")?;
        db.call_after(&hold(query), CALL)?.succeeded()?;
    }
    db.execute(
        "DO $$ BEGIN IF to_regrole('careful') IS NULL THEN CREATE ROLE careful LOGIN; END IF; END $$;
         GRANT SELECT, UPDATE ON t TO careful; UPDATE t SET c = NULL WHERE id = 1",
    )?;
    let error = db
        .start_as("careful", &hold("SELECT yes FROM busy"), CALL)?
        .end()?
        .failed_with("22023")?;
    ensure!(
        error
            .detail
            .as_deref()
            .is_some_and(|detail| detail.contains("permission denied")),
        "{error}"
    );
    Ok(())
}

/// One that never answers must not keep the run from being cancelled, and counts as true.
#[test]
fn a_query_that_takes_long_holds_it() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    let setup = "SET safe_backfill.hold_while = 'SELECT pg_sleep(60) IS NULL'";
    let run = db.start_after(setup, CALL)?;
    wait_until_it_waits_for(&db, "safe_backfill.hold_while")?;
    assert_eq!(filled(&db)?, 0);
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    Ok(())
}

/// A batch that was committed: seconds since the first one, and rows.
type Batch = (f64, i64);

/// The batches that were committed so far, in their order. The server has `track_commit_timestamp = on`.
fn batches(db: &Database) -> Result<Vec<Batch>> {
    const BATCHES: &str = "
        SELECT extract(epoch FROM at - min(at) OVER ())::float8, rows
        FROM (SELECT pg_xact_commit_timestamp(xmin) AS at, count(*) AS rows FROM t WHERE c = 1 GROUP BY 1) b
        ORDER BY at";
    let rows = db.connect()?.query(BATCHES, &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Sets this, lets so many batches be committed, and returns those but the first two, and how long each took.
fn batches_after(db: &Database, setting: &str, value: &str, more: usize) -> Result<Vec<Batch>> {
    set(db, setting, value)?;
    let before = batches(db)?.len();
    db.wait_until(&format!(
        "SELECT count(DISTINCT pg_xact_commit_timestamp(xmin)) >= {} FROM t WHERE c = 1",
        before + more
    ))?;
    let all = batches(db)?;
    let new = all.windows(2).skip(before + 1);
    Ok(new.map(|two| (two[1].0 - two[0].0, two[1].1)).collect())
}

#[test]
fn settings_change_a_run_within_two_batches() -> Result<()> {
    let db = alone(Options::default().set("track_commit_timestamp", "on"))?;
    table(&db, 100_000)?;
    db.slow_down("t")?;
    // Whatever the machine does beside, a row takes a millisecond at least.
    let run = db.start_after(
        "SET test.pause = 0.001",
        "CALL safe_backfill('t', 'c', 1, 1000)",
    )?;
    for (time, most) in [("20ms", 20), ("500ms", 500), ("20ms", 20)] {
        for (_, rows) in batches_after(&db, "max_batch_time", time, 6)? {
            ensure!(rows <= most, "{rows} rows in a batch of {time}");
            // A statement that was too long is followed by a shorter one.
            ensure!(rows > most / 100, "{rows} rows in a batch of {time}");
        }
    }
    for (_, rows) in batches_after(&db, "max_batch_time", "500ms", 6)? {
        ensure!(rows > 20, "{rows} rows in a batch of 500 ms");
    }
    set(&db, "max_batch_time", "20ms")?;
    for (time, _) in batches_after(&db, "pause", "400ms", 5)? {
        ensure!(time >= 0.4, "{time} s between two batches");
    }
    let unhurried = batches_after(&db, "pause", "0", 8)?;
    ensure!(
        unhurried.iter().any(|(time, _)| *time < 0.4),
        "{unhurried:?}"
    );
    batches_after(&db, "pause", "200ms", 3)?;
    set(&db, "pause", "1h")?;
    wait_until_it_waits_for(&db, "the next batch")?;
    let before = filled(&db)?;
    ensure_it_stands_still(&db, &run)?;
    assert_eq!(filled(&db)?, before);
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    Ok(())
}

#[test]
fn the_first_wait_of_each_kind_is_told() -> Result<()> {
    let db = Database::new()?;
    table(&db, 400)?;
    let (mut one, mut another) = (db.connect()?, db.connect()?);
    let mut holds_row = one.transaction()?;
    holds_row.execute("SELECT FROM t WHERE id = 400 FOR UPDATE", &[])?;
    let run = db.start_after(
        "SET safe_backfill.pause = '1100ms'",
        "CALL safe_backfill('t', 'c', 1, 100)",
    )?;
    run.wait_for_rows("t", 1)?;
    let mut holds_table = another.transaction()?;
    holds_table.execute("LOCK TABLE t IN SHARE MODE", &[])?;
    wait_until_it_waits_for(&db, "a lock on table \"t\", held by process %")?;
    holds_table.commit()?;
    wait_until_it_waits_for(&db, "locks on 1 row of table \"t\", held by process %")?;
    holds_row.commit()?;
    let notices = run.end()?.succeeded()?;
    for (wait, setting) in [
        ("the next batch, for 1.", Some("pause")),
        ("a lock on table \"t\"", None),
        ("locks on 1 row of table \"t\"", Some("row_lock_timeout")),
    ] {
        let told = saying(&notices, &format!("the backfill waits for {wait}"));
        assert_eq!(told.len(), 1, "{wait}: {notices:#?}");
        let hint = setting.map(|setting| format!("See \"safe_backfill.{setting}\"."));
        assert_eq!(told[0].hint, hint);
    }
    Ok(())
}

#[test]
fn wal_is_written_no_faster_than_allowed() -> Result<()> {
    let db = Database::new()?;
    table(&db, 100_000)?;
    let began = Instant::now();
    db.call_after("SET safe_backfill.max_wal_rate = '5MB'", CALL)?
        .succeeded()?;
    let time = began.elapsed().as_secs_f64();
    let wal: i64 = db.value("SELECT wal_bytes FROM safe_backfill_progress")?;
    ensure!(wal as f64 / time < 5.5e6, "{wal} bytes in {time} s");
    ensure!(wal > 5_000_000, "{wal} bytes");
    Ok(())
}

#[test]
fn settings_have_units_and_limits() -> Result<()> {
    let db = Database::new()?;
    let mut client = db.connect()?;
    client.batch_execute("LOAD 'pg_safe_backfill'")?;
    for setting in [
        "pause = '2 days'",
        "pause = '-1'",
        "pause = '1MB'",
        "max_wal_rate = '-1kB'",
        "max_wal_rate = '1s'",
        "max_replica_lag = '25h'",
        "max_replica_lag = 'x'",
        "max_slot_lag = '1min'",
        "max_archive_lag = '-5'",
        "archive_lag_action = 'panic'",
        "max_pg_wal_size = '1s'",
        "max_pg_wal_size = '3000TB'",
        "max_wal_rate = '3000TB'",
        "max_slot_lag = '3000TB'",
        "max_archive_lag = '3000TB'",
        "hold_for_autovacuum = 'perhaps'",
        "max_replica_lag = '-1'",
        "max_slot_lag = '-1'",
        "max_pg_wal_size = '-1'",
        "max_batch_time = '0'",
        "max_batch_time = '11min'",
        "row_lock_timeout = '0'",
        "row_lock_timeout = '2d'",
        "lock_timeout = '0'",
        "lock_timeout = '2d'",
        "lock_retry_limit = '-1'",
        "lock_retry_limit = '2147483648'",
        "horizon_patience = '-0.1'",
        "horizon_patience = '1001'",
        "horizon_patience = 'long'",
        "progress_interval = '-1'",
        "progress_interval = '30d'",
    ] {
        let error = client
            .batch_execute(&format!("SET safe_backfill.{setting}"))
            .err();
        failure(error.with_context(|| setting.to_owned())?, "22023")?;
    }
    client.batch_execute(
        "SET safe_backfill.pause = '1min'; SET safe_backfill.max_wal_rate = '1GB'; SET safe_backfill.max_replica_lag = 0;
         SET safe_backfill.max_slot_lag = '1TB'; SET safe_backfill.archive_lag_action = warn",
    )?;
    Ok(())
}
