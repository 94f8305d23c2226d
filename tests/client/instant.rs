//! Rows that lack the column get its value through the catalogs.

use anyhow::{Result, ensure};
use client_tests::{Database, Options, Shutdown, failure, saying};

const CALL: &str = "CALL safe_backfill('t', 'c', 'active', method => 'instant')";
/// What `CALL` leaves in `pg_attribute`.
const CATALOG: &str = "
    SELECT format('%s %s %s', atthasdef, atthasmissing, attmissingval) FROM pg_attribute
    WHERE attrelid = 't'::regclass AND attname = 'c'";

/// A table with `rows` rows that lack the column and 10 that are NULL.
fn table(db: &Database, rows: i64) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n text);
         INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, {rows}) i;
         ALTER TABLE t ADD COLUMN c varchar(20);
         INSERT INTO t SELECT -i, 'new' FROM generate_series(1, 10) i"
    ))
}

/// Rows that have the value, and all rows.
fn rows(db: &Database) -> Result<(i64, i64)> {
    let filled = db.value("SELECT count(*) FROM t WHERE c = 'active'")?;
    Ok((filled, db.value("SELECT count(*) FROM t")?))
}

#[test]
fn only_rows_that_have_the_column_are_written() -> Result<()> {
    let db = Database::new()?;
    table(&db, 20000)?;
    let bytes = "SELECT pg_relation_size('t')";
    let before: i64 = db.value(bytes)?;
    let notices = db.call(CALL)?.succeeded()?;
    assert_eq!(rows(&db)?, (20010, 20010));
    assert_eq!(db.value::<i64>(bytes)?, before);
    assert_eq!(db.value::<String>(CATALOG)?, "f t {active}");
    let said = saying(&notices, "that lacked column \"c\" have the value now");
    ensure!(said.len() == 1, "{notices:#?}");
    let hint = said[0].hint.as_deref().unwrap_or_default();
    ensure!(hint.ends_with("run ANALYZE public.t (c);"), "{hint}");
    let summary = saying(&notices, "filled 10 rows of table \"t\"");
    ensure!(
        summary.len() == 1 && summary[0].hint.is_none(),
        "{notices:#?}"
    );
    db.call("CALL safe_set_not_null('t', 'c')")?.succeeded()?;
    let stored = "SELECT method || ' ' || state FROM safe_backfill_job";
    assert_eq!(db.value::<String>(stored)?, "instant completed");
    Ok(())
}

#[test]
fn the_catalogs_are_as_add_column_with_a_default_leaves_them() -> Result<()> {
    let db = Database::new()?;
    table(&db, 100)?;
    db.call(CALL)?.succeeded()?;
    db.execute(
        "CREATE TABLE u (id int PRIMARY KEY, n text); INSERT INTO u VALUES (1, 'row 1');
         ALTER TABLE u ADD COLUMN c varchar(20) DEFAULT 'active'; ALTER TABLE u ALTER COLUMN c DROP DEFAULT",
    )?;
    let differences: i64 = db.value(
        // Some minor releases give every column a number of its own in attoptions.
        "SELECT count(*) FROM pg_attribute t FULL JOIN pg_attribute u USING (attnum), CAST('{attrelid,attoptions}' AS text[]) ignored
         WHERE t.attrelid = 't'::regclass AND u.attrelid = 'u'::regclass
         AND to_jsonb(t) - ignored IS DISTINCT FROM to_jsonb(u) - ignored",
    )?;
    assert_eq!(differences, 0);
    Ok(())
}

#[test]
fn a_value_that_they_have_already_is_kept() -> Result<()> {
    let db = Database::new()?;
    table(&db, 100)?;
    db.call(CALL)?.succeeded()?;
    db.execute("UPDATE t SET c = NULL WHERE id IN (5, 6)")?;
    let notices = db
        .call("CALL safe_backfill('t', 'c', 'other', method => 'instant')")?
        .succeeded()?;
    let said = saying(&notices, "that lack column \"c\" have a value already");
    ensure!(said.len() == 1, "{notices:#?}");
    ensure!(
        said[0]
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("{active}"),
        "{notices:#?}"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = 'other'")?,
        2
    );
    assert_eq!(rows(&db)?, (108, 110));

    db.execute("ALTER TABLE t ADD COLUMN d int DEFAULT 1; CREATE INDEX ON t (d); INSERT INTO t VALUES (1000, '', '', NULL)")?;
    // Nothing in the catalogs would change, so that the index is no obstacle.
    db.call("CALL safe_backfill('t', 'd', 2, method => 'instant')")?
        .succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE d = 2")?, 1);
    Ok(())
}

#[test]
fn statistics_of_the_column_as_it_was_do_not_mislead_the_planner() -> Result<()> {
    let db = Database::new()?;
    table(&db, 10000)?;
    db.execute("ANALYZE t")?;
    let estimate = |db: &Database| -> Result<i64> {
        db.value(
            "SELECT (explain('SELECT FROM t WHERE c IS NOT NULL') -> 0 -> 'Plan' ->> 'Plan Rows')::int8",
        )
    };
    db.execute(
        "CREATE FUNCTION explain(query text) RETURNS json LANGUAGE plpgsql AS $$
         DECLARE plan json; BEGIN EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan; RETURN plan; END $$",
    )?;
    ensure!(estimate(&db)? < 100, "{}", estimate(&db)?);
    db.call(CALL)?.succeeded()?;
    ensure!(estimate(&db)? > 9000, "{}", estimate(&db)?);
    Ok(())
}

