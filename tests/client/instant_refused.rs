//! Where the catalogs must not be changed, and what would be wrong if they were.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Notice, Options, failure};

const CALL: &str = "CALL safe_backfill('t', 'c', 7, method => 'instant')";
const ROWS: i64 = 1000;

/// A table whose rows lack column `c`.
fn table(db: &Database) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i % 10 FROM generate_series(1, {ROWS}) i;
         ALTER TABLE t ADD COLUMN c int"
    ))
}

fn prepared(setup: &str) -> Result<Database> {
    let db = Database::new()?;
    table(&db)?;
    db.execute(setup)?;
    Ok(db)
}

/// The CALL is refused for a reason that names `what`, and has changed nothing.
fn refused(db: &Database, what: &str) -> Result<()> {
    let refused = refusal(db, "55000")?;
    let detail = refused.detail.as_deref().unwrap_or_default();
    ensure!(detail.contains(what), "{refused}");
    let hint = refused.hint.as_deref().unwrap_or_default();
    ensure!(hint.starts_with("Use method => 'batch'."), "{refused}");
    Ok(())
}

fn refusal(db: &Database, code: &str) -> Result<Notice> {
    let refused = db.call(CALL)?.failed_with(code)?;
    is_unchanged(db)?;
    Ok(refused)
}

fn is_unchanged(db: &Database) -> Result<()> {
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
fn force(db: &Database) -> Result<()> {
    db.execute(
        "SET allow_system_table_mods = on;
         UPDATE pg_attribute SET atthasmissing = true, attmissingval = array_in('{7}'::cstring, atttypid, atttypmod)
         WHERE attrelid = 't'::regclass AND attname = 'c'",
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
    // Within other types.
    let db = prepared(
        "CREATE TYPE pair AS (l t, r int); CREATE DOMAIN two AS pair; CREATE TABLE deep (d two)",
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
    Ok(())
}

#[test]
fn a_trigger_would_not_be_fired() -> Result<()> {
    const AUDIT: &str = "CREATE TABLE audit (id int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO audit VALUES (1); RETURN NEW; END $$;";
    for trigger in [
        "BEFORE UPDATE ON t FOR EACH ROW",
        "AFTER INSERT OR UPDATE ON t FOR EACH ROW",
        "AFTER UPDATE OF c ON t FOR EACH ROW",
        "AFTER UPDATE ON t FOR EACH STATEMENT",
    ] {
        let db = prepared(&format!(
            "{AUDIT} CREATE TRIGGER note {trigger} EXECUTE FUNCTION note()"
        ))?;
        refused(&db, "Trigger \"note\"")?;
        force(&db)?;
        assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, ROWS);
        assert_eq!(db.value::<i64>("SELECT count(*) FROM audit")?, 0);
    }
    // Those that an UPDATE would not fire.
    for trigger in [
        "CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER note AFTER UPDATE OF n ON t FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t DISABLE TRIGGER note",
        "CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE REPLICA TRIGGER note",
    ] {
        let db = prepared(&format!("{AUDIT} {trigger}"))?;
        if trigger.contains("REPLICA") {
            db.call_after("SET session_replication_role = replica", CALL)?
                .failed_with("55000")?;
        }
        db.call(CALL)?.succeeded().context(trigger)?;
        assert_eq!(db.value::<i64>("SELECT count(*) FROM audit")?, 0);
    }
    let db = prepared(&format!(
        "{AUDIT} CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE ALWAYS TRIGGER note"
    ))?;
    db.call_after("SET session_replication_role = replica", CALL)?
        .failed_with("55000")?;
    Ok(())
}

#[test]
fn a_trigger_of_a_partitioned_table_would_not_be_fired() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, n int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
         INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN c int;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()",
    )?;
    refused(&db, "Trigger \"note\"")
}

#[test]
fn a_subscriber_would_not_get_the_value() -> Result<()> {
    let db = Database::alone(Options::default().set("wal_level", "logical"))?;
    let mut client = db.connect()?;
    // Messages of pgoutput that begin with U are updates.
    let updates = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')
                   WHERE get_byte(data, 0) = ascii('U')";
    for published in [
        "FOR TABLE t",
        "FOR TABLE t (id, n)",
        "FOR TABLE t WHERE (id > 5)",
        "FOR ALL TABLES",
        "FOR TABLES IN SCHEMA public",
        "FOR TABLE t WITH (publish = 'update')",
    ] {
        table(&db)?;
        client.batch_execute(&format!("CREATE PUBLICATION p {published}"))?;
        refused(&db, "Publication \"p\"").context(published)?;
        client.batch_execute("DROP TABLE t; DROP PUBLICATION p")?;
    }
    table(&db)?;
    client.batch_execute("CREATE PUBLICATION p FOR TABLE t")?;
    client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")?;
    force(&db)?;
    assert_eq!(client.query_one(updates, &[])?.get::<_, i64>(0), 0);
    client.batch_execute("UPDATE t SET c = 8")?;
    assert_eq!(client.query_one(updates, &[])?.get::<_, i64>(0), ROWS);

    // A slot without a publication may belong to any consumer.
    client.batch_execute("DROP TABLE t; DROP PUBLICATION p")?;
    table(&db)?;
    refused(&db, "Logical replication slot \"s\"")?;
    client.batch_execute("SELECT pg_drop_replication_slot('s')")?;
    // What is not published, or has nobody to read it, is no obstacle.
    client.batch_execute("CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert, delete')")?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, ROWS);
    client
        .batch_execute("DROP TABLE t; DROP PUBLICATION p; CREATE PUBLICATION p FOR ALL TABLES")?;
    client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")?;
    table(&db)?;
    client.batch_execute(
        "ALTER TABLE t SET UNLOGGED; ALTER TABLE t DROP c; ALTER TABLE t ADD c int",
    )?;
    db.call(CALL)?.succeeded()?;
    Ok(())
}

