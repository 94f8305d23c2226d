//! Statement-level triggers: those above the tables that are filled would be passed over, so the CALL is refused.

use anyhow::{Result, ensure};
use client_tests::Database;

const CALL: &str = "CALL safe_backfill('t', 'c', 7, 10)";

/// A partitioned table with a partition, and one that is partitioned itself; and a function that logs.
fn partitioned(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE log (level text);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (TG_LEVEL);
             RETURN NEW;
         END $$;
         CREATE TABLE t (id int, c int, d int) PARTITION BY RANGE (id);
         CREATE TABLE one PARTITION OF t FOR VALUES FROM (1) TO (101);
         CREATE TABLE two PARTITION OF t FOR VALUES FROM (101) TO (201) PARTITION BY RANGE (id);
         CREATE TABLE three PARTITION OF two FOR VALUES FROM (101) TO (201);
         INSERT INTO t SELECT i FROM generate_series(1, 200) i",
    )
}

fn nulls(db: &Database) -> Result<i64> {
    db.value("SELECT count(*) FROM t WHERE c IS NULL")
}

/// The CALL on `t` is refused for trigger "stop" of `table`, having done nothing.
fn refused(db: &Database, table: &str) -> Result<()> {
    let rows = nulls(db)?;
    let error = db.call(CALL)?.failed_with("0A000")?;
    ensure!(
        error.message.contains("\"stop\"") && error.message.contains(&format!("\"{table}\"")),
        "{error}"
    );
    ensure!(error.detail.is_some() && error.hint.is_some(), "{error}");
    ensure!(
        error.to_string().to_lowercase().contains("disable"),
        "{error}"
    );
    assert_eq!(nulls(db)?, rows);
    for table in ["log", "safe_backfill_job"] {
        let count: i64 = db.value(&format!("SELECT count(*) FROM {table}"))?;
        assert_eq!(count, 0, "rows of {table}");
    }
    Ok(())
}

fn accepted(db: &Database, call: &str) -> Result<()> {
    db.call(call)?.succeeded()?;
    Ok(())
}

/// Makes a trigger "stop" that the CALL is refused for, and shows that it is accepted once the trigger is disabled.
fn refused_until_disabled(trigger: &str, table: &str) -> Result<()> {
    let db = Database::new()?;
    partitioned(&db)?;
    db.execute(trigger)?;
    refused(&db, table)?;
    db.execute(&format!("ALTER TABLE {table} DISABLE TRIGGER stop"))?;
    accepted(&db, CALL)?;
    assert_eq!(nulls(&db)?, 0);
    Ok(())
}

#[test]
fn a_trigger_of_the_partitioned_table_is_not_passed_over() -> Result<()> {
    for when in ["AFTER UPDATE", "BEFORE UPDATE", "AFTER UPDATE OF id, c"] {
        refused_until_disabled(
            &format!("CREATE TRIGGER stop {when} ON t EXECUTE FUNCTION log()"),
            "t",
        )?;
    }
    Ok(())
}

#[test]
fn a_trigger_that_wants_the_changed_rows_is_not_passed_over() -> Result<()> {
    refused_until_disabled(
        "CREATE TRIGGER stop AFTER UPDATE ON t REFERENCING NEW TABLE AS changed
         FOR EACH STATEMENT EXECUTE FUNCTION log()",
        "t",
    )
}

/// An UPDATE of `t` does not fire the triggers of `two`, but one of `two` would; the run sends neither.
#[test]
fn a_trigger_of_a_partitioned_partition_is_not_passed_over_by_a_call_for_it() -> Result<()> {
    let db = Database::new()?;
    partitioned(&db)?;
    db.execute("CREATE TRIGGER stop AFTER UPDATE ON two EXECUTE FUNCTION log()")?;
    let error = db
        .call("CALL safe_backfill('two', 'c', 7)")?
        .failed_with("0A000")?;
    ensure!(
        error.message.contains("\"stop\"") && error.message.contains("\"two\""),
        "{error}"
    );
    assert_eq!(nulls(&db)?, 200);
    accepted(&db, "CALL safe_backfill('three', 'c', 7)")?;
    assert_eq!(nulls(&db)?, 100);
    Ok(())
}

