//! The application is never the victim of a deadlock with a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client_tests::Database;

/// The run holds row 1 for `slow` and then wants row 2, which the application holds while it asks for row 1.
fn crossed(db: &Database, table: &str, slow: Duration) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE {table} (id int, n int DEFAULT 0, c int DEFAULT 0);
         INSERT INTO {table} SELECT i, 0, NULL FROM generate_series(1, 10) i;
         CREATE FUNCTION {table}_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_setting('test.slow', true) <> '' THEN
                 PERFORM pg_sleep(current_setting('test.slow')::float8);
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON {table} FOR EACH ROW WHEN (NEW.id = 1)
         EXECUTE FUNCTION {table}_slow()"
    ))?;
    let mut application = db.connect()?;
    let setup = format!("SET test.slow = {}", slow.as_secs_f64());
    let run = db.start_after(&setup, &format!("CALL safe_backfill('{table}', 'c', 1)"))?;
    db.wait_until(&format!(
        "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    let mut holding = application.transaction()?;
    for id in [2, 1] {
        holding
            .execute(&format!("UPDATE {table} SET n = 1 WHERE id = $1"), &[&id])
            .with_context(|| format!("the application, with {slow:?}"))?;
    }
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>(&format!("SELECT count(*) FROM {table} WHERE c = 1"))?,
        10
    );
    assert_eq!(db.value::<i64>(&format!("SELECT sum(n) FROM {table}"))?, 2);
    Ok(())
}

#[test]
fn the_application_wins_when_both_want_the_others_row() -> Result<()> {
    let db = Database::new()?;
    for (number, millis) in [100, 300, 600].into_iter().enumerate() {
        crossed(&db, &format!("t{number}"), Duration::from_millis(millis))?;
    }
    Ok(())
}

/// The worst moment for the run to ask for a row is just when the application looks for a deadlock, a second
/// (`deadlock_timeout`) after it began to wait.
#[test]
fn the_application_wins_when_a_slow_trigger_meets_its_deadlock_check() -> Result<()> {
    let db = Database::new()?;
    thread::scope(|scope| {
        let crossings: Vec<_> = (0..14)
            .map(|number| {
                let db = &db;
                scope.spawn(move || {
                    crossed(
                        db,
                        &format!("t{number}"),
                        Duration::from_millis(900 + 15 * number),
                    )
                })
            })
            .collect();
        crossings
            .into_iter()
            .try_for_each(|crossing| crossing.join().expect("a crossing"))
    })
}

/// A generator of numbers that needs to be no better than this (Marsaglia's xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn transactions_of_many_rows_never_meet_a_deadlock() -> Result<()> {
    const ROWS: u64 = 2000;
    const WRITERS: u64 = 4;
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, c int DEFAULT 0);
         INSERT INTO t SELECT i, 0, NULL FROM generate_series(1, {ROWS}) i"
    ))?;
    let over = AtomicBool::new(false);
    let transactions = thread::scope(|scope| {
        let writers: Vec<_> = (1..=WRITERS)
            .map(|writer| {
                let (db, over) = (&db, &over);
                scope.spawn(move || -> Result<i64> {
                    let mut client = db.connect()?;
                    let update = client.prepare("UPDATE t SET n = n + 1 WHERE id = $1")?;
                    let mut state = writer.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let mut rows = 0;
                    while !over.load(Ordering::Relaxed) {
                        let count = 5 + next(&mut state) % 6;
                        let mut ids: Vec<i32> = (0..count)
                            .map(|_| (next(&mut state) % ROWS + 1) as i32)
                            .collect();
                        // In one order among themselves, which is not that of the pages.
                        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
                        let mut transaction = client.transaction()?;
                        for id in ids {
                            rows += transaction.execute(&update, &[&id])? as i64;
                            thread::sleep(Duration::from_micros(300));
                        }
                        transaction.commit()?;
                    }
                    Ok(rows)
                })
            })
            .collect();
        let result = (|| -> Result<()> {
            for round in 0..12 {
                db.call(&format!("CALL safe_backfill('t', 'c', {round}, 100000)"))?
                    .succeeded()?;
                // A column of its own for each round would be the same, but slower.
                db.execute("ALTER TABLE t DROP c; ALTER TABLE t ADD c int")?;
            }
            Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        let mut rows = 0;
        for writer in writers {
            rows += writer.join().expect("a writer")?;
        }
        result?;
        anyhow::Ok(rows)
    })?;
    ensure!(transactions > 1000, "{transactions} rows only were updated");
    assert_eq!(db.value::<i64>("SELECT sum(n) FROM t")?, transactions);
    Ok(())
}
