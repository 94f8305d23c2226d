//! Tables that are changed while they are filled.

use anyhow::{Result, ensure};
use client_tests::{Database, Run, saying};

const ROWS: i64 = 1200;

/// A run in the middle of a table of `ROWS` rows.
fn in_the_middle(db: &Database) -> Result<Run> {
    db.execute(&format!(
        "CREATE TABLE t (id int, b int, c varchar(10) DEFAULT 'x');
         INSERT INTO t SELECT i, 0, NULL FROM generate_series(1, {ROWS}) i"
    ))?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.0003",
        "CALL safe_backfill('t', 'c', 'one', 50)",
    )?;
    run.wait_for_rows("t", 200)?;
    Ok(run)
}

fn all_filled(db: &Database, table: &str, rows: i64) -> Result<()> {
    assert_eq!(
        db.value::<i64>(&format!("SELECT count(*) FROM {table} WHERE c = 'one'"))?,
        rows
    );
    assert_eq!(
        db.value::<i64>(&format!("SELECT count(*) FROM {table}"))?,
        rows
    );
    Ok(())
}

#[test]
fn starts_over_when_the_table_is_truncated() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute(
        "BEGIN; TRUNCATE t; INSERT INTO t SELECT i, 0, NULL FROM generate_series(1, 500) i; COMMIT",
    )?;
    let notices = run.end()?.succeeded()?;
    assert_eq!(saying(&notices, "was rewritten").len(), 1, "{notices:#?}");
    all_filled(&db, "t", 500)
}

#[test]
fn starts_over_when_the_table_is_rewritten() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute("VACUUM FULL t")?;
    let notices = run.end()?.succeeded()?;
    assert_eq!(saying(&notices, "was rewritten").len(), 1, "{notices:#?}");
    all_filled(&db, "t", ROWS)?;
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        ROWS
    );
    Ok(())
}

#[test]
fn starts_over_when_the_table_was_rewritten_between_two_runs() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    db.execute("VACUUM FULL t")?;
    let notices = db
        .call("CALL safe_backfill('t', 'c', 'one', 50)")?
        .succeeded()?;
    assert_eq!(saying(&notices, "was rewritten").len(), 1, "{notices:#?}");
    all_filled(&db, "t", ROWS)?;
    assert_eq!(
        db.value::<i64>("SELECT rows_filled FROM safe_backfill_part")?,
        ROWS
    );
    Ok(())
}

/// Changes the column in the middle of a run, which must end with 42703 and say what happened.
fn column_changed(change: &str, said: &str) -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute(change)?;
    let error = run.end()?.failed_with("42703")?;
    ensure!(
        error.message.contains(said) && error.message.contains("\"c\""),
        "{error}"
    );
    Ok(())
}

#[test]
fn ends_when_the_column_is_dropped() -> Result<()> {
    column_changed("ALTER TABLE t DROP c", "was dropped")
}

#[test]
fn ends_when_the_column_is_dropped_and_made_anew() -> Result<()> {
    column_changed("ALTER TABLE t DROP c, ADD c varchar(10)", "was dropped")
}

#[test]
fn ends_when_the_column_is_made_anew_while_the_table_is_rewritten() -> Result<()> {
    column_changed(
        "ALTER TABLE t DROP c, ADD c varchar(10), ALTER b TYPE bigint",
        "was dropped",
    )?;
    column_changed(
        "BEGIN; ALTER TABLE t RENAME c TO d; ALTER TABLE t ADD c varchar(10), ALTER b TYPE bigint; COMMIT",
        "was renamed",
    )
}

#[test]
fn ends_when_the_column_is_made_anew_before_a_partition_is_begun() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, b int, c varchar(10)) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (600);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (600) TO (2000);
         INSERT INTO t SELECT i, 0 FROM generate_series(0, 1199) i",
    )?;
    db.slow_down("t1")?;
    let run = db.start_after(
        "SET test.pause = 0.01",
        "CALL safe_backfill('t', 'c', 'one', 50)",
    )?;
    run.wait_for_rows("t1", 1)?;
    let mut change = db.connect()?;
    change.batch_execute("BEGIN; LOCK TABLE t2 IN ACCESS EXCLUSIVE MODE")?;
    db.wait_until(
        "SELECT count(*) = 1 FROM pg_locks WHERE relation = 't2'::regclass AND NOT granted",
    )?;
    change.batch_execute("ALTER TABLE t DROP c, ADD c varchar(10); COMMIT")?;
    let error = run.end()?.failed_with("42703")?;
    ensure!(error.message.contains("\"c\" of"), "{error}");
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    Ok(())
}

