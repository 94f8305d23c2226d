//! Where the catalogs must not be changed, and what would be wrong if they were.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Notice};

pub const CALL: &str = "CALL safe_backfill('t', 'c', 7, method => 'instant')";
pub const ROWS: i64 = 1000;

/// A table whose rows lack column `c`.
pub fn table(db: &Database) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i % 10 FROM generate_series(1, {ROWS}) i;
         ALTER TABLE t ADD COLUMN c int"
    ))
}

pub fn prepared(setup: &str) -> Result<Database> {
    let db = Database::new()?;
    table(&db)?;
    db.execute(setup)?;
    Ok(db)
}

/// The CALL is refused for a reason that names `what`, and has changed nothing.
pub fn refused(db: &Database, what: &str) -> Result<()> {
    let refused = refusal(db, "55000")?;
    let detail = refused.detail.as_deref().unwrap_or_default();
    ensure!(detail.contains(what), "{refused}");
    let hint = refused.hint.as_deref().unwrap_or_default();
    ensure!(hint.starts_with("Use method => 'batch'."), "{refused}");
    Ok(())
}

pub fn refusal(db: &Database, code: &str) -> Result<Notice> {
    let refused = db.call(CALL)?.failed_with(code)?;
    is_unchanged(db)?;
    Ok(refused)
}

pub fn is_unchanged(db: &Database) -> Result<()> {
    const CHANGED: &str =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND atthasmissing";
    ensure!(db.value::<i64>(CHANGED)? == 0, "the catalogs were changed");
    ensure!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")? == 0,
        "a job was stored"
    );
    Ok(())
}

/// Does what the CALL refuses to do.
pub fn force(db: &Database) -> Result<()> {
    db.execute(
        "SET allow_system_table_mods = on;
         UPDATE pg_attribute SET atthasmissing = true, attmissingval = array_in('{7}'::cstring, atttypid, atttypmod)
         WHERE attrelid IN (SELECT 't'::regclass UNION SELECT relid FROM pg_partition_tree('t')) AND attname = 'c'",
    )
}

/// Rows of `query`, by a scan of the whole table and by other ones.
fn by_table_and_by_index(db: &Database, query: &str) -> Result<(i64, i64)> {
    let mut client = db.connect()?;
    client.batch_execute("SET enable_seqscan = on; SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")?;
    let all = client.query_one(query, &[])?.get(0);
    client.batch_execute("RESET ALL; SET enable_seqscan = off")?;
    Ok((all, client.query_one(query, &[])?.get(0)))
}

#[test]
fn an_index_would_disagree_with_its_table() -> Result<()> {
    let indexes = [
        ("(c)", "SELECT count(*) FROM t WHERE c = 7"),
        ("(id) INCLUDE (c)", "SELECT count(c) FROM t WHERE id > 0"),
        ("((c + 1))", "SELECT count(*) FROM t WHERE c + 1 = 8"),
        (
            "(n) WHERE c > 5",
            "SELECT count(*) FROM t WHERE n >= 0 AND c > 5",
        ),
        ("USING brin (c)", "SELECT count(*) FROM t WHERE c = 7"),
        ("USING hash (c)", "SELECT count(*) FROM t WHERE c = 7"),
        (
            "((num_nulls(c, n))) ",
            "SELECT count(*) FROM t WHERE num_nulls(c, n) = 0",
        ),
    ];
    for (definition, query) in indexes {
        let definition = match definition.strip_prefix("USING") {
            Some(rest) => format!("CREATE INDEX i ON t USING {rest}; VACUUM ANALYZE t"),
            None => format!("CREATE INDEX i ON t {definition}; VACUUM ANALYZE t"),
        };
        let db = Database::new()?;
        table(&db)?;
        for statement in definition.split(';') {
            db.execute(statement)?;
        }
        refused(&db, "Index \"i\"").with_context(|| definition.clone())?;
        force(&db)?;
        let (all, indexed) = by_table_and_by_index(&db, query)?;
        ensure!((all, indexed) == (ROWS, 0), "{definition}: {all} {indexed}");
    }
    Ok(())
}

#[test]
fn an_index_over_the_whole_row_would_disagree_too() -> Result<()> {
    let db = prepared(
        "CREATE FUNCTION filled(t) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT ($1).c IS NOT NULL';
         CREATE INDEX i ON t (id) WHERE filled(t)",
    )?;
    refused(&db, "Index \"i\"")?;
    force(&db)?;
    let query = "SELECT count(*) FROM t WHERE id > 0 AND filled(t)";
    assert_eq!(by_table_and_by_index(&db, query)?, (ROWS, 0));
    Ok(())
}

