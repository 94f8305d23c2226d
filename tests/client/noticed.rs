//! What an application may notice of a run, as docs/operating.md tells it.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use client_tests::{Database, failure};

use crate::documentation::{blocks, root};

const CALL: &str = "CALL safe_backfill('large_user', 'status', 'active')";

fn table(db: &Database, rows: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE large_user (id int PRIMARY KEY, n int, status text);
         INSERT INTO large_user SELECT i, i FROM generate_series(1, {rows}) i"
    ))
}

fn nulls(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM large_user WHERE status IS NULL")
}

/// The block of SQL in docs/operating.md that has `text` in it.
fn documented(text: &str) -> Result<String> {
    let document = fs::read_to_string(root().join("docs/operating.md"))?;
    let mut found =
        blocks(&document).filter(|(language, block)| *language == "sql" && block.contains(text));
    let (_, block) = found
        .next()
        .with_context(|| format!("no block with {text}"))?;
    Ok(block.to_owned())
}

/// What psql prints when it is given these statements.
fn psql(db: &Database, sql: &str) -> Result<String> {
    let file = db.server().scratch_directory()?.join("statements.sql");
    fs::write(&file, sql)?;
    let mut psql = db.server().psql(db.name());
    let output = psql.arg("-f").arg(&file).stdin(Stdio::null()).output()?;
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    ensure!(output.status.success(), "{}", said[1]);
    Ok(said.concat())
}

#[test]
fn a_transaction_with_an_old_snapshot_cannot_write_or_lock_a_row_that_was_filled() -> Result<()> {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for (statement, result) in [
            ("UPDATE large_user SET n = 0 WHERE id = 5", Some("40001")),
            ("DELETE FROM large_user WHERE id = 5", Some("40001")),
            (
                "SELECT FROM large_user WHERE id = 5 FOR SHARE",
                Some("40001"),
            ),
            ("SELECT FROM large_user WHERE id = 5", None),
            ("INSERT INTO orders VALUES (5)", None),
        ] {
            let db = Database::new()?;
            table(&db, 1000)?;
            db.execute("CREATE TABLE orders (customer int REFERENCES large_user)")?;
            let mut application = db.connect()?;
            application.batch_execute(&format!(
                "BEGIN ISOLATION LEVEL {level}; SELECT FROM large_user"
            ))?;
            db.call(CALL)?.succeeded()?;
            let ended = application.batch_execute(statement);
            match result {
                Some(code) => drop(failure(ended.expect_err(statement), code)?),
                None => ended?,
            }
        }
    }
    Ok(())
}

#[test]
fn nowait_fails_on_rows_of_a_batch_and_skip_locked_passes_over_them() -> Result<()> {
    const ROWS: i64 = 500;
    let db = Database::new()?;
    table(&db, ROWS as i32)?;
    db.slow_down("large_user")?;
    let run = db.start_after("SET test.pause = 0.02", CALL)?;
    let mut application = db.connect()?;
    let (mut failed, mut skipped) = (false, false);
    while !(run.has_ended() || failed && skipped) {
        match application.batch_execute("SELECT FROM large_user FOR UPDATE NOWAIT") {
            Ok(()) => {}
            Err(error) => {
                failure(error, "55P03")?;
                failed = true;
            }
        }
        let free = application.query("SELECT FROM large_user FOR UPDATE SKIP LOCKED", &[])?;
        skipped |= (free.len() as i64) < ROWS;
    }
    run.cancel()?;
    run.end()?;
    ensure!(failed && skipped, "failed: {failed}, skipped: {skipped}");
    Ok(())
}

#[test]
fn a_row_that_was_filled_has_changed_for_optimistic_locking() -> Result<()> {
    let db = Database::new()?;
    table(&db, 100)?;
    db.execute(
        "ALTER TABLE large_user ADD version int DEFAULT 1, ADD updated_at timestamptz DEFAULT '2000-01-01';
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON large_user FOR EACH ROW EXECUTE FUNCTION touch()",
    )?;
    let xmin: String = db.value("SELECT xmin::text FROM large_user WHERE id = 5")?;
    db.call(CALL)?.succeeded()?;
    let mut application = db.connect()?;
    let by_xmin = format!("UPDATE large_user SET n = 0 WHERE id = 5 AND xmin = '{xmin}'");
    assert_eq!(application.execute(&by_xmin, &[])?, 0);
    let by_time = "UPDATE large_user SET n = 0 WHERE id = 5 AND updated_at = '2000-01-01'";
    assert_eq!(application.execute(by_time, &[])?, 0);
    let by_version = "UPDATE large_user SET n = 0 WHERE id = 5 AND version = 1";
    assert_eq!(application.execute(by_version, &[])?, 1);
    Ok(())
}

