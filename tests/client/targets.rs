//! Tables of every kind.

use anyhow::{Context, Result};
use client_tests::Database;

/// Makes a table with `setup`, fills column `column` of `table` and looks that all of its `rows` have the value now,
/// and that nothing else has changed.
fn fills(setup: &str, table: &str, column: &str, value: &str, rows: i64) -> Result<()> {
    let db = Database::new()?;
    fills_in(&db, setup, table, column, value, rows).with_context(|| setup.to_owned())
}

fn fills_in(
    db: &Database,
    setup: &str,
    table: &str,
    column: &str,
    value: &str,
    rows: i64,
) -> Result<()> {
    let mut client = db.connect()?;
    client.batch_execute(setup)?;
    let quoted: String = client
        .query_one("SELECT quote_ident($1)", &[&column])?
        .get(0);
    let others = format!(
        "SELECT coalesce(sum(hashtextextended((to_jsonb(x) - '{column}')::text, 0)), 0)::text FROM {table} x"
    );
    let before: String = client.query_one(&others, &[])?.get(0);
    let literal = format!("SELECT quote_literal(({value})::text)");
    let literal: String = client.query_one(&literal, &[])?.get(0);
    let call = format!("CALL safe_backfill('{table}', '{column}', {literal}, 700)");
    client.batch_execute(&call)?;
    let filled = format!("SELECT count(*) FROM {table} WHERE {quoted} IS NOT NULL");
    assert_eq!(client.query_one(&filled, &[])?.get::<_, i64>(0), rows);
    let different =
        format!("SELECT count(*) FROM {table} WHERE ({quoted})::text <> ({value})::text");
    assert_eq!(client.query_one(&different, &[])?.get::<_, i64>(0), 0);
    let after: String = client.query_one(&others, &[])?.get(0);
    assert_eq!(before, after, "other columns have changed");
    let stored = "SELECT sum(rows_filled)::bigint FROM safe_backfill_part";
    assert_eq!(client.query_one(stored, &[])?.get::<_, i64>(0), rows);
    Ok(())
}

#[test]
fn fills_temporary_unlogged_and_empty_tables() -> Result<()> {
    let body = "(id int, c int); INSERT INTO t SELECT generate_series(1, 5000)";
    fills(
        &format!("CREATE TEMPORARY TABLE t {body}"),
        "t",
        "c",
        "1",
        5000,
    )?;
    fills(
        &format!("CREATE UNLOGGED TABLE t {body}"),
        "t",
        "c",
        "1",
        5000,
    )?;
    fills("CREATE TABLE t (id int, c int)", "t", "c", "1", 0)
}

#[test]
fn fills_every_partition() -> Result<()> {
    fills(
        "CREATE TABLE t (dropped int, id int, note text, c int) PARTITION BY RANGE (id);
         ALTER TABLE t DROP dropped;
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (1) TO (1000);
         CREATE TABLE high (c int, gone int, gone2 text, note text, id int) PARTITION BY LIST (id);
         ALTER TABLE high DROP gone, DROP gone2;
         CREATE TABLE high_default PARTITION OF high DEFAULT;
         ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (1000) TO (100000);
         CREATE TABLE empty PARTITION OF t DEFAULT;
         INSERT INTO t SELECT i, 'note ' || i FROM generate_series(1, 3000) i",
        "t",
        "c",
        "1",
        3000,
    )
}

#[test]
fn fills_one_partition_only_when_asked_to() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY LIST (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
         INSERT INTO t VALUES (1), (2)",
    )?;
    db.call("CALL safe_backfill('t1', 'c', 5)")?.succeeded()?;
    assert_eq!(
        db.value::<String>("SELECT string_agg(t::text, ' ' ORDER BY id) FROM t")?,
        "(1,5) (2,)"
    );
    Ok(())
}

#[test]
fn fills_inheritance_trees() -> Result<()> {
    fills(
        "CREATE TABLE t (id int, c int);
         CREATE TABLE child (own text) INHERITS (t);
         CREATE TABLE grandchild (x int) INHERITS (child);
         CREATE TABLE other (own2 int, c int, id int);
         ALTER TABLE other INHERIT t;
         INSERT INTO t SELECT generate_series(1, 500);
         INSERT INTO child SELECT generate_series(501, 1000), NULL, 'own';
         INSERT INTO grandchild SELECT generate_series(1001, 1500), NULL, 'own', 5;
         INSERT INTO other SELECT 7, NULL, generate_series(1501, 2000)",
        "t",
        "c",
        "1",
        2000,
    )
}

