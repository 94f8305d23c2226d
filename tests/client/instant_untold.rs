//! Who would not be told of a change of the catalogs alone, and what else keeps a CALL from making it.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, failure};
use postgres::Client;

use crate::instant_refused::{CALL, ROWS, force, is_unchanged, prepared, refusal, refused, table};

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
         CREATE TABLE audit (id int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO audit VALUES (1); RETURN NEW; END $$;
         CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()",
    )?;
    refused(&db, "Trigger \"note\"")?;
    force(&db)?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, 1);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM audit")?, 0);
    Ok(())
}

/// A change of the catalogs sends nothing through slot `s`, while an UPDATE sends so many rows.
fn only_an_update_is_sent(db: &Database, client: &mut Client, rows: i64) -> Result<()> {
    // Messages of pgoutput that begin with U are updates.
    const UPDATES: &str = "
        SELECT count(*) FROM pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')
        WHERE get_byte(data, 0) = ascii('U')";
    force(db)?;
    assert_eq!(client.query_one(UPDATES, &[])?.get::<_, i64>(0), 0);
    client.batch_execute("UPDATE t SET c = 8")?;
    assert_eq!(client.query_one(UPDATES, &[])?.get::<_, i64>(0), rows);
    Ok(())
}

#[test]
fn a_subscriber_would_not_get_the_value() -> Result<()> {
    let db = Database::alone(Options::default().set("wal_level", "logical"))?;
    let mut client = db.connect()?;
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
    only_an_update_is_sent(&db, &mut client, ROWS)?;

    // A slot without a publication may belong to any consumer.
    client.batch_execute("DROP TABLE t; DROP PUBLICATION p")?;
    table(&db)?;
    refused(&db, "Logical replication slot \"s\"")?;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES")?;
    client.batch_execute("SELECT pg_replication_slot_advance('s', pg_current_wal_insert_lsn())")?;
    only_an_update_is_sent(&db, &mut client, ROWS)?;
    client.batch_execute("DROP TABLE t; DROP PUBLICATION p")?;
    table(&db)?;
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
    client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")?;
    only_an_update_is_sent(&db, &mut client, 1)?;
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
