//! Synchronous standbys: what a CALL has done is confirmed when it returns, and nobody waits for its locks meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client_tests::{Database, Options, PATIENCE, Run, Server, Shutdown, saying};

/// The levels of `synchronous_commit` that wait for a standby.
const LEVELS: [&str; 3] = ["on", "remote_write", "remote_apply"];
/// Far more than any statement of the application takes that does not wait.
const SHORT: &str = "SET statement_timeout = '5s'";

/// A server whose commits wait for these standbys, but only in sessions that ask for it.
fn primary(standbys: &str) -> Result<Database> {
    let options = Options::default()
        .set("synchronous_standby_names", standbys)
        .set("synchronous_commit", "local");
    let db = Database::alone(options)?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, c int DEFAULT 1);
         INSERT INTO t SELECT i, 0, NULL FROM generate_series(1, 300) i",
    )?;
    Ok(db)
}

fn standby_of(db: &Database, options: Options) -> Result<Server> {
    let standby = Server::standby_of(db.server(), options)?;
    confirming(db)?;
    Ok(standby)
}

/// Waits until the standby confirms commits.
fn confirming(db: &Database) -> Result<()> {
    db.wait_until(
        "SELECT count(*) > 0 FROM pg_stat_replication
         WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')",
    )
}

/// Starts a CALL in a session with this `synchronous_commit`.
fn start(db: &Database, level: &str, call: &str) -> Result<Run> {
    db.start_after(&format!("SET synchronous_commit = {level}"), call)
}

/// Waits until the CALL waits for a standby that does not answer.
fn until_it_waits(db: &Database, run: &Run) -> Result<()> {
    db.wait_until(&format!(
        "SELECT wait_event = 'SyncRep' AND NOT EXISTS (SELECT FROM pg_stat_replication)
         FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))
}

/// Runs statements of the application, none of which may wait, while the CALL does.
fn meanwhile(db: &Database, run: &Run, statements: &[&str]) -> Result<()> {
    let mut application = db.connect()?;
    application.batch_execute(SHORT)?;
    for statement in statements {
        if let Err(error) = application.batch_execute(statement) {
            anyhow::bail!("{statement}: {error:?}");
        }
    }
    ensure!(!run.has_ended(), "the CALL did not wait for the standby");
    Ok(())
}

/// Requires no standby any more, after which the CALL must succeed.
fn ends_without_standbys(db: &Database, run: Run) -> Result<()> {
    db.execute("ALTER SYSTEM SET synchronous_standby_names = ''")?;
    db.execute("SELECT pg_reload_conf()")?;
    run.end()?.succeeded()?;
    Ok(())
}

#[test]
fn others_read_and_write_while_safe_add_column_waits_for_a_standby() -> Result<()> {
    let db = primary("nobody")?;
    let run = start(&db, "on", "CALL safe_add_column('t', 'd', 'int', 7)")?;
    until_it_waits(&db, &run)?;
    meanwhile(
        &db,
        &run,
        &[
            "SELECT count(d) FROM t",
            "UPDATE t SET n = n + 1, d = 8",
            "INSERT INTO t (id) VALUES (1000)",
        ],
    )?;
    ends_without_standbys(&db, run)
}

#[test]
fn others_read_and_write_while_safe_backfill_waits_for_a_standby() -> Result<()> {
    let db = primary("nobody")?;
    let run = start(&db, "on", "CALL safe_backfill('t', 'c', 1, 50)")?;
    until_it_waits(&db, &run)?;
    // The first batch is seen, and nobody waits for its rows; the next one begins when it has been confirmed.
    let filled = "SELECT count(*) FROM t WHERE c = 1 AND id <= 300";
    let rows: i64 = db.value(filled)?;
    ensure!((1..300).contains(&rows), "{rows} rows");
    meanwhile(
        &db,
        &run,
        &[
            "SELECT FROM t WHERE c = 1 FOR UPDATE",
            "UPDATE t SET n = n + 1",
            "INSERT INTO t (id) VALUES (1000)",
        ],
    )?;
    assert_eq!(db.value::<i64>(filled)?, rows);
    ends_without_standbys(&db, run)?;
    assert_eq!(db.value::<i64>(filled)?, 300);
    Ok(())
}

