//! `safe_add_column`: in an instant, or not at all.

use anyhow::{Result, ensure};
use client_tests::{Database, failure, saying};

fn table(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i",
    )
}

const FILE: &str = "SELECT pg_relation_filenode('t')::int8";

#[test]
fn a_default_fills_all_rows_without_writing_one() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let file: i64 = db.value(FILE)?;
    for (call, value) in [
        ("'a', 'varchar(20)', 'active'", "active"),
        ("'b', 'int', 5", "5"),
        ("'c2', 'boolean', false", "f"),
        ("'d', 'numeric(6,2)', 1.5", "1.50"),
        ("'e', 'text', 'it''s'", "it's"),
        ("'f', 'int[]', ARRAY[1, NULL]", "{1,NULL}"),
        ("'g', 'jsonb', '{\"a\": 1}'", "{\"a\": 1}"),
        ("'Odd \"name\"', 'date', '2020-02-29'", "2020-02-29"),
    ] {
        db.call(&format!("CALL safe_add_column('t', {call})"))?
            .succeeded()?;
        let column = call.split('\'').nth(1).unwrap_or_default();
        let found: String = db.value(&format!(
            "SELECT string_agg(DISTINCT (to_jsonb(t) ->> '{column}'), '|') FROM t"
        ))?;
        let found_text: String = db.value(&format!(
            "SELECT string_agg(DISTINCT (\"{}\")::text, '|') FROM t",
            column.replace('"', "\"\"")
        ))?;
        ensure!(
            found == value || found_text == value || value == "f" && found == "false",
            "{call}: {found}, {found_text}"
        );
    }
    assert_eq!(db.value::<i64>(FILE)?, file, "the table was rewritten");
    Ok(())
}

#[test]
fn without_a_default_rows_are_null() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.call("CALL safe_add_column('t', 'a', 'text')")?
        .succeeded()?;
    db.call("CALL safe_add_column('t', 'b', 'text', NULL)")?
        .succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE a IS NULL AND b IS NULL")?,
        1000
    );
    assert_eq!(
        db.value::<i64>(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND atthasdef"
        )?,
        0
    );
    Ok(())
}

#[test]
fn a_column_that_is_there_is_left_alone() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let call = "CALL safe_add_column('t', 'a', 'varchar(20)')";
    db.call(call)?.succeeded()?;
    let notices = db.call(call)?.succeeded()?;
    ensure!(
        saying(&notices, "already exists").len() == 1,
        "{notices:#?}"
    );
    for other in ["varchar(21)", "text"] {
        let error = db
            .call(&format!("CALL safe_add_column('t', 'a', '{other}')"))?
            .failed_with("42701")?;
        let detail = error.detail.unwrap_or_default();
        ensure!(detail.contains("character varying(20)"), "{detail}");
    }
    Ok(())
}

#[test]
fn what_would_rewrite_the_table_is_refused() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute(
        "CREATE DOMAIN positive AS int CHECK (value > 0);
         CREATE DOMAIN filled AS int NOT NULL;
         CREATE DOMAIN of_positive AS positive;
         CREATE DOMAIN rolled AS float8 DEFAULT random();
         CREATE DOMAIN plain AS int DEFAULT 4",
    )?;
    let file: i64 = db.value(FILE)?;
    for (what, code) in [
        ("serial", "0A000"),
        (" BigSerial ", "0A000"),
        ("positive", "0A000"),
        ("filled", "0A000"),
        ("of_positive", "0A000"),
        ("rolled", "0A000"),
        ("int DEFAULT random()", "42601"),
        ("int GENERATED ALWAYS AS IDENTITY", "42601"),
        ("int GENERATED ALWAYS AS (id * 2) STORED", "42601"),
        ("int, ADD COLUMN y int", "42601"),
        ("", "42601"),
        ("nosuch", "42704"),
    ] {
        let error = db
            .call(&format!("CALL safe_add_column('t', 'x', '{what}')"))?
            .failed_with(code)?;
        let hint = error.hint.unwrap_or_default();
        ensure!(
            hint.contains("safe_backfill_using") || what == "nosuch",
            "{what} has no hint"
        );
    }
    db.call("CALL safe_add_column('t', 'rolled', 'rolled', 1)")?
        .succeeded()?;
    db.call("CALL safe_add_column('t', 'plain', 'plain')")?
        .succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE plain = 4 AND rolled = 1")?,
        1000
    );
    assert_eq!(db.value::<i64>(FILE)?, file, "the table was rewritten");
    Ok(())
}

