//! A table whose rows got their values through the catalogs is like one that was updated, whatever happens to it.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, SUPERUSER, Server, Shutdown};

/// Types, and values of them as literals.
const COLUMNS: [(&str, &str); 27] = [
    ("text", "active"),
    ("text", ""),
    ("text", "NULL"),
    ("text", "null"),
    ("text", r#"it's "quoted", {braced}, back\slashed"#),
    ("text", "two\nlines\tand a tab "),
    ("text", "größer 東京"),
    ("varchar(20)", "NULL"),
    ("char(5)", "ab"),
    ("name", "a name"),
    ("numeric", "-12345678901234567890.1234567890"),
    ("numeric(10,2)", "1.005"),
    ("numeric", "NaN"),
    ("float8", "0.1"),
    ("timestamptz", "2024-02-29 23:59:59.123456+05:30"),
    ("date", "infinity"),
    ("interval", "-1 mon 2 days -03:04:05.678901"),
    ("uuid", "01234567-89ab-cdef-0123-456789abcdef"),
    (
        "jsonb",
        r#"{"a": [1, null, "NULL"], "b": {"c": "\\\"'{},"}}"#,
    ),
    ("bytea", r"\x00ff5c27"),
    ("boolean", "false"),
    ("int[]", "{1,NULL,3}"),
    ("text[]", r#"{a,NULL,"NULL","","{b}","c\\\"d,e"}"#),
    ("box", "(1,2),(3,4)"),
    ("box[]", "{(1,2),(3,4);(5,6),(7,8)}"),
    ("mood", "so, so"),
    ("code", "A-1"),
];
const MORE: [(&str, &str); 4] = [
    ("pair", r#"(1,"a ""b"", c")"#),
    ("int4range", "[1,10)"),
    ("names", r#"{"x y",NULL}"#),
    ("point", "(1.5,-2.25)"),
];
const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'so, so', 'happy');
    CREATE DOMAIN code AS varchar(10);
    CREATE TYPE pair AS (i int, t text);
    CREATE DOMAIN names AS text[]";

/// By these a session writes values in other ways than PostgreSQL reads them in.
const SETTINGS: &str = "
    SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = 0;
    SET bytea_output = escape";

fn columns() -> impl Iterator<Item = (String, &'static str, String)> {
    let all = COLUMNS.into_iter().chain(MORE).enumerate();
    all.map(|(number, (column_type, value))| {
        let literal = format!("'{}'", value.replace('\'', "''"));
        (format!("c{number}"), column_type, literal)
    })
}

/// Table `t`, filled by the method, and `u`, filled by UPDATE.
fn filled(db: &Database) -> Result<()> {
    db.execute(TYPES)?;
    for table in ["t", "u"] {
        db.execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, n int);
             INSERT INTO {table} SELECT i, i % 10 FROM generate_series(1, 2000) i"
        ))?;
    }
    for (column, column_type, literal) in columns() {
        for table in ["t", "u"] {
            db.execute(&format!(
                "ALTER TABLE {table} ADD COLUMN {column} {column_type}"
            ))?;
            db.execute(&format!("UPDATE {table} SET n = n WHERE id % 500 = 0"))?;
        }
        // A column of a domain that has a constraint already is not added without writing all rows.
        if column_type == "code" {
            db.execute("ALTER DOMAIN code ADD CHECK (VALUE LIKE '%-%')")?;
        }
        db.call_after(
            SETTINGS,
            &format!("CALL safe_backfill('t', '{column}', {literal}, method => 'instant')"),
        )?
        .succeeded()
        .with_context(|| format!("{column_type} {literal}"))?;
        db.execute(&format!("{SETTINGS}; UPDATE u SET {column} = {literal}"))?;
    }
    Ok(())
}

/// Whether both tables have the same rows.
const SAME: &str = "
    SELECT (SELECT md5(string_agg(t::text, ' ' ORDER BY id)) FROM t)
         = (SELECT md5(string_agg(u::text, ' ' ORDER BY id)) FROM u)
    AND (SELECT count(*) FROM t) = 2000";
/// How many columns have a value for rows that lack them.
const MISSING: &str =
    "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND atthasmissing";

/// Both tables have the same rows.
fn agree(db: &Database) -> Result<()> {
    if !db.value::<bool>(SAME)? {
        for (column, column_type, literal) in columns() {
            let wrong: i64 = db.value(&format!(
                "SELECT count(*) FROM t FULL JOIN u USING (id) WHERE t.{column}::text IS DISTINCT FROM u.{column}::text"
            ))?;
            ensure!(wrong == 0, "{column} {column_type} {literal}: {wrong} rows");
        }
        anyhow::bail!("the tables differ");
    }
    Ok(())
}

fn missing(db: &Database) -> Result<i64> {
    db.value(MISSING)
}