#[test]
fn a_trigger_that_fires_always_is_not_passed_over() -> Result<()> {
    refused_until_disabled(
        "CREATE TRIGGER stop AFTER UPDATE ON t EXECUTE FUNCTION log();
         ALTER TABLE t ENABLE ALWAYS TRIGGER stop",
        "t",
    )
}

#[test]
fn an_expression_is_refused_as_a_value_is() -> Result<()> {
    let db = Database::new()?;
    partitioned(&db)?;
    db.execute("CREATE TRIGGER stop AFTER UPDATE ON t EXECUTE FUNCTION log()")?;
    let error = db
        .call("CALL safe_backfill_using('t', 'c', 'id')")?
        .failed_with("0A000")?;
    ensure!(error.message.contains("\"stop\""), "{error}");
    assert_eq!(nulls(&db)?, 200);
    Ok(())
}

#[test]
fn a_trigger_of_an_inheritance_parent_is_not_passed_over() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE log (level text);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (TG_LEVEL);
             RETURN NEW;
         END $$;
         CREATE TABLE t (id int, c int);
         CREATE TABLE child () INHERITS (t);
         INSERT INTO child SELECT i FROM generate_series(1, 50) i;
         CREATE TRIGGER stop AFTER UPDATE ON t EXECUTE FUNCTION log()",
    )?;
    refused(&db, "t")?;
    accepted(&db, "CALL safe_backfill('child', 'c', 7)")?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, 0);
    Ok(())
}

#[test]
fn triggers_that_would_not_fire_are_no_reason_to_refuse() -> Result<()> {
    let db = Database::new()?;
    partitioned(&db)?;
    db.execute(
        "CREATE TRIGGER a AFTER UPDATE OF d ON t EXECUTE FUNCTION log();
         CREATE TRIGGER b AFTER INSERT OR DELETE OR TRUNCATE ON t EXECUTE FUNCTION log();
         CREATE TRIGGER c AFTER UPDATE ON t EXECUTE FUNCTION log();
         ALTER TABLE t ENABLE REPLICA TRIGGER c;
         CREATE TRIGGER d AFTER UPDATE ON t EXECUTE FUNCTION log();
         ALTER TABLE t DISABLE TRIGGER d",
    )?;
    accepted(&db, CALL)?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, 0);
    Ok(())
}

#[test]
fn row_level_triggers_of_the_partitioned_table_fire() -> Result<()> {
    let db = Database::new()?;
    partitioned(&db)?;
    db.execute("CREATE TRIGGER a AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log()")?;
    accepted(&db, CALL)?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM log WHERE level = 'ROW'")?,
        200
    );
    Ok(())
}

#[test]
fn a_call_for_a_partition_is_accepted_and_fires_the_triggers_of_the_partition() -> Result<()> {
    let db = Database::new()?;
    partitioned(&db)?;
    db.execute(
        "CREATE TRIGGER stop AFTER UPDATE ON t EXECUTE FUNCTION log();
         CREATE TABLE fired (name text);
         CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO fired VALUES (TG_NAME);
             RETURN NULL;
         END $$;
         CREATE TRIGGER own AFTER UPDATE ON one EXECUTE FUNCTION fired()",
    )?;
    refused(&db, "t")?;
    accepted(&db, "CALL safe_backfill('one', 'c', 7, 10)")?;
    accepted(&db, "CALL safe_backfill('three', 'c', 7, 10)")?;
    assert_eq!(nulls(&db)?, 0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM log")?, 0);
    ensure!(db.value::<i64>("SELECT count(*) FROM fired")? >= 10);
    Ok(())
}

#[test]
fn triggers_of_a_plain_table_fire_as_before() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE log (level text);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (TG_LEVEL);
             RETURN NEW;
         END $$;
         CREATE TABLE t (id int, c int);
         INSERT INTO t SELECT i FROM generate_series(1, 50) i;
         CREATE TRIGGER stop AFTER UPDATE ON t EXECUTE FUNCTION log()",
    )?;
    accepted(&db, CALL)?;
    assert_eq!(nulls(&db)?, 0);
    ensure!(db.value::<i64>("SELECT count(*) FROM log WHERE level = 'STATEMENT'")? >= 5);
    Ok(())
}
