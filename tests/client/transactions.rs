//! Where a CALL may stand, and whatever isolation the session has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use client_tests::{Database, Ended};

const CALL: &str = "CALL safe_backfill('t', 'c', 1, 100)";

fn table(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, c int DEFAULT 0);
         INSERT INTO t SELECT i, 0, NULL FROM generate_series(1, 10000) i",
    )
}

fn nothing_done(db: &Database) -> Result<()> {
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    Ok(())
}

fn all_done(db: &Database, ended: Ended) -> Result<()> {
    ended.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 10000);
    let batches: i64 = db.value("SELECT batches FROM safe_backfill_part")?;
    ensure!(batches >= 100, "{batches} batches only");
    Ok(())
}

#[test]
fn refuses_to_run_where_it_cannot_commit() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute(&format!(
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {CALL}; END $$;
         CREATE PROCEDURE atomic() LANGUAGE plpgsql SET work_mem = '1MB' AS $$ BEGIN {CALL}; END $$"
    ))?;
    for wrapped in [
        format!("BEGIN; {CALL}"),
        format!("SELECT 1; {CALL}"),
        format!("{CALL}; SELECT 1"),
        format!("DO $$ BEGIN {CALL}; EXCEPTION WHEN division_by_zero THEN NULL; END $$"),
        format!("BEGIN; SAVEPOINT s; {CALL}"),
        format!("CALL safe_backfill_using('t', 'c', '1'); {CALL}"),
        "SELECT f()".into(),
        "CALL atomic()".into(),
        "DO $$ BEGIN PERFORM f(); END $$".into(),
    ] {
        let error = db.call(&wrapped)?.failed_with("2D000")?;
        ensure!(error.hint.is_some(), "{wrapped}: no hint: {error}");
        ensure!(
            error
                .message
                .contains("cannot run inside a transaction block"),
            "{wrapped}: {error}"
        );
        nothing_done(&db)?;
    }
    Ok(())
}

#[test]
fn runs_in_a_do_block() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let ended = db.call(&format!("DO $$ BEGIN {CALL}; END $$"))?;
    all_done(&db, ended)
}

#[test]
fn runs_in_a_procedure_and_in_a_loop() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute(
        "ALTER TABLE t ADD d int, ADD e int;
         CREATE PROCEDURE fill_all() LANGUAGE plpgsql AS $$
         DECLARE name text;
         BEGIN
             FOR name IN SELECT unnest(ARRAY['c', 'd', 'e']) LOOP
                 CALL safe_backfill('t', name, '1', 100);
             END LOOP;
         END $$",
    )?;
    db.call("CALL fill_all()")?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = 1 AND d = 1 AND e = 1")?,
        10000
    );
    Ok(())
}

#[test]
fn an_error_leaves_the_session_in_order() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut client = db.connect()?;
    for _ in 0..3 {
        let error =
            client.batch_execute("CALL safe_backfill_using('t', 'c', '1 / (id - 5000)', 100)");
        client_tests::failure(error.expect_err("a division by zero"), "22012")?;
        // Nothing is left open: neither a transaction nor a lock.
        client.batch_execute("BEGIN; LOCK TABLE t; COMMIT")?;
        let locks = client.query_one(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND pid = pg_backend_pid()",
            &[],
        )?;
        assert_eq!(locks.get::<_, i64>(0), 0);
    }
    client
        .batch_execute("CALL safe_backfill_using('t', 'c', '1 / greatest(1, id - 5000)', 100)")?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 10000);
    Ok(())
}

fn isolated(level: &str) -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let over = AtomicBool::new(false);
    let updates = thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<u64> {
            let mut client = db.connect()?;
            client.batch_execute("SET default_transaction_isolation = 'read committed'")?;
            let update = client.prepare("UPDATE t SET n = n + 1 WHERE id = $1")?;
            let mut updates = 0;
            for step in 0.. {
                updates += client.execute(&update, &[&(step * 7919 % 10000 + 1)])?;
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(updates)
        });
        let setup = format!("SET default_transaction_isolation = '{level}'");
        let result = db
            .start_after(&setup, CALL)
            .and_then(|run| all_done_late(&db, run.end()?));
        over.store(true, Ordering::Relaxed);
        let updates = writer.join().expect("the writer")?;
        result?;
        anyhow::Ok(updates)
    })?;
    ensure!(updates > 100, "{updates} updates only");
    assert_eq!(db.value::<i64>("SELECT sum(n) FROM t")?, updates as i64);
    Ok(())
}

/// As `all_done`, but rows that moved on while the run looked may have been filled in rounds of their own.
fn all_done_late(db: &Database, ended: Ended) -> Result<()> {
    ended.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 10000);
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        10000
    );
    Ok(())
}

#[test]
fn runs_in_serializable_sessions() -> Result<()> {
    isolated("serializable")
}

#[test]
fn runs_in_repeatable_read_sessions() -> Result<()> {
    isolated("repeatable read")
}

#[test]
fn refuses_read_only_sessions() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let error = db
        .call_after("SET default_transaction_read_only = on", CALL)?
        .failed_with("25006")?;
    ensure!(error.hint.is_some(), "{error}");
    nothing_done(&db)
}
