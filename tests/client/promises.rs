//! Every NULL is filled, nothing is overwritten, each batch is committed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use client_tests::{Database, only, saying};

#[test]
fn fills_every_null_and_keeps_every_value() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, note text, c text DEFAULT 'new');
         INSERT INTO t SELECT i, repeat('x', i % 200), CASE WHEN i % 3 = 0 THEN 'own ' || i END
         FROM generate_series(1, 20000) i;
         CREATE TABLE before AS SELECT * FROM t",
    )?;
    let notices = db
        .call("CALL safe_backfill('t', 'c', 'filled', 1000)")?
        .succeeded()?;
    assert_eq!(
        db.value::<i64>(
            "SELECT count(*) FROM t FULL JOIN before b USING (id)
             WHERE t.c IS DISTINCT FROM coalesce(b.c, 'filled') OR t.note IS DISTINCT FROM b.note"
        )?,
        0
    );
    let rows = 20000 - 20000 / 3;
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        rows
    );
    assert_eq!(
        saying(&notices, &format!("filled {rows} rows")).len(),
        1,
        "{notices:#?}"
    );
    Ok(())
}

#[test]
fn keeps_values_that_the_application_writes_meanwhile() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, filler text, c text DEFAULT 'new');
         INSERT INTO t SELECT i, repeat('x', 100), NULL FROM generate_series(1, 30000) i",
    )?;
    let over = AtomicBool::new(false);
    let own = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (db, over) = (&db, &over);
                scope.spawn(move || -> Result<Vec<i32>> {
                    let mut client = db.connect()?;
                    let set =
                        client.prepare("UPDATE t SET c = 'own' WHERE id = $1 AND id % 2 = $2")?;
                    let touch =
                        client.prepare("UPDATE t SET filler = repeat('y', 120) WHERE id = $1")?;
                    let mut own = vec![];
                    for step in 0.. {
                        let id = (step * 7919) % 30000 + 1;
                        if client.execute(&set, &[&id, &writer])? > 0 {
                            own.push(id);
                        }
                        client.execute(&touch, &[&(30001 - id)])?;
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    Ok(own)
                })
            })
            .collect();
        let run = db
            .start("CALL safe_backfill('t', 'c', 'filled', 200)")?
            .end();
        over.store(true, Ordering::Relaxed);
        let mut own = vec![];
        for writer in writers {
            own.extend(writer.join().expect("a writer")?);
        }
        run?.succeeded()?;
        anyhow::Ok(own)
    })?;
    ensure!(own.len() > 100, "the writers wrote {} rows only", own.len());
    let mut client = db.connect()?;
    let kept = client.query_one(
        "SELECT count(*) FROM t WHERE id = ANY ($1) AND c = 'own'",
        &[&own],
    )?;
    let mut distinct = own;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(kept.get::<_, i64>(0), distinct.len() as i64);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t")?, 30000);
    Ok(())
}

#[test]
fn commits_every_batch_and_keeps_to_the_batch_size() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t AS SELECT i AS id, NULL::int AS c FROM generate_series(1, 1500) i")?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.0005",
        "CALL safe_backfill('t', 'c', 1, 70)",
    )?;
    run.wait_for_rows("t", 300)?;
    let seen: i64 = db.value("SELECT count(*) FROM t WHERE c = 1")?;
    ensure!(
        (300..1500).contains(&seen),
        "another session sees {seen} rows filled"
    );
    run.end()?.succeeded()?;
    // Each batch is a transaction of its own, and each of its subtransactions has an id that no other batch has.
    let (filled, batches): (i64, i64) = {
        let row = db
            .connect()?
            .query_one("SELECT rows_filled, batches FROM safe_backfill_part", &[])?;
        (row.get(0), row.get(1))
    };
    assert_eq!(filled, 1500);
    ensure!(
        batches >= (filled + 69) / 70,
        "{batches} batches for {filled} rows"
    );
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 1500);
    Ok(())
}

#[test]
fn no_transaction_is_larger_than_the_batch_size() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, 5000) i;
         CREATE TABLE log (transaction xid8);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO log VALUES (pg_current_xact_id()); RETURN NULL; END $$;
         CREATE TRIGGER log AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log()",
    )?;
    db.call("CALL safe_backfill('t', 'c', 1, 123)")?
        .succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, 5000);
    assert_eq!(
        db.value::<i64>(
            "SELECT max(count) FROM (SELECT count(*) FROM log GROUP BY transaction) t"
        )?,
        123
    );
    Ok(())
}

#[test]
fn a_second_call_finds_nothing_to_do() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t AS SELECT i AS id, NULL::int AS c FROM generate_series(1, 1000) i")?;
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    db.execute("CREATE TABLE before AS SELECT ctid AS place, id FROM t")?;
    let notices = db.call("CALL safe_backfill('t', 'c', 2)")?.succeeded()?;
    assert_eq!(saying(&notices, "filled 0 rows").len(), 1, "{notices:#?}");
    assert_eq!(
        db.value::<i64>(
            "SELECT count(*) FROM t JOIN before b USING (id) WHERE t.ctid <> b.place OR c <> 1"
        )?,
        0
    );
    Ok(())
}

#[test]
fn says_that_a_column_without_default_will_be_null_again() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t (id int, c int, d int DEFAULT 7, n int NOT NULL DEFAULT 1)")?;
    let notices = db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(saying(&notices, "has no default").len(), 1);
    let notices = db.call("CALL safe_backfill('t', 'd', 1)")?.succeeded()?;
    assert_eq!(saying(&notices, "has no default").len(), 0);
    let notices = db.call("CALL safe_backfill('t', 'n', 1)")?.succeeded()?;
    let notice = only(&notices, "NOTICE")?;
    ensure!(notice.message.contains("already NOT NULL"), "{notice}");
    Ok(())
}
