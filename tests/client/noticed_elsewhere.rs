//! What may be noticed of a run on standbys and subscribers, as docs/operating.md tells it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client_tests::{Database, Options, PATIENCE, SUPERUSER, Server, failure};

/// A standby on which a query is waited for so many seconds.
fn standby_of(db: &Database, patience: u32) -> Result<Server> {
    // What keeps row versions for the standby's queries does nothing about locks.
    let options = Options::default()
        .set("max_standby_streaming_delay", format!("{patience}s"))
        .set("hot_standby_feedback", "on");
    let standby = Server::standby_of(db.server(), options)?;
    standby.catch_up_with(db.server())?;
    Ok(standby)
}

/// A query on a standby that takes much longer than it is waited for there.
fn long_query(standby: &Server, table: &str) -> Result<postgres::Error> {
    let mut reader = standby.connect()?;
    let ended = reader.batch_execute(&format!("SELECT pg_sleep(60) FROM {table}"));
    Ok(ended.expect_err("cancelled"))
}

/// Waits until something is so.
fn wait_until(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "gave up waiting");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn wait_for_long_query(standby: &Server) -> Result<()> {
    let mut eyes = standby.connect()?;
    wait_until(|| {
        let sleeping = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        Ok(eyes.query_one(sleeping, &[])?.get(0))
    })
}

/// No lock timeout of the primary counts there: a query of the standby is waited for, and so do later ones.
#[test]
fn the_lock_of_a_ddl_step_is_taken_on_a_standby_as_well() -> Result<()> {
    let db = Database::alone(Options::default())?;
    db.execute("CREATE TABLE t AS SELECT 1 AS id")?;
    let standby = standby_of(&db, 10)?;
    thread::scope(|scope| {
        let long = scope.spawn(|| long_query(&standby, "t"));
        wait_for_long_query(&standby)?;
        db.call_after(
            "SET safe_backfill.lock_timeout = '100ms'",
            "CALL safe_add_column('t', 'c', 'int')",
        )?
        .succeeded()?;
        let late = scope.spawn(|| -> Result<()> {
            // Once the lock is asked for, whoever comes later waits behind it.
            wait_until(|| {
                let asked = "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted";
                Ok(standby.connect()?.query_one(asked, &[])?.get(0))
            })?;
            let error = standby
                .connect()?
                .batch_execute("SET lock_timeout = '100ms'; SELECT FROM t");
            failure(error.expect_err("it should have waited"), "55P03")?;
            Ok(())
        });
        late.join().expect("a late reader")?;
        failure(long.join().expect("a reader")?, "40001")?;
        anyhow::Ok(())
    })?;
    standby.catch_up_with(db.server())?;
    standby.connect()?.batch_execute("SELECT c FROM t")?;
    Ok(())
}

/// Those of its tables that were free have been locked for a moment, and a standby is told.
#[test]
fn an_attempt_at_a_tree_that_came_to_nothing_is_replayed_on_a_standby() -> Result<()> {
    let db = Database::alone(Options::default())?;
    db.execute(
        "CREATE TABLE t (id int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         INSERT INTO t VALUES (1), (11)",
    )?;
    let standby = standby_of(&db, 3)?;
    let mut holder = db.connect()?;
    holder.batch_execute("BEGIN; SELECT FROM t2")?;
    thread::scope(|scope| {
        let long = scope.spawn(|| long_query(&standby, "t1"));
        wait_for_long_query(&standby)?;
        db.call_after(
            "SET safe_backfill.lock_timeout = '100ms'; SET safe_backfill.lock_retry_limit = 1",
            "CALL safe_add_column('t', 'c', 'int')",
        )?
        .failed_with("55P03")?;
        failure(long.join().expect("a reader")?, "40001")?;
        Ok(())
    })
}