#[test]
fn a_constraint_would_be_violated() -> Result<()> {
    for valid in ["", "NOT VALID"] {
        let db = prepared(&format!(
            "ALTER TABLE t ADD CONSTRAINT k CHECK (c < n) {valid}"
        ))?;
        refused(&db, "Constraint \"k\"")?;
        force(&db)?;
        let violated: i64 = db.value("SELECT count(*) FROM t WHERE NOT c < n")?;
        assert_eq!(violated, 8 * ROWS / 10);
    }
    let db = prepared("ALTER TABLE t ADD CONSTRAINT k CHECK (t IS NULL OR c IS NULL)")?;
    refused(&db, "Constraint \"k\"")?;
    force(&db)?;
    let violated: i64 = db.value("SELECT count(*) FROM t WHERE NOT (t IS NULL OR c IS NULL)")?;
    assert_eq!(violated, ROWS);

    let db = prepared(
        "CREATE TABLE other (id int PRIMARY KEY); ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (c) REFERENCES other",
    )?;
    refused(&db, "Constraint \"k\"")?;
    force(&db)?;
    let orphans: i64 =
        db.value("SELECT count(*) FROM t WHERE NOT EXISTS (SELECT FROM other o WHERE o.id = t.c)")?;
    assert_eq!(orphans, ROWS);

    let db = prepared("ALTER TABLE t ADD CONSTRAINT k EXCLUDE USING btree (c WITH =)")?;
    refused(&db, "Index \"k\"")?;
    force(&db)?;
    let query = "SELECT count(*) FROM t WHERE c = 7";
    assert_eq!(by_table_and_by_index(&db, query)?, (ROWS, 0));
    Ok(())
}

#[test]
fn a_check_on_the_column_alone_is_tried_on_the_value() -> Result<()> {
    for valid in ["", "NOT VALID"] {
        let db = prepared(&format!(
            "ALTER TABLE t ADD CONSTRAINT k CHECK (c > 0) {valid}"
        ))?;
        db.call(CALL)?.succeeded()?;
        assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, ROWS);
    }
    let db = prepared("ALTER TABLE t ADD CONSTRAINT k CHECK (c < 7)")?;
    refusal(&db, "23514")?;
    // One that a leaf alone has.
    let db = prepared(
        "CREATE TABLE child (extra int) INHERITS (t); ALTER TABLE child ADD CONSTRAINT k CHECK (c < 7)",
    )?;
    refusal(&db, "23514")?;
    let db = prepared("ALTER TABLE t ADD CONSTRAINT present CHECK (c IS NOT NULL) NOT VALID")?;
    db.call(CALL)?.succeeded()?;
    db.execute("ALTER TABLE t VALIDATE CONSTRAINT present")?;
    Ok(())
}

#[test]
fn a_not_null_that_is_not_valid_yet_is_no_obstacle() -> Result<()> {
    let db = Database::new()?;
    if db.value::<i32>("SELECT current_setting('server_version_num')::int")? < 180000 {
        return Ok(());
    }
    table(&db)?;
    db.execute("ALTER TABLE t ADD CONSTRAINT k NOT NULL c NOT VALID")?;
    db.call(CALL)?.succeeded()?;
    db.execute("ALTER TABLE t VALIDATE CONSTRAINT k")?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, ROWS);
    Ok(())
}

#[test]
fn extended_statistics_would_mislead_the_planner() -> Result<()> {
    let db = prepared("CREATE STATISTICS s (mcv) ON n, c FROM t; ANALYZE t")?;
    refused(&db, "Statistics object \"s\"")?;
    force(&db)?;
    db.execute(
        "CREATE FUNCTION explain(query text) RETURNS json LANGUAGE plpgsql AS $$
         DECLARE plan json; BEGIN EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan; RETURN plan; END $$",
    )?;
    let estimate: i64 = db.value(
        "SELECT (explain('SELECT FROM t WHERE n = 1 AND c = 7') -> 0 -> 'Plan' ->> 'Plan Rows')::int8",
    )?;
    let rows: i64 = db.value("SELECT count(*) FROM t WHERE n = 1 AND c = 7")?;
    ensure!(rows == ROWS / 10 && estimate < 2, "{estimate} of {rows}");
    Ok(())
}