#[test]
fn a_transaction_that_uses_the_table_is_waited_for() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    let mut holder = db.connect()?;
    holder.batch_execute("BEGIN; SELECT FROM t WHERE id = -5 FOR UPDATE")?;
    let run = db.start_after("SET safe_backfill.lock_timeout = '100ms'", CALL)?;
    db.wait_until("SELECT waits_for IS NOT NULL FROM safe_backfill_progress")?;
    assert_eq!(rows(&db)?, (0, 1010));
    holder.batch_execute("ROLLBACK")?;
    run.end()?.succeeded()?;
    assert_eq!(rows(&db)?, (1010, 1010));
    Ok(())
}

#[test]
fn a_crash_or_a_cancellation_loses_nothing() -> Result<()> {
    let db = Database::alone(Options::default())?;
    table(&db, 1000)?;
    let slow = "SET safe_backfill.pause = '10s'";
    let mut run = db.start_after(
        slow,
        "CALL safe_backfill('t', 'c', 'active', 1, method => 'instant')",
    )?;
    db.wait_until("SELECT count(*) = 1001 FROM t WHERE c = 'active'")?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    run = db.start_after(
        slow,
        "CALL safe_backfill('t', 'c', 'active', 1, method => 'instant')",
    )?;
    db.wait_until("SELECT count(*) = 1002 FROM t WHERE c = 'active'")?;
    db.server().stop(Shutdown::Immediate)?;
    db.server().start_again()?;
    drop(run);
    assert_eq!(rows(&db)?, (1002, 1010));
    let notices = db.call(CALL)?.succeeded()?;
    ensure!(saying(&notices, "filled 8 rows").len() == 1, "{notices:#?}");
    assert_eq!(rows(&db)?, (1010, 1010));
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        1
    );
    Ok(())
}

#[test]
fn nobody_waits_for_longer_than_the_lock_timeout() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    let mut holder = db.connect()?;
    holder.batch_execute("BEGIN; SELECT FROM t LIMIT 1")?;
    let failed = db
        .call_after(
            "SET safe_backfill.lock_timeout = '100ms'; SET safe_backfill.lock_retry_limit = 2",
            CALL,
        )?
        .failed_with("55P03")?;
    ensure!(failed.message == "could not lock table \"t\"", "{failed}");
    assert_eq!(db.value::<String>(CATALOG)?, "f f ");
    holder.batch_execute("COMMIT")?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(rows(&db)?, (1010, 1010));
    Ok(())
}

#[test]
fn a_job_in_the_background_and_several_workers_do_so_too() -> Result<()> {
    let db = Database::new()?;
    table(&db, 5000)?;
    db.execute(
        "SELECT safe_backfill_start('t', 'c', 'active'::text, 100, 'instant', workers => 2)",
    )?;
    db.wait_until("SELECT state = 'completed' FROM safe_backfill_job")?;
    assert_eq!(rows(&db)?, (5010, 5010));
    assert_eq!(db.value::<String>(CATALOG)?, "f t {active}");
    assert_eq!(
        db.value::<String>("SELECT method FROM safe_backfill_job")?,
        "instant"
    );

    // A job that cannot be instant is refused before it begins.
    db.execute("ALTER TABLE t ADD COLUMN d int; CREATE INDEX ON t (d)")?;
    let mut client = db.connect()?;
    let refused =
        client.batch_execute("SELECT safe_backfill_start('t', 'd', 1, method => 'instant')");
    failure(refused.expect_err("a refusal"), "55000")?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        1
    );
    Ok(())
}

#[test]
fn a_job_that_is_resumed_knows_its_method() -> Result<()> {
    let db = Database::new()?;
    table(&db, 1000)?;
    let mut holder = db.connect()?;
    holder.batch_execute("BEGIN; SELECT FROM t LIMIT 1")?;
    db.execute(
        "SELECT set_config('safe_backfill.lock_timeout', '50ms', false);
         SELECT safe_backfill_start('t', 'c', 'active'::text, method => 'instant')",
    )?;
    db.wait_until("SELECT waits_for IS NOT NULL FROM safe_backfill_progress")?;
    db.execute("SELECT safe_backfill_cancel(1)")?;
    db.wait_until("SELECT pid IS NULL AND state = 'cancelled' FROM safe_backfill_progress")?;
    holder.batch_execute("COMMIT")?;
    db.execute("SELECT safe_backfill_resume(1)")?;
    db.wait_until("SELECT state = 'completed' FROM safe_backfill_job")?;
    assert_eq!(rows(&db)?, (1010, 1010));
    assert_eq!(db.value::<String>(CATALOG)?, "f t {active}");
    Ok(())
}