#[test]
fn bad_input_changes_nothing() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("CREATE VIEW v AS SELECT * FROM t; CREATE SEQUENCE s")?;
    let columns = "SELECT string_agg(attname::text, ' ') FROM pg_attribute
                   WHERE attrelid = 't'::regclass AND attnum > 0";
    for (arguments, code) in [
        ("'nosuch', 'x', 'int'", "42P01"),
        ("'v', 'x', 'int'", "42809"),
        ("'s', 'x', 'int'", "42809"),
        ("'pg_class', 'x', 'int'", "42809"),
        ("NULL, 'x', 'int'", "22004"),
        ("'t', NULL, 'int'", "22004"),
        ("'t', 'x', NULL", "22004"),
        ("'t', 'ctid', 'int'", "42701"),
        ("'t', 'x', 'int', 'abc'", "22P02"),
        ("'t', 'x', 'int', date '2020-01-01'", "42804"),
        ("'t', 'x', 'varchar(3)', 'abcd'", "22001"),
        ("'t', 'x', 'smallint', 100000", "22003"),
    ] {
        db.call(&format!("CALL safe_add_column({arguments})"))?
            .failed_with(code)?;
    }
    let mut client = db.connect()?;
    for setup in [
        "BEGIN; CALL safe_add_column('t', 'x', 'int')",
        "DO $$ BEGIN BEGIN CALL safe_add_column('t', 'x', 'int'); EXCEPTION WHEN division_by_zero THEN END; END $$",
    ] {
        let error = client.batch_execute(setup).expect_err(setup);
        failure(error, "2D000")?;
        client.batch_execute("ROLLBACK")?;
    }
    assert_eq!(db.value::<String>(columns)?, "id c");
    Ok(())
}

#[test]
fn reaches_every_table_of_a_tree() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE p (id int) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
         CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20);
         INSERT INTO p SELECT generate_series(0, 19);
         CREATE TABLE parent (id int);
         CREATE TABLE child (x int) INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2)",
    )?;
    for (table, rows) in [("p", 20), ("parent", 2)] {
        db.call(&format!("CALL safe_add_column('{table}', 'c', 'int', 7)"))?
            .succeeded()?;
        assert_eq!(
            db.value::<i64>(&format!("SELECT count(*) FROM {table} WHERE c = 7"))?,
            rows
        );
    }
    Ok(())
}

#[test]
fn only_the_owner_may_and_others_do_not_even_queue() -> Result<()> {
    let db = Database::new()?;
    let role = format!("{}_other", db.name());
    table(&db)?;
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT ALL ON t TO {role}"
    ))?;
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("SELECT FROM t", &[])?;
    for call in [
        "CALL safe_add_column('t', 'x', 'int')",
        "CALL safe_set_not_null('t', 'c')",
    ] {
        let ended = db.start_as(&role, "", call)?.end()?;
        ensure!(ended.notices.is_empty(), "{:#?}", ended.notices);
        ended.failed_with("42501")?;
    }
    Ok(())
}

#[test]
fn a_domain_that_gets_a_constraint_meanwhile_does_not_rewrite_the_table() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("CREATE DOMAIN amount AS int")?;
    let file: i64 = db.value(FILE)?;
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("SELECT FROM t", &[])?;
    let call = "CALL safe_add_column('t', 'x', 'amount')";
    let run = db.start_after("SET safe_backfill.lock_timeout = '50ms'", call)?;
    ensure!(
        run.notices.wait(client_tests::PATIENCE).is_some(),
        "no retry"
    );
    db.execute("ALTER DOMAIN amount ADD CHECK (value > 0)")?;
    reading.commit()?;
    run.end()?.failed_with("0A000")?;
    assert_eq!(db.value::<i64>(FILE)?, file, "the table was rewritten");
    Ok(())
}

#[test]
fn a_null_in_an_array_is_a_null_whatever_the_session_has() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.call_after(
        "SET array_nulls = off",
        "CALL safe_add_column('t', 'a', 'text[]', ARRAY[NULL, 'x']::text[])",
    )?
    .succeeded()?;
    ensure!(db.value::<bool>("SELECT bool_and(a[1] IS NULL AND a[2] = 'x') FROM t")?);
    Ok(())
}