#[test]
fn others_read_and_write_while_safe_set_not_null_waits_for_a_standby() -> Result<()> {
    let db = primary("nobody")?;
    db.execute("UPDATE t SET c = 1")?;
    let run = start(&db, "on", "CALL safe_set_not_null('t', 'c')")?;
    until_it_waits(&db, &run)?;
    meanwhile(
        &db,
        &run,
        &[
            "SELECT count(c) FROM t",
            "UPDATE t SET n = n + 1, c = 2",
            "INSERT INTO t (id, c) VALUES (1000, 1)",
        ],
    )?;
    ends_without_standbys(&db, run)?;
    ensure!(db.value::<bool>(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'"
    )?);
    Ok(())
}

#[test]
fn rows_filled_are_free_while_the_standby_is_away_and_the_run_goes_on_when_it_is_back() -> Result<()>
{
    let db = primary("*")?;
    let standby = standby_of(&db, Options::default())?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET synchronous_commit = on; SET test.pause = 0.005",
        "CALL safe_backfill('t', 'c', 1, 10)",
    )?;
    run.wait_for_rows("t", 30)?;
    standby.stop(Shutdown::Immediate)?;
    until_it_waits(&db, &run)?;
    meanwhile(
        &db,
        &run,
        &[
            "SELECT count(c) FROM t",
            "UPDATE t SET n = n + 1",
            "SELECT FROM t FOR UPDATE",
        ],
    )?;
    let rows: i64 = db.value("SELECT count(*) FROM t WHERE c = 1")?;
    ensure!((30..300).contains(&rows), "{rows} rows");

    standby.start_again()?;
    run.end()?.succeeded()?;
    standby.catch_up_with(db.server())?;
    assert_eq!(filled_on(&standby)?, 300);
    Ok(())
}

#[test]
fn every_level_that_waits_is_honoured_and_a_cancel_ends_the_wait() -> Result<()> {
    let db = primary("nobody")?;
    for level in LEVELS {
        let run = start(
            &db,
            level,
            &format!("CALL safe_add_column('t', 'by_{level}', 'int')"),
        )?;
        until_it_waits(&db, &run)?;
        run.cancel()?;
        run.end()?.failed_with("57014")?;
    }
    for level in ["local", "off"] {
        start(
            &db,
            level,
            &format!("CALL safe_add_column('t', 'by_{level}', 'int')"),
        )?
        .end()?
        .succeeded()?;
    }
    start(&db, "local", "CALL safe_backfill('t', 'c', 1)")?
        .end()?
        .succeeded()?;
    start(&db, "local", "CALL safe_set_not_null('t', 'c')")?
        .end()?
        .succeeded()?;
    Ok(())
}