/// Every index of the table agrees with it, by amcheck if the server has it, and by three kinds of scan.
fn indexes_agree(db: &Database) -> Result<()> {
    const AMCHECK: &str = "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'amcheck'";
    if db.value(AMCHECK)? {
        db.execute(
            "CREATE EXTENSION IF NOT EXISTS amcheck;
             SELECT bt_index_parent_check(indexrelid, true, true) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
             WHERE indrelid IN ('t'::regclass, 'u'::regclass) AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree');
             DO $$ DECLARE problem record; BEGIN
                 FOR problem IN SELECT * FROM verify_heapam('t', check_toast => true) LOOP
                     RAISE EXCEPTION '%', problem;
                 END LOOP;
             END $$",
        )?;
    }
    const SCANS: [&str; 3] = [
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off",
        "SET enable_seqscan = off; SET enable_bitmapscan = off",
        "SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off",
    ];
    let mut client = db.connect()?;
    for condition in [
        "c0 = 'active'",
        "c10 < 0",
        "c20 = false",
        "n = 3 AND c0 >= 'a'",
        "c25 = 'so, so'",
    ] {
        let mut found = vec![];
        for (scan, table) in SCANS
            .iter()
            .flat_map(|scan| ["t", "u"].map(|table| (scan, table)))
        {
            client.batch_execute(&format!("RESET ALL; {scan}"))?;
            let query = format!(
                "SELECT string_agg(id::text, ' ' ORDER BY id) FROM {table} WHERE {condition}"
            );
            found.push(client.query_one(&query, &[])?.get::<_, String>(0));
        }
        ensure!(
            found.windows(2).all(|pair| pair[0] == pair[1]),
            "{condition}"
        );
    }
    Ok(())
}

const INDEXES: &str = "
    CREATE INDEX ON {} (c0); CREATE INDEX ON {} (c10); CREATE INDEX ON {} USING brin (c10);
    CREATE INDEX ON {} (c20); CREATE INDEX ON {} (n, c0) INCLUDE (c20); CREATE INDEX ON {} (c25) WHERE c20 = false;
    ALTER TABLE {} ADD CONSTRAINT k CHECK (c0 = 'active' AND NOT c20 AND n < 10)";

#[test]
fn values_of_all_types_are_kept_whatever_is_done_to_the_table() -> Result<()> {
    let db = Database::alone(Options::default())?;
    filled(&db)?;
    let columns = columns().count() as i64;
    assert_eq!(missing(&db)?, columns);
    agree(&db)?;

    db.server().restart()?;
    agree(&db)?;
    for table in ["t", "u"] {
        db.execute(&INDEXES.replace("{}", table))?;
    }
    db.execute("VACUUM ANALYZE")?;
    indexes_agree(&db)?;
    for (column, ..) in self::columns() {
        db.call(&format!("CALL safe_set_not_null('t', '{column}')"))?
            .succeeded()?;
    }
    agree(&db)?;
    // Rows that are written anew have the column.
    db.execute("UPDATE t SET n = n WHERE id % 3 = 0; UPDATE u SET n = n")?;
    db.execute("VACUUM (FREEZE) t")?;
    agree(&db)?;
    indexes_agree(&db)?;
    assert_eq!(missing(&db)?, columns);

    db.execute("CLUSTER t USING t_pkey")?;
    assert_eq!(missing(&db)?, 0);
    agree(&db)?;
    indexes_agree(&db)
}

#[test]
fn values_are_kept_by_vacuum_full() -> Result<()> {
    let db = Database::new()?;
    filled(&db)?;
    db.execute("VACUUM FULL t")?;
    assert_eq!(missing(&db)?, 0);
    agree(&db)
}

#[test]
fn values_are_kept_by_a_dump_and_a_standby() -> Result<()> {
    let db = Database::alone(Options::default())?;
    let standby = Server::standby_of(db.server(), Options::default().set("hot_standby", "on"))?;
    filled(&db)?;
    standby.catch_up_with(db.server())?;
    let there =
        |query: &str| -> Result<bool> { Ok(standby.connect()?.query_one(query, &[])?.try_get(0)?) };
    ensure!(there(SAME)?);
    standby.promote()?;
    ensure!(there(SAME)?);

    let directory = db.server().scratch_directory()?;
    let file = directory.join("dump");
    let dump = db
        .server()
        .client_program("pg_dump", db.name())
        .args(["--format=custom", "--table=t", "--table=u", "--file"])
        .arg(&file)
        .status()?;
    ensure!(dump.success());
    db.server().create_database("copy")?;
    db.server()
        .connect_as(SUPERUSER, "copy")?
        .batch_execute(TYPES)?;
    let restore = db
        .server()
        .client_program("pg_restore", "copy")
        .args(["--exit-on-error", "--dbname=copy"])
        .arg(&file)
        .status()?;
    ensure!(restore.success());
    let mut copy = db.server().connect_as(SUPERUSER, "copy")?;
    ensure!(copy.query_one(SAME, &[])?.get::<_, bool>(0));
    Ok(())
}

#[test]
fn values_are_kept_by_pg_upgrade() -> Result<()> {
    let db = Database::alone(Options::default())?;
    filled(&db)?;
    db.server().stop(Shutdown::Fast)?;
    let upgraded = Server::upgraded_from(db.server(), Options::default())?;
    let mut client = upgraded.connect_as(SUPERUSER, db.name())?;
    ensure!(client.query_one(SAME, &[])?.get::<_, bool>(0));
    let kept: i64 = client.query_one(MISSING, &[])?.get(0);
    assert_eq!(kept, columns().count() as i64);
    Ok(())
}