#[test]
fn what_is_computed_from_the_column_would_be_wrong() -> Result<()> {
    // To add a column that is stored has written all rows, with column c: batches have to fill them anyway.
    let db = prepared("ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (c * 2) STORED")?;
    refused(&db, "Generated column \"g\"")?;
    if db.value::<i32>("SELECT current_setting('server_version_num')::int")? < 180000 {
        return Ok(());
    }
    let db = prepared(
        "ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (c * 2) VIRTUAL;
         ALTER TABLE t ADD CONSTRAINT k CHECK (g < 10)",
    )?;
    refused(&db, "Generated column \"g\"")?;
    force(&db)?;
    let violated: i64 = db.value("SELECT count(*) FROM t WHERE NOT g + 0 < 10")?;
    assert_eq!(violated, ROWS);
    Ok(())
}

#[test]
fn a_policy_would_hide_rows_from_a_transaction_that_saw_them() -> Result<()> {
    let db = prepared(
        "CREATE POLICY p ON t USING (c IS NULL); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
         GRANT SELECT ON t TO reader",
    )?;
    refused(&db, "Policy \"p\"")?;
    // One of another table that uses the row as a whole.
    let other = prepared(
        "CREATE TABLE other (id int); CREATE POLICY o ON other USING ((SELECT max(t::text) FROM t) IS NOT NULL)",
    )?;
    refused(&other, "Policy \"o\"")?;
    let mut reader = db.connect_as("reader")?;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1")?;
    force(&db)?;
    let visible: i64 = reader.query_one("SELECT count(*) FROM t", &[])?.get(0);
    assert_eq!(visible, 0);
    Ok(())
}

#[test]
fn a_materialized_view_would_keep_its_copy() -> Result<()> {
    for query in [
        "SELECT id, c FROM t",
        "SELECT * FROM v",
        "SELECT id, (to_jsonb(t) ->> 'c')::int AS c FROM t",
    ] {
        let db = prepared(&format!(
            "CREATE VIEW v AS SELECT id, c FROM t; CREATE MATERIALIZED VIEW m AS {query}"
        ))?;
        refused(&db, "Materialized view \"m\"")?;
        force(&db)?;
        assert_eq!(db.value::<i64>("SELECT count(*) FROM v WHERE c = 7")?, ROWS);
        assert_eq!(db.value::<i64>("SELECT count(*) FROM m WHERE c = 7")?, 0);
    }
    // Views are computed anew, and other columns do not change.
    let db = prepared(
        "CREATE VIEW v AS SELECT id, c FROM t; CREATE MATERIALIZED VIEW m AS SELECT id, n FROM t",
    )?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM v WHERE c = 7")?, ROWS);
    Ok(())
}

#[test]
fn rows_that_are_stored_in_another_table_would_change() -> Result<()> {
    for (column, stored) in [("t", "t"), ("t[]", "ARRAY[t]")] {
        let db = Database::new()?;
        db.execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 10) i;
             CREATE TABLE history (id int, saved {column}); INSERT INTO history SELECT 1, {stored} FROM t;
             ALTER TABLE t ADD COLUMN c int"
        ))?;
        let refused = refusal(&db, "0A000")?;
        let detail = refused.detail.as_deref().unwrap_or_default();
        ensure!(
            detail.contains("Column \"saved\" of relation \"history\""),
            "{refused}"
        );
        force(&db)?;
        let changed = match column {
            "t" => "SELECT count(*) FROM history WHERE (saved).c = 7",
            _ => "SELECT count(*) FROM history WHERE (saved[1]).c = 7",
        };
        assert_eq!(db.value::<i64>(changed)?, 10);
    }
    // Within other types, and by way of a foreign table.
    let db = prepared(
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
         CREATE FOREIGN TABLE ft (x t) SERVER nowhere; CREATE TABLE deep (d ft)",
    )?;
    let by_foreign_table = refusal(&db, "0A000")?;
    ensure!(
        by_foreign_table.to_string().contains("\"deep\""),
        "{by_foreign_table}"
    );
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 10) i;
         CREATE TYPE pair AS (l t, r int); CREATE DOMAIN two AS pair; CREATE TABLE deep (d two);
         INSERT INTO deep SELECT ROW(t, 1)::pair FROM t; ALTER TABLE t ADD COLUMN c int",
    )?;
    let refused = refusal(&db, "0A000")?;
    ensure!(
        refused
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("\"deep\""),
        "{refused}"
    );
    force(&db)?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM deep WHERE ((d::pair).l).c = 7")?,
        10
    );
    Ok(())
}