#[test]
fn ends_when_the_column_is_renamed() -> Result<()> {
    column_changed(
        "ALTER TABLE t RENAME c TO d; ALTER TABLE t RENAME b TO c",
        "was renamed",
    )
}

#[test]
fn ends_when_the_type_of_the_column_is_changed() -> Result<()> {
    column_changed(
        "ALTER TABLE t ALTER c TYPE text",
        "was altered during the call",
    )?;
    column_changed(
        "ALTER TABLE t ALTER c TYPE varchar(5)",
        "was altered during the call",
    )?;
    column_changed(
        "ALTER TABLE t ALTER c DROP DEFAULT, ALTER c TYPE int USING 0",
        "was altered during the call",
    )
}

#[test]
fn ends_when_the_table_is_dropped() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute("DROP TABLE t")?;
    let error = run.end()?.failed_with("42P01")?;
    ensure!(error.message.contains("\"t\" was dropped"), "{error}");
    Ok(())
}

#[test]
fn goes_on_when_the_table_is_renamed_or_moved() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute(
        "ALTER TABLE t RENAME TO \"Other\"; CREATE SCHEMA s; ALTER TABLE \"Other\" SET SCHEMA s",
    )?;
    run.end()?.succeeded()?;
    all_filled(&db, "s.\"Other\"", ROWS)
}

#[test]
fn never_touches_another_table_that_takes_the_name() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute(
        "CREATE TABLE new (LIKE t INCLUDING ALL);
         INSERT INTO new SELECT id, b FROM t;
         UPDATE new SET c = NULL;
         BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE new RENAME TO t; COMMIT",
    )?;
    run.end()?.succeeded()?;
    all_filled(&db, "old", ROWS)?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NOT NULL")?,
        0
    );
    Ok(())
}

#[test]
fn goes_on_when_other_things_are_changed() -> Result<()> {
    let db = Database::new()?;
    let run = in_the_middle(&db)?;
    db.execute("ALTER TABLE t DROP b")?;
    db.execute("ALTER TABLE t ADD d int DEFAULT 1")?;
    db.execute("CREATE INDEX ON t (c)")?;
    db.execute("ALTER TABLE t ALTER c SET DEFAULT 'two'")?;
    db.execute("ANALYZE t")?;
    db.execute("VACUUM t")?;
    ensure!(!run.has_ended());
    run.end()?.succeeded()?;
    all_filled(&db, "t", ROWS)?;
    let mut client = db.connect()?;
    client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
    let by_index = client.query_one("SELECT count(*) FROM t WHERE c = 'one'", &[])?;
    assert_eq!(by_index.get::<_, i64>(0), ROWS);
    Ok(())
}

#[test]
fn fills_a_partition_that_is_attached_meanwhile() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE p (id int, c text DEFAULT 'x') PARTITION BY RANGE (id);
         CREATE TABLE t PARTITION OF p FOR VALUES FROM (1) TO (100000);
         INSERT INTO p SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         CREATE TABLE late (c text, dropped int, id int);
         ALTER TABLE late DROP dropped;
         INSERT INTO late SELECT NULL, i + 200000 FROM generate_series(1, 700) i"
    ))?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.0003",
        "CALL safe_backfill('p', 'c', 'one', 50)",
    )?;
    run.wait_for_rows("t", 200)?;
    db.execute("ALTER TABLE p ATTACH PARTITION late FOR VALUES FROM (200000) TO (300000)")?;
    run.end()?.succeeded()?;
    all_filled(&db, "p", ROWS + 700)?;
    assert_eq!(
        db.value::<i64>("SELECT sum(rows_filled)::bigint FROM safe_backfill_part")?,
        ROWS + 700
    );
    Ok(())
}

#[test]
fn goes_on_when_a_partition_is_dropped() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE p (id int, c text DEFAULT 'x') PARTITION BY RANGE (id);
         CREATE TABLE t PARTITION OF p FOR VALUES FROM (1) TO (100000);
         CREATE TABLE last PARTITION OF p FOR VALUES FROM (100000) TO (200000);
         INSERT INTO p SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         INSERT INTO p SELECT i + 100000, NULL FROM generate_series(1, 100) i"
    ))?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.0003",
        "CALL safe_backfill('p', 'c', 'one', 50)",
    )?;
    run.wait_for_rows("t", 200)?;
    // Old partitions are dropped every night; the others are filled all the same.
    db.execute("DROP TABLE last")?;
    run.end()?.succeeded()?;
    all_filled(&db, "p", ROWS)
}