/// An attempt at one table that is busy locks nothing.
#[test]
fn an_attempt_at_one_table_that_came_to_nothing_is_not_noticed_on_a_standby() -> Result<()> {
    let db = Database::alone(Options::default())?;
    db.execute("CREATE TABLE t AS SELECT 1 AS id")?;
    let standby = standby_of(&db, 3)?;
    let mut holder = db.connect()?;
    holder.batch_execute("BEGIN; SELECT FROM t")?;
    let mut reader = standby.connect()?;
    reader.batch_execute("BEGIN; SELECT FROM t")?;
    db.call_after(
        "SET safe_backfill.lock_timeout = '100ms'; SET safe_backfill.lock_retry_limit = 1",
        "CALL safe_add_column('t', 'c', 'int')",
    )?
    .failed_with("55P03")?;
    standby.catch_up_with(db.server())?;
    reader.batch_execute("SELECT FROM t; COMMIT")?;
    Ok(())
}

/// A publisher, and a subscriber to `tables`, which both have already.
fn subscriber(tables: &str, definition: &str) -> Result<(Database, Database)> {
    let publisher = Database::alone(Options::default().set("wal_level", "logical"))?;
    let subscriber = Database::alone(Options::default())?;
    for db in [&publisher, &subscriber] {
        db.execute(definition)?;
    }
    publisher.execute(&format!("CREATE PUBLICATION all_of_it FOR TABLE {tables}"))?;
    let config = publisher.server().config(SUPERUSER, "postgres");
    let host = match &config.get_hosts()[0] {
        postgres::config::Host::Unix(path) => path.display().to_string(),
        postgres::config::Host::Tcp(name) => name.clone(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    subscriber.execute(&format!(
        "CREATE SUBSCRIPTION all_of_it CONNECTION 'host={host} port={port} user={SUPERUSER} dbname=postgres'
         PUBLICATION all_of_it"
    ))?;
    Ok((publisher, subscriber))
}

#[test]
fn a_subscriber_without_the_column_stops_until_it_has_it() -> Result<()> {
    let (publisher, subscriber) = subscriber("t", "CREATE TABLE t (id int PRIMARY KEY)")?;
    publisher.execute("INSERT INTO t SELECT generate_series(1, 100)")?;
    subscriber.wait_until("SELECT count(*) = 100 FROM t")?;
    publisher
        .call("CALL safe_add_column('t', 'c', 'int')")?
        .succeeded()?;
    publisher
        .call("CALL safe_backfill('t', 'c', 1)")?
        .succeeded()?;
    wait_until(|| {
        let log = subscriber.server().log()?;
        Ok(log.contains("is missing replicated column: \"c\""))
    })?;
    subscriber.execute("ALTER TABLE t ADD c int")?;
    subscriber.wait_until("SELECT count(c) = 100 FROM t")
}

#[test]
fn a_subscriber_searches_the_table_for_each_row_where_the_whole_row_is_its_identity() -> Result<()>
{
    let (publisher, subscriber) = subscriber(
        "t",
        "CREATE TABLE t (id int, c int); ALTER TABLE t REPLICA IDENTITY FULL",
    )?;
    publisher.execute("INSERT INTO t SELECT generate_series(1, 2000)")?;
    subscriber.wait_until("SELECT count(*) = 2000 FROM t")?;
    publisher
        .call("CALL safe_backfill('t', 'c', 1)")?
        .succeeded()?;
    subscriber.wait_until("SELECT count(c) = 2000 FROM t")?;
    subscriber.wait_until("SELECT seq_scan >= 2000 FROM pg_stat_user_tables WHERE relname = 't'")
}

#[test]
fn a_published_table_without_an_identity_cannot_be_filled() -> Result<()> {
    let db = Database::alone(Options::default().set("wal_level", "logical"))?;
    db.execute(
        "CREATE TABLE t (id int, c int); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t",
    )?;
    let error = db
        .call("CALL safe_backfill('t', 'c', 1)")?
        .failed_with("55000")?;
    ensure!(error.message.contains("replica identity"), "{error}");
    Ok(())
}