#[test]
fn every_leaf_of_a_tree_is_changed_whatever_number_its_column_has() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, n text) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE t2 (gone int, n text, gone_too int, id int); ALTER TABLE t2 DROP gone, DROP gone_too;
         ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (100) TO (200);
         INSERT INTO t SELECT i, 'x' FROM generate_series(0, 199) i;
         ALTER TABLE t ADD COLUMN c varchar(20);
         CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (200) TO (300);
         INSERT INTO t SELECT i, 'x' FROM generate_series(200, 209) i",
    )?;
    let notices = db.call(CALL)?.succeeded()?;
    assert_eq!(rows(&db)?, (210, 210));
    ensure!(
        saying(&notices, "filled 10 rows").len() == 1,
        "{notices:#?}"
    );
    let said = saying(&notices, "have the value now");
    ensure!(said.len() == 1, "{notices:#?}");
    let detail = said[0].detail.as_deref().unwrap_or_default();
    ensure!(detail.contains("Each of 3 tables"), "{detail}");
    let missing = "SELECT count(*) FROM pg_attribute WHERE attname = 'c' AND atthasmissing";
    assert_eq!(db.value::<i64>(missing)?, 3);

    db.execute(
        "CREATE TABLE p (id int); CREATE TABLE child () INHERITS (p);
         INSERT INTO p VALUES (1); INSERT INTO child VALUES (2); ALTER TABLE p ADD COLUMN c bool",
    )?;
    db.call("CALL safe_backfill('p', 'c', false, method => 'instant')")?
        .succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM p WHERE c = false")?,
        2
    );
    assert_eq!(db.value::<i64>(missing)?, 5);
    Ok(())
}

#[test]
fn a_tree_is_refused_before_any_leaf_is_changed() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, n text) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200);
         INSERT INTO t SELECT i, 'x' FROM generate_series(0, 199) i;
         ALTER TABLE t ADD COLUMN c varchar(20);
         CREATE INDEX on_leaf ON t2 (c)",
    )?;
    let refused = db.call(CALL)?.failed_with("55000")?;
    ensure!(refused.message.contains("table \"t2\""), "{refused}");
    ensure!(
        refused
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("\"on_leaf\""),
        "{refused}"
    );
    assert_eq!(rows(&db)?, (0, 200));
    let missing = "SELECT count(*) FROM pg_attribute WHERE attname = 'c' AND atthasmissing";
    assert_eq!(db.value::<i64>(missing)?, 0);
    Ok(())
}

#[test]
fn an_ordinary_run_says_when_instant_would_have_done() -> Result<()> {
    let db = Database::new()?;
    let hint = |call: &str| -> Result<Option<String>> {
        let notices = db.call(call)?.succeeded()?;
        let said = saying(&notices, "filled ");
        ensure!(said.len() == 1, "{notices:#?}");
        Ok(said[0].hint.clone())
    };
    table(&db, 5000)?;
    let said = hint("CALL safe_backfill('t', 'c', 'active')")?.unwrap_or_default();
    ensure!(
        said.starts_with("100% of these rows lacked the column"),
        "{said}"
    );
    ensure!(said.contains("method => 'instant'"), "{said}");
    // The rows have the column now.
    db.execute("UPDATE t SET c = NULL")?;
    assert_eq!(hint("CALL safe_backfill('t', 'c', 'active')")?, None);
    // It could not have been used.
    db.execute("ALTER TABLE t ADD COLUMN d int; CREATE INDEX ON t (d)")?;
    assert_eq!(hint("CALL safe_backfill('t', 'd', 1)")?, None);
    db.execute("ALTER TABLE t ADD COLUMN e int; ALTER TABLE t ADD COLUMN f int")?;
    assert_eq!(hint("CALL safe_backfill_using('t', 'e', 'id')")?, None);
    assert_eq!(
        hint("CALL safe_backfill('t', 'f', 1, filter => 'id > 0')")?,
        None
    );
    // Several processes: each counts what it reads, the leader tells.
    db.execute("ALTER TABLE t ADD COLUMN g int")?;
    ensure!(hint("CALL safe_backfill('t', 'g', 1, workers => 2)")?.is_some());
    Ok(())
}

#[test]
fn other_sessions_read_the_value_at_once() -> Result<()> {
    let db = Database::new()?;
    table(&db, 100)?;
    let count = "SELECT count(*) FROM t WHERE c = 'active'";
    // A prepared statement with its plan, and the descriptor of the table, in the caches of another session.
    let mut other = db.connect()?;
    let prepared = other.prepare(count)?;
    for _ in 0..10 {
        assert_eq!(other.query_one(&prepared, &[])?.get::<_, i64>(0), 0);
    }
    // A snapshot that was taken before, of a transaction that has not locked the table.
    let mut old = db.connect()?;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1")?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(other.query_one(&prepared, &[])?.get::<_, i64>(0), 110);
    // As with ADD COLUMN ... DEFAULT: it has the value of rows that were not written, and not that of rows that were.
    assert_eq!(old.query_one(count, &[])?.get::<_, i64>(0), 100);
    Ok(())
}