/// A table of one row to a page, whose column was added with a default that the catalogs keep for older rows. The
/// update of row `slow` takes a second in sessions that say so; with an index on the column, a window is one pass.
fn with_default_of_older_rows(db: &Database, rows: i32, slow: i32) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int, filler text);
         ALTER TABLE t ALTER filler SET STORAGE PLAIN, ADD c varchar(10) DEFAULT 'x';
         INSERT INTO t SELECT i, repeat('f', 5000), NULL FROM generate_series(1, {rows}) i;
         CREATE INDEX ON t (c);
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(coalesce(nullif(current_setting('test.slow', true), ''), '0')::float8);
             RETURN NEW;
         END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id = {slow}) EXECUTE FUNCTION slow()"
    ))?;
    ensure!(db.value::<bool>(
        "SELECT atthasmissing FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'"
    )?);
    Ok(())
}

/// A run over the table above that meets `change`: asked for during the update of row `slow`, it comes when that batch
/// has been committed.
fn changed_after_row(db: &Database, rows: i32, slow: i32, change: &str) -> Result<Run> {
    with_default_of_older_rows(db, rows, slow)?;
    let run = db.start_after(
        // A batch may take a quarter of deadlock_timeout: the slow row does not end its batch.
        "SET test.slow = 1; SET deadlock_timeout = '60s'; SET safe_backfill.max_batch_time = '10s'",
        "CALL safe_backfill('t', 'c', 'one', 100000)",
    )?;
    db.wait_until(&format!(
        "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    db.execute(change)?;
    Ok(run)
}

fn rewritten_after_row(rows: i32, slow: i32) -> Result<()> {
    let db = Database::new()?;
    let run = changed_after_row(&db, rows, slow, "VACUUM FULL t")?;
    let notices = run.end()?.succeeded()?;
    assert_eq!(saying(&notices, "was rewritten").len(), 1, "{notices:#?}");
    all_filled(&db, "t", i64::from(rows))
}

/// Pages of the first window.
const WINDOW: i32 = 2048;

#[test]
fn starts_over_when_the_table_is_rewritten_between_two_windows() -> Result<()> {
    rewritten_after_row(WINDOW + 500, WINDOW)
}

#[test]
fn starts_over_when_the_table_is_rewritten_before_it_is_verified() -> Result<()> {
    rewritten_after_row(WINDOW, WINDOW)
}

/// Changes the access method of the table after a row was updated.
fn access_method_changed_after_row(rows: i32, slow: i32) -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler")?;
    let change = "ALTER TABLE t SET ACCESS METHOD other";
    let error = changed_after_row(&db, rows, slow, change)?
        .end()?
        .failed_with("0A000")?;
    ensure!(error.message.contains("\"other\""), "{error}");
    Ok(())
}

#[test]
fn ends_when_the_access_method_is_changed_between_two_windows() -> Result<()> {
    access_method_changed_after_row(WINDOW + 500, WINDOW)
}

#[test]
fn ends_when_the_access_method_is_changed_before_the_table_is_verified() -> Result<()> {
    access_method_changed_after_row(WINDOW, WINDOW)
}

#[test]
fn ends_when_the_access_method_is_changed() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler")?;
    let run = in_the_middle(&db)?;
    db.execute("ALTER TABLE t SET ACCESS METHOD other")?;
    let error = run.end()?.failed_with("0A000")?;
    ensure!(error.message.contains("\"other\""), "{error}");
    // At once: pages of another access method may not be read as those of a heap.
    ensure!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 'one'")? < ROWS);
    Ok(())
}

#[test]
fn ends_when_the_access_method_of_a_partition_is_changed() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
         CREATE TABLE p (id int, c text DEFAULT 'x') PARTITION BY RANGE (id);
         CREATE TABLE t PARTITION OF p FOR VALUES FROM (1) TO (100000);
         CREATE TABLE last PARTITION OF p FOR VALUES FROM (100000) TO (200000);
         INSERT INTO p SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         INSERT INTO p SELECT i + 100000, NULL FROM generate_series(1, 100) i"
    ))?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.0003",
        "CALL safe_backfill('p', 'c', 'one', 50)",
    )?;
    run.wait_for_rows("t", 200)?;
    db.execute("ALTER TABLE last SET ACCESS METHOD other")?;
    let error = run.end()?.failed_with("0A000")?;
    ensure!(
        error.message.contains("\"other\"") && error.message.contains("\"last\""),
        "{error}"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM last WHERE c = 'one'")?,
        0
    );
    Ok(())
}
