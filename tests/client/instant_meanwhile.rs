//! What happens while method `instant` waits for its lock, or beside another such run.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use client_tests::Database;

use crate::instant_refused::{CALL, is_unchanged, prepared};

/// Adds something to the table while the CALL waits for its lock; the CALL must fail with this SQLSTATE.
fn added_meanwhile(addition: &str, code: &str) -> Result<()> {
    let db = prepared(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    )?;
    let mut reader = db.connect()?;
    reader.batch_execute("BEGIN; SELECT count(*) FROM t")?;
    let run = db.start_after("SET safe_backfill.lock_timeout = '50ms'", CALL)?;
    db.wait_until("SELECT waits_for LIKE 'a lock on table%' FROM safe_backfill_progress")?;
    // It comes first in the queue when the CALL makes room.
    let mut changer = db.connect()?;
    let change = thread::spawn({
        let addition = addition.to_owned();
        move || changer.batch_execute(&addition)
    });
    let queued = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted
                  AND pid NOT IN (SELECT pid FROM safe_backfill_progress WHERE pid IS NOT NULL)";
    while !change.is_finished() && !db.value::<bool>(queued)? {
        thread::sleep(Duration::from_millis(10));
    }
    reader.batch_execute("COMMIT")?;
    ensure!(matches!(change.join(), Ok(Ok(()))), "{addition}");
    let error = run.end()?.failed_with(code)?;
    ensure!(!error.message.is_empty());
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    Ok(())
}

#[test]
fn what_is_in_the_way_is_looked_for_once_the_lock_is_held() -> Result<()> {
    added_meanwhile("ALTER TABLE t ADD CONSTRAINT k CHECK (c <> 7)", "23514")?;
    added_meanwhile("CREATE INDEX ON t (c)", "55000")?;
    added_meanwhile(
        "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "55000",
    )
}

#[test]
fn two_partitions_at_a_time_do_not_disturb_each_other() -> Result<()> {
    for _ in 0..4 {
        let db = Database::new()?;
        db.execute(
            "CREATE TABLE p (id int, n int) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (2000);
             INSERT INTO p SELECT i, i FROM generate_series(0, 1999) i;
             ALTER TABLE p ADD COLUMN c int; ANALYZE p",
        )?;
        let call = |table| format!("CALL safe_backfill('{table}', 'c', 7, method => 'instant')");
        let (first, second) = (db.start(&call("p1"))?, db.start(&call("p2"))?);
        first.end()?.succeeded()?;
        second.end()?.succeeded()?;
        assert_eq!(db.value::<i64>("SELECT count(*) FROM p WHERE c = 7")?, 2000);
    }
    Ok(())
}

#[test]
fn an_analyze_of_a_table_above_is_not_waited_for() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE p (id int, n int) PARTITION BY RANGE (id);
         CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (1000);
         INSERT INTO p SELECT i, i FROM generate_series(0, 999) i;
         ALTER TABLE p ADD COLUMN c int; ANALYZE p",
    )?;
    let mut analyzing = db.connect()?;
    analyzing.batch_execute("BEGIN; LOCK TABLE ONLY p IN SHARE UPDATE EXCLUSIVE MODE")?;
    is_unchanged(&db)?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, 1000);
    Ok(())
}
