//! Values of every type, in every form in which drivers send them.

use anyhow::{Result, ensure};
use client_tests::{Database, failure};
use postgres::types::ToSql;

fn table(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TABLE t (id int, t text, i int, l bigint, b boolean, z timestamptz, a int[], j jsonb, m mood, n numeric);
         INSERT INTO t SELECT generate_series(1, 100)",
    )
}

#[test]
fn parameters_of_prepared_statements() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut client = db.connect()?;
    let call = client.prepare("CALL safe_backfill('t', 't', $1)")?;
    client.execute(&call, &[&"it's"])?;
    // Text is read as the column's type reads it.
    client.execute("CALL safe_backfill('t', 'i', $1)", &[&"42"])?;
    client.execute("CALL safe_backfill('t', 'm', $1, $2)", &[&"happy", &50])?;
    client.execute(
        "CALL safe_backfill('t', 'j', $1, filter => $2)",
        &[&"{}", &"id > 0"],
    )?;
    let parameters: [(&str, &str, &(dyn ToSql + Sync)); 4] = [
        ("l", "int", &7i32),
        ("b", "bool", &false),
        ("n", "float8", &1.5f64),
        ("a", "int[]", &vec![1, 2]),
    ];
    for (column, parameter_type, value) in parameters {
        client.execute(
            &format!("CALL safe_backfill('t', '{column}', $1::{parameter_type})"),
            &[value],
        )?;
    }
    assert_eq!(
        db.value::<String>(
            "SELECT string_agg(DISTINCT (to_jsonb(x) - 'id' - 'z')::text, ' | ') FROM t x"
        )?,
        r#"{"a": [1, 2], "b": false, "i": 42, "j": {}, "l": 7, "m": "happy", "n": 1.5, "t": "it's"}"#
    );
    Ok(())
}

#[test]
fn typed_values() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    for (column, value) in [
        ("t", "42"),
        ("i", "42::bigint"),
        ("l", "42::int"),
        ("b", "false"),
        ("z", "now()"),
        ("a", "ARRAY[1, 2]"),
        ("j", "jsonb_build_object('a', 1)"),
        ("m", "'sad'::mood"),
        ("n", "'2'"),
    ] {
        db.call(&format!("CALL safe_backfill('t', '{column}', {value})"))?
            .succeeded()?;
    }
    assert_eq!(
        db.value::<String>(
            "SELECT string_agg(DISTINCT (to_jsonb(x) - 'id' - 'z')::text, ' | ') FROM t x"
        )?,
        r#"{"a": [1, 2], "b": false, "i": 42, "j": {"a": 1}, "l": 42, "m": "sad", "n": 2, "t": "42"}"#
    );
    assert_eq!(
        db.value::<i64>("SELECT count(DISTINCT z) FROM t WHERE z > now() - interval '1 minute'")?,
        1
    );
    Ok(())
}

#[test]
fn named_arguments_and_their_defaults() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.call(
        "CALL safe_backfill(table_name => 't', column_name => 'i', value => '1', batch_size => 10)",
    )?
    .succeeded()?;
    db.call("CALL safe_backfill_using(table_name => 't', column_name => 'l', expression => 'id', filter => 'id <= 50')")?
        .succeeded()?;
    assert_eq!(
        db.value::<String>("SELECT format('%s %s', count(i), count(l)) FROM t")?,
        "100 50"
    );
    Ok(())
}

#[test]
fn variables_of_plpgsql() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute(
        "DO $$
         DECLARE list int[] := ARRAY[1]; words text := 'some';
         BEGIN
             FOR i IN 2..5 LOOP list := list || i; words := words || ' words'; END LOOP;
             CALL safe_backfill('t', 'a', list, 10);
             CALL safe_backfill('t', 't', words, 10);
         END $$",
    )?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE a = '{1,2,3,4,5}' AND t LIKE 'some words%'")?,
        100
    );
    Ok(())
}