#[test]
fn one_row_that_violates_a_check_stops_every_run_until_it_is_repaired_or_left_out() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    db.execute(
        "UPDATE large_user SET n = -1 WHERE id = 500;
         ALTER TABLE large_user ADD CONSTRAINT positive CHECK (n > 0) NOT VALID",
    )?;
    for _ in 0..2 {
        let error = db.call(CALL)?.failed_with("23514")?;
        let detail = error.detail.unwrap_or_default();
        ensure!(detail.contains("(500, -1, active)"), "{detail}");
        ensure!(nulls(&db)? > 0);
    }
    let said = psql(&db, &documented("NOT convalidated AND contype")?)?;
    ensure!(
        said.contains("positive | CHECK ((n > 0)) NOT VALID"),
        "{said}"
    );

    db.call("CALL safe_backfill('large_user', 'status', 'active', filter => 'id <> 500')")?
        .succeeded()?;
    assert_eq!(nulls(&db)?, 1);
    db.execute("UPDATE large_user SET n = 1 WHERE id = 500")?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(nulls(&db)?, 0);
    Ok(())
}

#[test]
fn a_row_that_a_trigger_refuses_is_found_and_all_others_are_filled() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'orders of before 2010 are closed'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON large_user FOR EACH ROW WHEN (NEW.id = 500)
         EXECUTE FUNCTION refuse()",
    )?;
    for _ in 0..2 {
        let error = db.call(CALL)?.failed_with("P0001")?;
        ensure!(error.message.contains("are closed"), "{error}");
        ensure!(nulls(&db)? > 0);
    }
    let place: String = db.value("SELECT ctid::text FROM large_user WHERE id = 500")?;
    let search = documented("DO $$")?;
    let said = psql(&db, &search)?;
    let found = format!("ctid {place}: orders of before 2010 are closed");
    ensure!(
        said.contains(&found) && said.matches("NOTICE").count() == 1,
        "{said}"
    );
    assert_eq!(nulls(&db)?, 1);
    Ok(())
}

#[test]
fn deferred_triggers_fire_at_the_end_of_each_statement_of_a_batch() -> Result<()> {
    let db = Database::new()?;
    table(&db, 20000)?;
    db.execute(
        "CREATE TABLE seen (transaction xid8, filled bigint);
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen SELECT pg_current_xact_id(), count(status) FROM large_user;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER look AFTER UPDATE ON large_user DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW WHEN (NEW.id % 50 = 0) EXECUTE FUNCTION look()",
    )?;
    let setup = "SET safe_backfill.max_batch_time = '250ms'";
    db.call_after(setup, CALL)?.succeeded()?;
    // At commit, all of a transaction would see the same.
    let moments: i64 = db.value(
        "SELECT max(moments) FROM (SELECT count(DISTINCT filled) AS moments FROM seen GROUP BY transaction) t",
    )?;
    ensure!(moments > 1, "{moments}");
    // Not so the application's own transactions.
    db.execute("TRUNCATE seen; UPDATE large_user SET status = NULL")?;
    db.execute(
        "TRUNCATE seen;
         BEGIN; UPDATE large_user SET status = 'a' WHERE id <= 50; UPDATE large_user SET status = 'a'; COMMIT",
    )?;
    assert_eq!(
        db.value::<i64>("SELECT count(DISTINCT filled) FROM seen")?,
        1
    );
    Ok(())
}

#[test]
fn each_commit_of_a_run_empties_temporary_tables_that_ask_for_it() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    let mut session = db.connect()?;
    session.batch_execute(
        "CREATE TEMPORARY TABLE noted (id int) ON COMMIT DELETE ROWS;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO noted VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER UPDATE ON large_user FOR EACH ROW EXECUTE FUNCTION note();
         CREATE TEMPORARY TABLE emptied (id int, status text) ON COMMIT DELETE ROWS;
         INSERT INTO emptied VALUES (1)",
    )?;
    session.batch_execute("CALL safe_backfill('large_user', 'status', 'active', 100)")?;
    session.batch_execute("CALL safe_backfill('emptied', 'status', 'active')")?;
    let left = session.query_one(
        "SELECT (SELECT count(*) FROM noted) + (SELECT count(*) FROM emptied)",
        &[],
    )?;
    assert_eq!(left.get::<_, i64>(0), 0);
    assert_eq!(nulls(&db)?, 0);
    Ok(())
}