#[test]
fn a_run_that_waits_for_a_standby_ends_within_a_batch_when_it_is_told_to() -> Result<()> {
    let db = primary("nobody")?;
    db.execute("ALTER TABLE t ADD d int DEFAULT 1")?;
    let calls = [
        "CALL safe_add_column('t', 'e', 'int')",
        "CALL safe_backfill('t', 'c', 1, 50)",
        "CALL safe_set_not_null('t', 'd')",
    ];
    for call in calls {
        let run = start(&db, "on", call)?;
        until_it_waits(&db, &run)?;
        let began = Instant::now();
        run.cancel()?;
        run.end()?.failed_with("57014")?;
        ensure!(
            began.elapsed() < Duration::from_secs(5),
            "{call}: {:?}",
            began.elapsed()
        );
        // The application has all of its table back.
        db.execute(&format!("{SHORT}; LOCK TABLE t; UPDATE t SET n = n + 1"))?;
        db.execute(
            "ALTER TABLE t DROP COLUMN IF EXISTS e;
             ALTER TABLE t DROP COLUMN d; ALTER TABLE t ADD d int DEFAULT 1",
        )?;
    }
    for call in calls {
        let setup = "SET synchronous_commit = on; SET statement_timeout = '700ms'";
        db.call_after(setup, call)?.failed_with("57014")?;
        db.execute(
            "ALTER TABLE t DROP COLUMN IF EXISTS e;
             ALTER TABLE t DROP COLUMN d; ALTER TABLE t ADD d int DEFAULT 1",
        )?;
    }
    for call in calls {
        let run = start(&db, "on", call)?;
        until_it_waits(&db, &run)?;
        let pid = run.pid;
        db.execute(&format!("SELECT pg_terminate_backend({pid})"))?;
        run.end()?.failed()?;
        db.wait_until(&format!(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}"
        ))?;
    }
    Ok(())
}

#[test]
fn the_view_tells_of_the_wait_for_a_standby_and_another_session_can_end_it() -> Result<()> {
    const WAITS: &str = "SELECT count(*) = 1 FROM safe_backfill_progress
        WHERE state = 'waiting' AND waits_for = 'synchronous standbys, which are to confirm a commit'";
    let db = primary("nobody")?;
    let run = start(&db, "on", "CALL safe_add_column('t', 'd', 'int')")?;
    db.wait_until(WAITS)?;
    run.cancel()?;
    let ended = run.end()?;
    ensure!(saying(&ended.notices, "wait for synchronous replication").len() == 1);
    ended.failed_with("57014")?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_step")?,
        0
    );

    for workers in [1, 2] {
        let call = format!("CALL safe_backfill('t', 'c', 1, 50, workers => {workers})");
        let run = start(&db, "on", &call)?;
        db.wait_until(WAITS)?;
        meanwhile(&db, &run, &["UPDATE t SET n = n + 1"])?;
        ensure!(
            db.value::<bool>("SELECT safe_backfill_cancel(max(job_id)) FROM safe_backfill_job")?
        );
        let ended = run.end()?;
        ensure!(saying(&ended.notices, "wait for synchronous replication").len() == 1);
        ended.failed_with("57014")?;
        // The batch that was waited for is committed, and counted.
        let counted: i64 = db.value("SELECT rows_filled FROM safe_backfill_part")?;
        assert_eq!(
            counted,
            db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?
        );
        ensure!(counted > 0);
        assert_eq!(
            db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
            1
        );
        let states = "SELECT state, waits_for IS NULL FROM safe_backfill_progress";
        let row = db.connect()?.query_one(states, &[])?;
        assert_eq!(row.get::<_, String>(0), "cancelled");
        ensure!(row.get::<_, bool>(1));
        db.execute("SELECT safe_backfill_forget(max(job_id)) FROM safe_backfill_job")?;
        db.execute("UPDATE t SET c = NULL")?;
    }
    // A worker waits by the settings of its role and its database.
    db.execute(&format!(
        "ALTER DATABASE {} SET synchronous_commit = on",
        db.name()
    ))?;
    db.connect()?.batch_execute(
        "BEGIN; SELECT safe_backfill_start('t', 'c', 1, 50, workers => 2);
         SET LOCAL synchronous_commit = local; COMMIT",
    )?;
    db.wait_until(WAITS)?;
    let mut client = db.connect()?;
    client.batch_execute("SET synchronous_commit = local")?;
    client.execute(
        "SELECT safe_backfill_cancel(max(job_id)) FROM safe_backfill_job",
        &[],
    )?;
    db.wait_until("SELECT state = 'cancelled' AND pid IS NULL FROM safe_backfill_progress")?;
    client.batch_execute(&format!(
        "ALTER DATABASE {} RESET synchronous_commit",
        db.name()
    ))?;
    client.execute(
        "SELECT safe_backfill_forget(max(job_id)) FROM safe_backfill_job",
        &[],
    )?;
    client.execute("UPDATE t SET c = NULL", &[])?;
    let run = start(&db, "on", "CALL safe_backfill('t', 'c', 1, 50)")?;
    db.wait_until(WAITS)?;
    ends_without_standbys(&db, run)?;
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        300
    );
    Ok(())
}