#[test]
fn values_without_a_type_of_their_own_are_errors() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut client = db.connect()?;
    let null: Option<&str> = None;
    let error = client
        .execute("CALL safe_backfill('t', 't', $1)", &[&null])
        .expect_err("NULL");
    failure(error, "22004")?;
    let error = client
        .execute("CALL safe_backfill('t', 'i', $1)", &[&"many"])
        .expect_err("no number");
    failure(error, "22P02")?;
    let error = client
        .execute("CALL safe_backfill('t', 'i', ROW(1, 2))", &[])
        .expect_err("a record");
    failure(error, "42804")?;
    Ok(())
}

#[test]
fn fills_columns_of_every_type() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TYPE pair AS (a int, b text);
         CREATE DOMAIN positive AS numeric(8, 2) CHECK (VALUE > 0);
         CREATE DOMAIN pairs AS pair[]",
    )?;
    for (number, (column_type, value)) in [
        ("boolean", "'false'"),
        ("smallint", "'1'"),
        ("numeric(6,2)", "'12.50'"),
        ("varchar(5)", "'abc'"),
        ("char(5)", "'ab'"),
        ("\"char\"", "'x'"),
        ("name", "'a name'"),
        ("text", "''"),
        ("mood", "'happy'"),
        ("pair", "'(1,\"x y\")'"),
        ("positive", "'3.25'"),
        ("pairs", "'{\"(1,x)\"}'"),
        ("int[]", "'{1,2,NULL}'"),
        ("text[]", "'{}'"),
        ("jsonb", "'{\"a\": [1, null]}'"),
        ("json", "'null'"),
        ("bytea", "'\\x00ff'"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'"),
        ("timestamptz", "'2024-02-29 12:00:00+00'"),
        ("interval", "'1 day'"),
        ("inet", "'10.0.0.1'"),
        ("point", "'(1,2)'"),
        ("xml", "'<a/>'"),
        ("int4range", "'[1,5)'"),
        ("tsvector", "'a:1 b:2'"),
        ("bit(3)", "'101'"),
        ("money", "'1.00'"),
        ("regclass", "'pg_class'"),
        ("float8", "'NaN'"),
        ("oid", "'7'"),
    ]
    .into_iter()
    .enumerate()
    {
        db.execute(&format!(
            "CREATE TABLE t{number} (id int, c {column_type});
             INSERT INTO t{number} SELECT generate_series(1, 300)"
        ))?;
        let call = format!("CALL safe_backfill('t{number}', 'c', {value}::text)");
        let ended = db.call(&call)?.succeeded();
        if let Err(error) = ended {
            ensure!(
                column_type == "xml" && format!("{error:#}").contains("unsupported"),
                "{column_type}: {error:#}"
            );
            continue;
        }
        let different = format!(
            "SELECT count(*) FROM t{number} WHERE c::text IS DISTINCT FROM ({value}::{column_type})::text"
        );
        assert_eq!(db.value::<i64>(&different)?, 0, "{column_type}");
    }
    Ok(())
}

/// A row of NULLs `IS NULL`, and yet it is a value.
#[test]
fn rows_of_nulls_are_not_overwritten() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TYPE pair AS (a int, b int);
         CREATE TABLE t (id int, c pair);
         INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN ROW(NULL, NULL)::pair END FROM generate_series(1, 1000) i",
    )?;
    db.call("CALL safe_backfill('t', 'c', '(1,2)')")?
        .succeeded()?;
    let filled = "SELECT count(*) FROM t WHERE c = ROW(1, 2)::pair";
    assert_eq!(db.value::<i64>(filled)?, 500);
    db.execute("UPDATE t SET c = NULL WHERE id % 2 = 1")?;
    db.call("CALL safe_backfill_using('t', 'c', 'ROW(NULL, id)::pair')")?
        .succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE (c).b = id")?,
        500
    );
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE id % 2 = 0 AND c IS NULL")?,
        500
    );
    Ok(())
}
