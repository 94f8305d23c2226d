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

/// SQL of the user's other than a trigger that takes its time over row 3002, while row 3001 is locked.
#[derive(Debug, Clone, Copy)]
enum Slow {
    Check,
    Filter,
    GeneratedColumn,
    IndexExpression,
    IndexPredicate,
    Value,
}

impl Slow {
    /// What is made of table `table` and its function that takes its time.
    fn definition(self, table: &str) -> String {
        match self {
            Slow::Check => format!("ALTER TABLE {table} ADD CHECK ({table}_slow(id) = id)"),
            Slow::GeneratedColumn => format!(
                "ALTER TABLE {table} ADD g int GENERATED ALWAYS AS ({table}_slow(id) + coalesce(c, 0)) STORED"
            ),
            Slow::IndexExpression => {
                format!("CREATE INDEX ON {table} (({table}_slow(id) + coalesce(c, 0)))")
            }
            Slow::IndexPredicate => {
                format!("CREATE INDEX ON {table} (c) WHERE {table}_slow(id) = id")
            }
            Slow::Filter | Slow::Value => String::new(),
        }
    }

    fn call(self, table: &str) -> String {
        match self {
            Slow::Filter => {
                format!("CALL safe_backfill('{table}', 'c', 1, filter => '{table}_slow(id) = id')")
            }
            Slow::Value => {
                format!("CALL safe_backfill_using('{table}', 'c', '{table}_slow(id) / id')")
            }
            _ => format!("CALL safe_backfill('{table}', 'c', 1)"),
        }
    }
}

/// The run holds row 3001, takes its time over row 3002 and then wants row 3003, which the application holds while it
/// asks for row 3001. By then the run has learned that rows are fast, and fills many with one statement.
///
/// Row 3002 is done `early` milliseconds before the application looks for a deadlock, a second (`deadlock_timeout`)
/// after it began to wait; two seconds are enough for any later look at the row.
fn crossed_by(db: &Database, slow: Slow, table: &str, early: u64) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE {table} (id int, n int DEFAULT 0, c int DEFAULT 0);
         INSERT INTO {table} SELECT i, 0, NULL FROM generate_series(1, 4000) i;
         CREATE FUNCTION {table}_slow(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
         DECLARE
             application text := current_setting('test.application', true);
             began timestamptz;
             over timestamptz := clock_timestamp() + interval '2 s';
         BEGIN
             WHILE id = 3002 AND application <> '' AND began IS NULL AND clock_timestamp() < over LOOP
                 PERFORM pg_sleep(0.005);
                 began := (SELECT waitstart FROM pg_locks WHERE pid = application::int AND NOT granted);
             END LOOP;
             PERFORM pg_sleep_until(began + interval '1 s' - interval '{early} ms');
             RETURN id;
         END $$;
         {}",
        slow.definition(table)
    ))?;
    let mut application = db.connect()?;
    let pid: i32 = application
        .query_one("SELECT pg_backend_pid()", &[])?
        .get(0);
    let setup = format!("SET test.application = '{pid}'");
    let run = db.start_after(&setup, &slow.call(table))?;
    db.wait_until(&format!(
        "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    let mut holding = application.transaction()?;
    for id in [3003, 3001] {
        holding
            .execute(&format!("UPDATE {table} SET n = 1 WHERE id = $1"), &[&id])
            .with_context(|| format!("the application, with {slow:?}, {early} ms early"))?;
    }
    holding.commit()?;
    run.end()?.succeeded()?;
    assert_eq!(
        db.value::<i64>(&format!("SELECT count(*) FROM {table} WHERE c = 1"))?,
        4000
    );
    assert_eq!(db.value::<i64>(&format!("SELECT sum(n) FROM {table}"))?, 2);
    Ok(())
}

fn the_application_wins_against(slow: Slow) -> Result<()> {
    let db = Database::new()?;
    thread::scope(|scope| {
        let crossings: Vec<_> = (2..10)
            .map(|early| {
                let db = &db;
                scope.spawn(move || crossed_by(db, slow, &format!("t{early}"), early))
            })
            .collect();
        crossings
            .into_iter()
            .try_for_each(|crossing| crossing.join().expect("a crossing"))
    })
}

#[test]
fn the_application_wins_when_a_check_is_slow() -> Result<()> {
    the_application_wins_against(Slow::Check)
}

#[test]
fn the_application_wins_when_the_filter_is_slow() -> Result<()> {
    the_application_wins_against(Slow::Filter)
}

#[test]
fn the_application_wins_when_a_generated_column_is_slow() -> Result<()> {
    the_application_wins_against(Slow::GeneratedColumn)
}

#[test]
fn the_application_wins_when_the_expression_of_an_index_is_slow() -> Result<()> {
    the_application_wins_against(Slow::IndexExpression)
}

#[test]
fn the_application_wins_when_the_predicate_of_an_index_is_slow() -> Result<()> {
    the_application_wins_against(Slow::IndexPredicate)
}

#[test]
fn the_application_wins_when_the_expression_is_slow() -> Result<()> {
    the_application_wins_against(Slow::Value)
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