#[test]
fn a_standby_that_has_the_wal_but_has_not_applied_it_is_waited_for_under_remote_apply_alone()
-> Result<()> {
    let db = primary("*")?;
    let standby = standby_of(&db, Options::default())?;
    let mut reader = standby.connect()?;
    reader.batch_execute("SELECT pg_wal_replay_pause()")?;
    start(&db, "on", "CALL safe_add_column('t', 'd', 'int', 7)")?
        .end()?
        .succeeded()?;
    let run = start(
        &db,
        "remote_apply",
        "CALL safe_add_column('t', 'e', 'int', 7)",
    )?;
    db.wait_until(&format!(
        "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    // Long enough for a standby that is not paused.
    std::thread::sleep(Duration::from_millis(500));
    meanwhile(&db, &run, &["SELECT count(e) FROM t", "UPDATE t SET e = 8"])?;
    reader.batch_execute("SELECT pg_wal_replay_resume()")?;
    run.end()?.succeeded()?;
    reader.batch_execute("SELECT d, e FROM t")?;
    Ok(())
}

/// What of `t` the backend has locked, by transaction, while it waits for a standby; `waits` counts such looks.
#[derive(Debug, Default)]
struct Watch {
    waits: u32,
    locked: BTreeSet<String>,
}

/// Watches the CALL until it ends.
fn watch(db: &Database, run: &Run, watch: &mut Watch) -> Result<()> {
    const LOCKS: &str = "
        SELECT format('%s: %s of %s', virtualtransaction, mode, locktype)
        FROM pg_locks WHERE pid = $1 AND granted AND (relation = 't'::regclass OR locktype = 'transactionid')";
    const WAITS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
    let mut client = db.connect()?;
    let (locks, waits) = (client.prepare(LOCKS)?, client.prepare(WAITS)?);
    let began = Instant::now();
    while !run.has_ended() && began.elapsed() < PATIENCE {
        // The two are not seen at one moment; a transaction that has the same lock before and after had it throughout.
        let before = client.query(&locks, &[&run.pid])?;
        if client.query_one(&waits, &[&run.pid])?.get::<_, i64>(0) == 0 {
            continue;
        }
        watch.waits += 1;
        let before: Vec<String> = before.iter().map(|row| row.get(0)).collect();
        let after = client.query(&locks, &[&run.pid])?;
        let both = after.iter().map(|row| row.get(0));
        watch
            .locked
            .extend(both.filter(|lock| before.contains(lock)));
    }
    Ok(())
}

fn filled_on(standby: &Server) -> Result<i64> {
    let rows = standby
        .connect()?
        .query_one("SELECT count(*) FROM t WHERE c = 1", &[])?;
    Ok(rows.get(0))
}

#[test]
fn nothing_is_locked_while_a_standby_applies_late_and_all_is_there_when_the_call_returns()
-> Result<()> {
    let db = primary("*")?;
    let standby = standby_of(
        &db,
        Options::default().set("recovery_min_apply_delay", "200ms"),
    )?;
    let mut reader = standby.connect()?;
    let mut steps = |call: &str, seen_on_standby: &str| -> Result<()> {
        let mut seen = Watch::default();
        let run = start(&db, "remote_apply", call)?;
        watch(&db, &run, &mut seen)?;
        run.end()?.succeeded()?;
        let there: bool = reader.query_one(seen_on_standby, &[])?.get(0);
        ensure!(there, "{call}: the standby does not have it");
        ensure!(seen.waits > 0, "{call}: no wait was seen");
        ensure!(seen.locked.is_empty(), "{call}: {:?}", seen.locked);
        Ok(())
    };
    let column = "FROM pg_attribute WHERE attrelid = 't'::regclass AND attname";
    steps(
        "CALL safe_add_column('t', 'd', 'int')",
        &format!("SELECT count(*) = 1 {column} = 'd'"),
    )?;
    steps(
        "CALL safe_backfill('t', 'c', 1, 100)",
        "SELECT count(*) = 300 FROM t WHERE c = 1",
    )?;
    steps(
        "CALL safe_set_not_null('t', 'c')",
        &format!("SELECT attnotnull {column} = 'c'"),
    )
}

/// The standby reports of its own accord every ten seconds, and otherwise only when it is asked.
#[test]
fn remote_apply_is_about_as_fast_as_on() -> Result<()> {
    let db = primary("*")?;
    let standby = standby_of(
        &db,
        Options::default().set("wal_receiver_status_interval", "10s"),
    )?;
    let mut took = vec![];
    for level in ["on", "remote_apply"] {
        db.execute(
            "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, c int DEFAULT 1);
             INSERT INTO t SELECT i, NULL FROM generate_series(1, 2000) i",
        )?;
        let began = Instant::now();
        start(&db, level, "CALL safe_backfill('t', 'c', 1, 100)")?
            .end()?
            .succeeded()?;
        took.push(began.elapsed());
        if level == "remote_apply" {
            assert_eq!(filled_on(&standby)?, 2000);
        }
        let batches: i64 =
            db.value("SELECT batches FROM safe_backfill_part ORDER BY job_id DESC LIMIT 1")?;
        ensure!(batches >= 20, "{batches} batches");
    }
    // One such wait for all of them would be seen, let alone one for each.
    ensure!(took[1] < took[0] * 5 + Duration::from_secs(5), "{took:?}");
    Ok(())
}

/// A large table, so that there are blocks for several processes.
fn larger_table(db: &Database) -> Result<()> {
    db.execute(
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, filler text, c int DEFAULT 1);
         INSERT INTO t SELECT i, 0, repeat('x', 200), NULL FROM generate_series(1, 10000) i",
    )
}

/// Waits until so many background workers wait for a standby.
fn until_workers_wait(db: &Database, workers: i64) -> Result<()> {
    db.wait_until(&format!(
        "SELECT count(*) = {workers} FROM pg_stat_activity
         WHERE backend_type = 'pg_safe_backfill' AND wait_event = 'SyncRep'"
    ))
}

fn no_worker_is_left(db: &Database) -> Result<()> {
    db.wait_until(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill'",
    )
}

/// Statements of the application that must not wait for a backfill.
fn application_is_not_in_the_way(db: &Database) -> Result<()> {
    db.execute(&format!(
        "{SHORT}; SELECT count(c) FROM t; UPDATE t SET n = n + 1; SELECT FROM t FOR UPDATE"
    ))
}

#[test]
fn what_several_processes_have_done_is_there_when_the_call_returns() -> Result<()> {
    let db = primary("*")?;
    let standby = standby_of(
        &db,
        Options::default().set("recovery_min_apply_delay", "100ms"),
    )?;
    for level in LEVELS {
        larger_table(&db)?;
        start(
            &db,
            level,
            "CALL safe_backfill('t', 'c', 1, 1000, workers => 2)",
        )?
        .end()?
        .succeeded()?;
        no_worker_is_left(&db)?;
        if level == "remote_apply" {
            assert_eq!(filled_on(&standby)?, 10000);
        }
    }
    Ok(())
}

#[test]
fn several_processes_wait_for_a_standby_without_locks_and_go_on() -> Result<()> {
    let db = primary("*")?;
    let standby = standby_of(&db, Options::default())?;
    larger_table(&db)?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET synchronous_commit = remote_apply; SET test.pause = 0.0005",
        "CALL safe_backfill('t', 'c', 1, 50, workers => 2)",
    )?;
    db.wait_until(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill'",
    )?;
    run.wait_for_rows("t", 100)?;
    let mut reader = standby.connect()?;
    reader.batch_execute("SELECT pg_wal_replay_pause()")?;
    until_workers_wait(&db, 1)?;
    application_is_not_in_the_way(&db)?;
    ensure!(!run.has_ended());
    db.execute("ALTER TABLE t DISABLE TRIGGER pause")?;
    reader.batch_execute("SELECT pg_wal_replay_resume()")?;
    run.end()?.succeeded()?;
    no_worker_is_left(&db)?;
    assert_eq!(filled_on(&standby)?, 10000);
    Ok(())
}

