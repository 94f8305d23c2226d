//! NULLs that come back or keep coming: a run always ends, and says how many are left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use client_tests::{Database, Notice, only};

/// The number of rows that the only WARNING counts.
fn counted(notices: &[Notice]) -> Result<i64> {
    let warning = only(notices, "WARNING")?;
    ensure!(warning.message.contains("are still null"), "{warning}");
    Ok(warning
        .message
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()?)
}

fn state(db: &Database) -> Result<String> {
    db.value("SELECT state FROM safe_backfill_progress ORDER BY job_id DESC LIMIT 1")
}

fn table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {rows}) i"
    ))
}

#[test]
fn a_trigger_that_undoes_everything_is_reported() -> Result<()> {
    let db = Database::new()?;
    table(&db, 25000)?;
    db.execute(
        "CREATE SEQUENCE fired;
         CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM nextval('fired'); NEW.c := NULL; RETURN NEW; END $$;
         CREATE TRIGGER undo BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION undo()",
    )?;
    let notices = db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    let fired: i64 = db.value("SELECT last_value FROM fired")?;
    ensure!(fired <= 3 * 25000, "it tried {fired} times");
    assert_eq!(counted(&notices)?, 25000);
    ensure!(
        only(&notices, "WARNING")?
            .hint
            .as_deref()
            .unwrap_or("")
            .contains("trigger")
    );
    assert_eq!(state(&db)?, "incomplete");
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        0
    );
    Ok(())
}

#[test]
fn a_trigger_that_undoes_some_rows_keeps_no_others_back() -> Result<()> {
    let db = Database::new()?;
    table(&db, 10000)?;
    db.execute(
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.c := NULL; RETURN NEW; END $$;
         CREATE TRIGGER undo BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id % 100 = 0) EXECUTE FUNCTION undo()",
    )?;
    let notices = db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(counted(&notices)?, 100);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 9900);
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        9900
    );
    Ok(())
}

#[test]
fn a_trigger_that_skips_rows_is_reported() -> Result<()> {
    let db = Database::new()?;
    table(&db, 10000)?;
    db.execute(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER skip BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id % 100 = 0) EXECUTE FUNCTION skip()",
    )?;
    let notices = db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(counted(&notices)?, 100);
    assert_eq!(state(&db)?, "incomplete");
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        9900
    );
    let hint = only(&notices, "WARNING")?.hint.clone().unwrap_or_default();
    ensure!(
        hint.contains("trigger"),
        "the hint blames something else: {hint}"
    );
    Ok(())
}

#[test]
fn an_insert_storm_does_not_keep_a_run_going() -> Result<()> {
    let db = Database::new()?;
    table(&db, 20000)?;
    let over = AtomicBool::new(false);
    let (ended, inserted) = thread::scope(|scope| {
        let inserters: Vec<_> = (0..2)
            .map(|_| {
                let (db, over) = (&db, &over);
                scope.spawn(move || -> Result<u64> {
                    let mut client = db.connect()?;
                    let insert = client
                        .prepare("INSERT INTO t SELECT 0, NULL FROM generate_series(1, 20)")?;
                    let mut rows = 0;
                    while !over.load(Ordering::Relaxed) {
                        rows += client.execute(&insert, &[])?;
                    }
                    Ok(rows)
                })
            })
            .collect();
        let ended = db
            .start("CALL safe_backfill('t', 'c', 1, 500)")
            .and_then(|run| run.end());
        over.store(true, Ordering::Relaxed);
        let mut rows = 0;
        for inserter in inserters {
            rows += inserter.join().expect("an inserter")?;
        }
        anyhow::Ok((ended?, rows))
    })?;
    let notices = ended.succeeded()?;
    ensure!(inserted > 1000, "{inserted} rows only were inserted");
    ensure!(state(&db)? == "completed" || counted(&notices)? > 0);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE id > 0 AND c IS NULL")?,
        0
    );
    // What the storm has left is filled once it is over.
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    assert_eq!(
        db.value::<i64>("SELECT sum(rows_filled)::bigint FROM safe_backfill_part")?,
        20000 + inserted as i64
    );
    Ok(())
}

#[test]
fn rows_whose_expression_is_null_are_counted() -> Result<()> {
    let db = Database::new()?;
    table(&db, 10000)?;
    for expression in [
        "nullif(id % 10, 0)",
        "nullif(id % 10, 0) + (random() * 0)::int",
    ] {
        let call = format!("CALL safe_backfill_using('t', 'c', '{expression}')");
        let notices = db.call(&call)?.succeeded()?;
        assert_eq!(counted(&notices)?, 1000);
        assert_eq!(
            db.value::<i64>("SELECT count(*) FROM t WHERE c = id % 10 AND id % 10 <> 0")?,
            9000
        );
        assert_eq!(state(&db)?, "incomplete");
        db.execute("UPDATE t SET c = NULL")?;
    }
    Ok(())
}

#[test]
fn volatile_expressions_are_evaluated_once_for_each_row() -> Result<()> {
    let db = Database::new()?;
    table(&db, 10000)?;
    db.execute("CREATE SEQUENCE numbers; ALTER TABLE t ADD u uuid")?;
    db.call("CALL safe_backfill_using('t', 'c', 'nextval(''numbers'')')")?
        .succeeded()?;
    db.call("CALL safe_backfill_using('t', 'u', 'gen_random_uuid()')")?
        .succeeded()?;
    assert_eq!(
        db.value::<String>(
            "SELECT format('%s %s %s', count(DISTINCT c), max(c), count(DISTINCT u)) FROM t"
        )?,
        "10000 10000 10000"
    );
    assert_eq!(db.value::<i64>("SELECT last_value FROM numbers")?, 10000);
    Ok(())
}

#[test]
fn a_filter_keeps_other_rows_null_without_a_warning() -> Result<()> {
    let db = Database::new()?;
    table(&db, 10000)?;
    let notices = db
        .call("CALL safe_backfill('t', 'c', 1, filter => 'id % 2 = 0')")?
        .succeeded()?;
    ensure!(only(&notices, "WARNING").is_err(), "{notices:#?}");
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = 1 AND id % 2 = 0")?,
        5000
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        5000
    );
    assert_eq!(state(&db)?, "completed");
    Ok(())
}
