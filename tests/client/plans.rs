//! Rows are fetched by their place, whatever the planner believes of the table.

use anyhow::{Result, ensure};
use client_tests::Database;

/// Rows to be filled; with `BATCH` to a statement at most, that takes far more statements than `FEW`.
const ROWS: i64 = 10_000;
const BATCH: i64 = 50;
/// Scans of a table that one CALL may start: the looks that verify it, and what prepares the statements.
const FEW: i64 = 20;

/// How often tables and their indexes have been scanned.
#[derive(Debug, Clone, Copy)]
struct Scans {
    by_index: i64,
    whole: i64,
}

impl Scans {
    /// Of all tables whose names begin with `prefix`.
    fn of(db: &Database, prefix: &str) -> Result<Self> {
        let sum = |column: &str, view: &str| {
            db.value(&format!(
                "SELECT coalesce(sum({column}), 0)::bigint FROM {view} WHERE relname ~ '^{prefix}'"
            ))
        };
        Ok(Scans {
            by_index: sum("idx_scan", "pg_stat_user_indexes")?,
            whole: sum("seq_scan", "pg_stat_user_tables")?,
        })
    }

    fn since(self, before: Self) -> Self {
        Scans {
            by_index: self.by_index - before.by_index,
            whole: self.whole - before.whole,
        }
    }
}

/// Runs `call` in a session that begins with `setup`, and fails if the tables whose names begin with `t` were scanned
/// again and again meanwhile.
fn fetches_by_place(db: &Database, setup: &str, call: &str) -> Result<()> {
    let before = Scans::of(db, "t")?;
    let mut ended = db.call_after(setup, call)?;
    ended
        .client
        .batch_execute("SELECT pg_stat_force_next_flush()")?;
    ended.succeeded()?;
    let scans = Scans::of(db, "t")?.since(before);
    ensure!(
        scans.by_index <= FEW && scans.whole <= FEW,
        "{scans:?} for one CALL"
    );
    Ok(())
}

/// A table `t` with an index on the column, whose statistics say that it has no NULL.
fn with_stale_statistics(db: &Database) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, c int) WITH (autovacuum_enabled = off);
         CREATE INDEX ON t (c);
         INSERT INTO t SELECT i, i FROM generate_series(1, {ROWS}) i;
         ANALYZE t;
         TRUNCATE t;
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i"
    ))
}

fn call() -> String {
    format!("CALL safe_backfill('t', 'c', 7, {BATCH})")
}

fn all_filled(db: &Database) -> Result<()> {
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NOT NULL")?,
        ROWS
    );
    Ok(())
}

#[test]
fn an_index_on_the_column_with_stale_statistics_is_left_alone() -> Result<()> {
    let db = Database::new()?;
    with_stale_statistics(&db)?;
    fetches_by_place(&db, "", &call())?;
    all_filled(&db)
}

#[test]
fn a_partial_index_on_the_nulls_is_left_alone() -> Result<()> {
    let db = Database::new()?;
    with_stale_statistics(&db)?;
    db.execute("CREATE INDEX ON t (id) WHERE c IS NULL")?;
    fetches_by_place(&db, "", &call())?;
    all_filled(&db)
}

/// The planner multiplies the shares of conditions that go together, and takes the filter for one that few rows meet.
#[test]
fn an_index_that_fits_the_filter_is_left_alone() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE t (id int, country int, city int, street int, c int DEFAULT 0)
         WITH (autovacuum_enabled = off);
         CREATE INDEX ON t (country, city, street);
         INSERT INTO t SELECT i, i % 10, i % 10, i % 10, NULL FROM generate_series(1, {ROWS}) i;
         ANALYZE t"
    ))?;
    let filter = "country = 1 AND city = 1 AND street = 1";
    fetches_by_place(
        &db,
        "",
        &format!("CALL safe_backfill('t', 'c', 7, 10, filter => '{filter}')"),
    )?;
    assert_eq!(
        db.value::<i64>("SELECT count(c) FROM t")?,
        ROWS / 10,
        "rows filled"
    );
    Ok(())
}

#[test]
fn a_unique_index_that_fits_the_filter_is_left_alone() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         ANALYZE t"
    ))?;
    fetches_by_place(
        &db,
        "",
        &format!("CALL safe_backfill('t', 'c', 7, {BATCH}, filter => 'id = 5000')"),
    )?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 1);
    Ok(())
}