/// Starts a job whose processes wait for a standby, from a session that does not.
fn start_in_background(db: &Database, level: &str, workers: i64) -> Result<()> {
    db.execute(&format!(
        "BEGIN; SET synchronous_commit = {level}; SET test.pause = 0.0005;
         SELECT safe_backfill_start('t', 'c', 1, 50, workers => {workers});
         SET LOCAL synchronous_commit = local; COMMIT"
    ))
}

fn is_completed(db: &Database) -> Result<()> {
    db.wait_until(
        "SELECT state = 'completed' FROM safe_backfill_job ORDER BY job_id DESC LIMIT 1",
    )?;
    no_worker_is_left(db)?;
    let filled: i64 = db.value("SELECT count(*) FROM t WHERE c = 1")?;
    assert_eq!(filled, 10000);
    Ok(())
}

#[test]
fn a_job_in_the_background_waits_for_a_standby_as_its_session_would() -> Result<()> {
    let db = primary("*")?;
    let standby = standby_of(&db, Options::default())?;
    let mut reader = standby.connect()?;
    for workers in [1, 2] {
        larger_table(&db)?;
        db.slow_down("t")?;
        start_in_background(&db, "remote_apply", workers)?;
        db.wait_until(&format!(
            "SELECT count(*) = {workers} FROM pg_stat_activity
             WHERE backend_type = 'pg_safe_backfill' AND EXISTS (SELECT FROM t WHERE c = 1)"
        ))?;
        reader.batch_execute("SELECT pg_wal_replay_pause()")?;
        until_workers_wait(&db, workers)?;
        application_is_not_in_the_way(&db)?;
        db.execute("ALTER TABLE t DISABLE TRIGGER pause")?;
        reader.batch_execute("SELECT pg_wal_replay_resume()")?;
        is_completed(&db)?;
        standby.catch_up_with(db.server())?;
        assert_eq!(filled_on(&standby)?, 10000);
    }
    Ok(())
}