#[test]
fn a_publication_of_a_partitioned_table_counts_for_its_leaves() -> Result<()> {
    let db = Database::alone(Options::default().set("wal_level", "logical"))?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
         INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN c int;
         CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root)",
    )?;
    refused(&db, "Publication \"p\"")?;
    let mut client = db.connect()?;
    let refused = client.batch_execute("CALL safe_backfill('t1', 'c', 7, method => 'instant')");
    failure(refused.expect_err("a refusal"), "55000")?;
    Ok(())
}

#[test]
fn rows_that_do_not_meet_a_filter_would_be_filled() -> Result<()> {
    let db = prepared("")?;
    let call = "CALL safe_backfill('t', 'c', 7, method => 'instant', filter => 'id <= 10')";
    let refused = db.call(call)?.failed_with("0A000")?;
    ensure!(
        refused
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("filter"),
        "{refused}"
    );
    is_unchanged(&db)?;
    force(&db)?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE id > 10 AND c = 7")?,
        ROWS - 10
    );
    Ok(())
}

#[test]
fn a_large_value_would_not_fit_into_the_catalogs() -> Result<()> {
    let db = prepared("ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN c text")?;
    let call = |bytes: i32| {
        format!("CALL safe_backfill('t', 'c', repeat('x', {bytes}), method => 'instant')")
    };
    let refused = db.call(&call(1100))?.failed_with("0A000")?;
    ensure!(
        refused
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("1104 bytes"),
        "{refused}"
    );
    is_unchanged(&db)?;
    // A value that does not compress is not moved out of line, as pg_attribute has no TOAST table.
    let mut client = db.connect()?;
    let forced = client.batch_execute(
        "SET allow_system_table_mods = on;
         UPDATE pg_attribute SET atthasmissing = true, attmissingval = array_in(
             array_out(ARRAY[(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)]), atttypid, -1)
         WHERE attrelid = 't'::regclass AND attname = 'c'",
    );
    failure(forced.expect_err("a row that is too big"), "54000")?;
    db.call(&call(1000))?.succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE length(c) = 1000")?,
        ROWS
    );
    Ok(())
}

#[test]
fn the_catalogs_of_a_table_are_its_owners() -> Result<()> {
    let db = prepared(
        "DO $$ BEGIN CREATE ROLE filler LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
         GRANT SELECT, UPDATE ON t TO filler",
    )?;
    let refused = db
        .start_as("filler", "", CALL)?
        .end()?
        .failed_with("42501")?;
    ensure!(
        refused.message.starts_with("must be owner of table"),
        "{refused}"
    );
    is_unchanged(&db)?;
    // An owner who is subject to policies does not see all rows.
    db.execute("ALTER TABLE t OWNER TO filler; ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")?;
    db.start_as("filler", "", CALL)?
        .end()?
        .failed_with("42501")?;
    is_unchanged(&db)?;
    db.execute("ALTER TABLE t NO FORCE ROW LEVEL SECURITY")?;
    db.start_as("filler", "", CALL)?.end()?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, ROWS);
    Ok(())
}

#[test]
fn what_a_backfill_cannot_fill_is_refused_as_ever() -> Result<()> {
    let db = prepared("CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING")?;
    refusal(&db, "0A000")?;
    let db = prepared(
        "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE t RENAME TO old; CREATE TABLE t (id int, c int) USING other",
    )?;
    refusal(&db, "0A000")?;
    let db = Database::new()?;
    db.execute("CREATE TABLE t (id int, c int) PARTITION BY RANGE (c); CREATE TABLE t1 PARTITION OF t DEFAULT")?;
    refusal(&db, "0A000")?;
    let mut client = db.connect()?;
    let unknown = client.batch_execute("CALL safe_backfill('t1', 'id', 7, method => 'quick')");
    failure(unknown.expect_err("no such method"), "22023")?;
    let null = client.batch_execute("CALL safe_backfill('t1', 'id', 7, method => NULL)");
    failure(null.expect_err("no method"), "22004")?;
    Ok(())
}

#[test]
fn an_obstacle_that_comes_while_the_lock_is_waited_for_is_seen() -> Result<()> {
    let db = prepared("")?;
    let mut holder = db.connect()?;
    holder.batch_execute("BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")?;
    let run = db.start_after("SET safe_backfill.lock_timeout = '200ms'", CALL)?;
    db.wait_until("SELECT waits_for IS NOT NULL FROM safe_backfill_progress")?;
    holder.batch_execute("CREATE INDEX i ON t (c); COMMIT")?;
    let refused = run.end()?.failed_with("55000")?;
    ensure!(
        refused
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("Index \"i\""),
        "{refused}"
    );
    const CHANGED: &str =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND atthasmissing";
    assert_eq!(db.value::<i64>(CHANGED)?, 0);
    Ok(())
}

#[test]
fn a_typed_table_is_no_obstacle() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TYPE kind AS (id int, n int); CREATE TABLE t OF kind; INSERT INTO t VALUES (1, 1);
         ALTER TYPE kind ADD ATTRIBUTE c int CASCADE",
    )?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, 1);
    // It has a row type of its own.
    assert_eq!(
        db.value::<Option<i32>>("SELECT (ROW(1, 1, NULL)::kind).c")?,
        None
    );
    Ok(())
}