/// A table without an index: the planner's only other way is to read it as a whole.
fn plain(setup: &str) -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE t (id int, c int DEFAULT 0) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         ANALYZE t"
    ))?;
    fetches_by_place(&db, setup, &call())?;
    all_filled(&db)
}

#[test]
fn tid_scans_that_are_switched_off_are_used_all_the_same() -> Result<()> {
    plain("SET enable_tidscan = off")
}

#[test]
fn dear_random_pages_change_nothing() -> Result<()> {
    plain("SET random_page_cost = 10000")
}

#[test]
fn dear_tuples_change_nothing() -> Result<()> {
    plain(
        "SET random_page_cost = 10000; SET cpu_operator_cost = 0; SET plan_cache_mode = force_generic_plan",
    )
}

/// A trigger has the rows locked first, by a statement within the statement.
#[test]
fn rows_that_are_locked_first_are_fetched_by_their_places_too() -> Result<()> {
    let db = Database::new()?;
    with_stale_statistics(&db)?;
    db.slow_down("t")?;
    fetches_by_place(&db, "SET enable_tidscan = off", &call())?;
    all_filled(&db)
}

#[test]
fn each_partition_is_fetched_by_place() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (1) TO (5001) WITH (autovacuum_enabled = off);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (5001) TO (10001) WITH (autovacuum_enabled = off);
         CREATE INDEX ON t (c);
         INSERT INTO t SELECT i, i FROM generate_series(1, {ROWS}) i;
         ANALYZE t;
         TRUNCATE t;
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i"
    ))?;
    fetches_by_place(&db, "", &call())?;
    all_filled(&db)
}

#[test]
fn a_parent_and_its_children_are_fetched_by_place() -> Result<()> {
    let db = Database::new()?;
    db.execute(&format!(
        "CREATE TABLE t (id int, c int) WITH (autovacuum_enabled = off);
         CREATE TABLE t1 () INHERITS (t) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS} / 2) i;
         INSERT INTO t1 SELECT i, NULL FROM generate_series({ROWS} / 2 + 1, {ROWS}) i;
         ANALYZE t"
    ))?;
    fetches_by_place(
        &db,
        "SET enable_tidscan = off; SET random_page_cost = 10000",
        &call(),
    )?;
    all_filled(&db)
}

/// How an expression looks another table up is the planner's to say, as in any UPDATE of the user's own.
#[test]
fn an_expression_looks_another_table_up_by_its_index() -> Result<()> {
    let db = Database::new()?;
    with_stale_statistics(&db)?;
    db.execute(&format!(
        "CREATE TABLE other (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off);
         INSERT INTO other SELECT i, -i FROM generate_series(1, {ROWS}) i;
         ANALYZE other"
    ))?;
    let before = Scans::of(&db, "other")?;
    let lookup = "(SELECT o.v FROM other o WHERE o.id = t.id)";
    fetches_by_place(
        &db,
        "",
        &format!("CALL safe_backfill_using('t', 'c', '{lookup}', {BATCH})"),
    )?;
    let scans = Scans::of(&db, "other")?.since(before);
    ensure!(
        scans.by_index >= ROWS && scans.whole <= FEW,
        "{scans:?} of the other table"
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = -id")?,
        ROWS
    );
    Ok(())
}

/// The other way round: what the user switched off for the lookups of the expression stays switched off.
#[test]
fn an_expression_keeps_to_the_settings_of_the_session() -> Result<()> {
    const OTHERS: i64 = 100;
    let db = Database::new()?;
    with_stale_statistics(&db)?;
    db.execute(&format!(
        "CREATE TABLE other (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off);
         INSERT INTO other SELECT i, -i FROM generate_series(0, {OTHERS} - 1) i;
         ANALYZE other"
    ))?;
    let before = Scans::of(&db, "other")?;
    let lookup = format!("(SELECT o.v FROM other o WHERE o.id = t.id % {OTHERS})");
    fetches_by_place(
        &db,
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
         SET enable_tidscan = off",
        &format!("CALL safe_backfill_using('t', 'c', '{lookup}', {BATCH})"),
    )?;
    let scans = Scans::of(&db, "other")?.since(before);
    ensure!(
        scans.whole >= ROWS && scans.by_index <= FEW,
        "{scans:?} of the other table"
    );
    Ok(())
}