#[test]
fn a_job_in_the_background_honours_every_level() -> Result<()> {
    let db = primary("*")?;
    let _standby = standby_of(&db, Options::default())?;
    for level in LEVELS.into_iter().chain(["local", "off"]) {
        for workers in [1, 2] {
            larger_table(&db)?;
            start_in_background(&db, level, workers)?;
            is_completed(&db)?;
        }
    }
    Ok(())
}

#[test]
fn a_job_in_the_background_that_waits_for_a_standby_can_be_terminated_and_resumed() -> Result<()> {
    let db = primary("nobody")?;
    larger_table(&db)?;
    start_in_background(&db, "on", 2)?;
    until_workers_wait(&db, 1)?;
    ensure!(
        db.value::<bool>("SELECT pg_terminate_backend(pid, 10000) FROM safe_backfill_progress")?
    );
    no_worker_is_left(&db)?;
    let state: String = db.value("SELECT state FROM safe_backfill_progress")?;
    assert_eq!(state, "interrupted");
    db.execute("ALTER SYSTEM SET synchronous_standby_names = ''")?;
    db.execute("SELECT pg_reload_conf()")?;
    ensure!(db.value::<bool>("SELECT safe_backfill_resume(job_id) FROM safe_backfill_job")?);
    is_completed(&db)
}