#[test]
fn fills_tables_with_strange_names() -> Result<()> {
    let rows = "SELECT generate_series(1, 1000)";
    fills(
        &format!(
            r#"CREATE SCHEMA "Größe; -- x"; CREATE TABLE "Größe; -- x"."select ""它"" @" (id int, "Ünï ""c"" $1" text);
               INSERT INTO "Größe; -- x"."select ""它"" @" {rows}"#
        ),
        r#""Größe; -- x"."select ""它"" @""#,
        "Ünï \"c\" $1",
        "'wert ''1''; 它'",
        1000,
    )?;
    fills(
        &format!(
            "CREATE SCHEMA \"@\"; CREATE TABLE \"@\".\"update\" (id int, \"user\" text); INSERT INTO \"@\".\"update\" {rows}"
        ),
        "\"@\".\"update\"",
        "user",
        "'x'",
        1000,
    )
}

#[test]
fn fills_tables_from_any_schema_of_the_extension() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "DROP EXTENSION pg_safe_backfill;
         CREATE SCHEMA \"Ext @ 1\"; CREATE EXTENSION pg_safe_backfill SCHEMA \"Ext @ 1\";
         CREATE TABLE public.t (id int, c int); INSERT INTO t SELECT generate_series(1, 1000)",
    )?;
    db.call("CALL \"Ext @ 1\".safe_backfill('t', 'c', 1, 100)")?
        .succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 1000);
    assert_eq!(
        db.value::<String>("SELECT state FROM \"Ext @ 1\".safe_backfill_progress")?,
        "completed"
    );
    Ok(())
}

#[test]
fn fills_narrow_wide_sparse_and_dense_rows() -> Result<()> {
    fills(
        "CREATE TABLE t (id smallint, c boolean); INSERT INTO t SELECT i % 100 FROM generate_series(1, 20000) i",
        "t",
        "c",
        "true",
        20000,
    )?;
    fills(
        "CREATE TABLE t (c boolean); INSERT INTO t SELECT NULL FROM generate_series(1, 5000) i",
        "t",
        "c",
        "false",
        5000,
    )?;
    let wide = "string_agg(md5(i::text || j::text), '')";
    fills(
        &format!(
            "CREATE TABLE t (id int, note text, c text);
             INSERT INTO t SELECT i, {wide} FROM generate_series(1, 500) i, generate_series(1, 100) j GROUP BY i"
        ),
        "t", "c", "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100) i)", 500,
    )?;
    fills(
        "CREATE TABLE t (id int, c jsonb); INSERT INTO t SELECT generate_series(1, 500)",
        "t",
        "c",
        "(SELECT jsonb_object_agg(i, md5(i::text)) FROM generate_series(1, 250) i)",
        500,
    )?;
    for fillfactor in [50, 100] {
        fills(
            &format!(
                "CREATE TABLE t (id int PRIMARY KEY, note text, c text) WITH (fillfactor = {fillfactor});
                 INSERT INTO t SELECT i, repeat('x', i % 90) FROM generate_series(1, 5000) i"
            ),
            "t", "c", "repeat('filled ', 5)", 5000,
        )?;
    }
    Ok(())
}

#[test]
fn fills_columns_that_indexes_and_constraints_use() -> Result<()> {
    let rows = "INSERT INTO t (id) SELECT generate_series(1, 5000)";
    for extra in [
        "CREATE INDEX ON t (c)",
        "CREATE INDEX ON t USING brin (c)",
        "CREATE INDEX ON t USING hash (c)",
        "CREATE INDEX ON t (id) WHERE c IS NULL",
        "CREATE INDEX ON t ((c + id))",
        "CREATE INDEX ON t (id) INCLUDE (c)",
        "CREATE UNIQUE INDEX ON t (id, c)",
        "ALTER TABLE t ADD CHECK (c > 0 AND id > 0)",
        "ALTER TABLE t ADD g int GENERATED ALWAYS AS (id * 2) STORED",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1); ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES parent",
        "CREATE STATISTICS s ON id, c FROM t",
        "CREATE VIEW v AS SELECT * FROM t",
        "ALTER TABLE t REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t",
    ] {
        fills(
            &format!("CREATE TABLE t (id int NOT NULL, c int); {extra}; {rows}"),
            "t",
            "c",
            "1",
            5000,
        )?;
    }
    Ok(())
}

#[test]
fn indexes_find_every_row_afterwards() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, u uuid DEFAULT gen_random_uuid(), c int);
         CREATE INDEX ON t (u); CREATE INDEX ON t (c);
         INSERT INTO t SELECT generate_series(1, 20000)",
    )?;
    db.call("CALL safe_backfill_using('t', 'c', 'id % 100')")?
        .succeeded()?;
    let mut client = db.connect()?;
    client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
    let row = client.query_one(
        "SELECT (SELECT count(*) FROM t WHERE id > 0), (SELECT count(*) FROM t WHERE u > '00000000-0000-0000-0000-000000000000'),
                (SELECT count(*) FROM t WHERE c = 5)",
        &[],
    )?;
    assert_eq!(
        (row.get(0), row.get(1), row.get(2)),
        (20000i64, 20000i64, 200i64)
    );
    Ok(())
}
