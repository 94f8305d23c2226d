//! `safe_set_not_null`: from wherever it was stopped, to the end.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Notice, Options, PATIENCE, failure, saying};

const CALL: &str = "CALL safe_set_not_null('t', 'c')";
/// Shows PostgreSQL's own messages on which tables it reads.
const DEBUG: &str = "SET client_min_messages = debug1";

fn table(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i",
    )
}

/// How often PostgreSQL has read a table to look for rows that violate a constraint.
fn scans(notices: &[Notice]) -> usize {
    saying(notices, "verifying table").len()
}

fn is_native(db: &Database) -> Result<bool> {
    db.value("SELECT current_setting('server_version_num')::int >= 180000")
}

/// The constraints of a table, and whether the column is NOT NULL.
fn state(db: &Database, table: &str) -> Result<String> {
    db.value(&format!(
        "SELECT concat_ws(' ', CASE WHEN attnotnull THEN 'not null' ELSE 'nullable' END,
             (SELECT string_agg(conname || CASE WHEN convalidated THEN '' ELSE ' (not valid)' END, ' ' ORDER BY conname)
              FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c'),
             (SELECT 'not valid' FROM pg_constraint
              WHERE conrelid = attrelid AND conkey = ARRAY[attnum] AND contype = 'n' AND NOT convalidated),
             (SELECT 'marked' FROM pg_description d JOIN pg_constraint o ON d.objoid = o.oid
              WHERE o.conrelid = attrelid LIMIT 1))
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'c'"
    ))
}

fn is_done(db: &Database) -> Result<()> {
    assert_eq!(state(db, "t")?, "not null");
    Ok(())
}

#[test]
fn reads_the_table_once_and_never_under_the_strong_lock() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let notices = db.call_after(DEBUG, CALL)?.succeeded()?;
    assert_eq!(scans(&notices), 1);
    if !is_native(&db)? {
        assert_eq!(saying(&notices, "are sufficient to prove").len(), 1);
    }
    is_done(&db)?;
    let again = db.call_after(DEBUG, CALL)?.succeeded()?;
    assert_eq!(scans(&again), 0);
    assert_eq!(saying(&again, "is already NOT NULL").len(), 1);

    // The counting is not idle: plain SET NOT NULL has to read.
    db.execute("ALTER TABLE t ALTER c DROP NOT NULL")?;
    let plain = db
        .call_after(DEBUG, "ALTER TABLE t ALTER c SET NOT NULL")?
        .succeeded()?;
    assert_eq!(scans(&plain), 1);
    Ok(())
}

#[test]
fn nulls_are_found_before_anything_is_touched() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("UPDATE t SET c = NULL WHERE id IN (7, 900)")?;
    let error = db.call(CALL)?.failed_with("23502")?;
    assert_eq!(
        error.detail.as_deref(),
        Some("The column is null in 2 rows.")
    );
    let hint = error.hint.unwrap_or_default();
    ensure!(
        hint.contains("CALL safe_backfill('public.t', 'c', ...)"),
        "{hint}"
    );
    assert_eq!(state(&db, "t")?, "nullable");

    db.execute("UPDATE t SET c = NULL")?;
    let error = db.call(CALL)?.failed_with("23502")?;
    let detail = error.detail.unwrap_or_default();
    ensure!(detail.contains("null in 1000 rows"), "{detail}");

    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    db.call(CALL)?.succeeded()?;
    is_done(&db)
}

#[test]
fn a_null_that_comes_between_the_look_and_the_constraint_is_found() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("SELECT FROM t", &[])?;
    let run = db.start_after("SET safe_backfill.lock_timeout = '50ms'", CALL)?;
    let notice = run.notices.wait(PATIENCE).context("no retry")?;
    ensure!(
        notice.message.contains("could not lock table \"t\""),
        "{notice}"
    );
    db.execute("INSERT INTO t VALUES (5000, NULL)")?;
    reading.commit()?;
    let error = run.end()?.failed_with("23502")?;
    assert_eq!(
        error.detail.as_deref(),
        Some("The column is null in 1 row.")
    );
    assert_eq!(state(&db, "t")?, "nullable");
    Ok(())
}

#[test]
fn a_check_of_the_users_is_used_and_kept() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("ALTER TABLE t ADD CONSTRAINT mine CHECK (c IS NOT NULL)")?;
    let notices = db.call_after(DEBUG, CALL)?.succeeded()?;
    assert_eq!(scans(&notices), 0);
    assert_eq!(state(&db, "t")?, "not null mine");
    Ok(())
}

#[test]
fn a_check_of_the_users_that_is_not_valid_is_kept() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("ALTER TABLE t ADD CONSTRAINT mine CHECK (c IS NOT NULL) NOT VALID")?;
    let notices = db.call_after(DEBUG, CALL)?.succeeded()?;
    assert_eq!(scans(&notices), 1);
    let state = state(&db, "t")?;
    ensure!(state.starts_with("not null mine"), "{state}");

    // One that does not say the same proves nothing, and is no obstacle.
    db.execute(
        "ALTER TABLE t ALTER c DROP NOT NULL, DROP CONSTRAINT mine,
         ADD CONSTRAINT other CHECK (c IS NOT NULL OR id > 0) NOT VALID",
    )?;
    db.call(CALL)?.succeeded()?;
    Ok(())
}

#[test]
fn a_constraint_of_the_users_that_does_not_hold_is_left() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("UPDATE t SET c = NULL WHERE id = 1")?;
    // Policies for the owner rule the quick look out, so that the validation is reached.
    db.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")?;
    let role = format!("{}_owner", db.name());
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE t OWNER TO {role}"
    ))?;
    let (add, kept) = if is_native(&db)? {
        ("mine NOT NULL c NOT VALID", "not null not valid")
    } else {
        (
            "mine CHECK (c IS NOT NULL) NOT VALID",
            "nullable mine (not valid)",
        )
    };
    db.execute(&format!("ALTER TABLE t ADD CONSTRAINT {add}"))?;
    db.start_as(&role, "", CALL)?.end()?.failed_with("23502")?;
    assert_eq!(state(&db, "t")?, kept);
    // Without it, what the CALL adds itself is taken back.
    db.execute("ALTER TABLE t DROP CONSTRAINT mine")?;
    db.start_as(&role, "", CALL)?.end()?.failed_with("23502")?;
    assert_eq!(state(&db, "t")?, "nullable");
    Ok(())
}

#[test]
fn domains_and_rows_of_nulls_are_not_null() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE DOMAIN word AS text CHECK (value <> '');
         CREATE TYPE pair AS (a int, b int);
         CREATE DOMAIN pairs AS pair;
         CREATE TABLE t (id int, c word, p pair, q pairs, \"Odd \"\"n\" int);
         INSERT INTO t SELECT i, 'x', ROW(NULL, NULL)::pair, ROW(1, NULL)::pair, 1 FROM generate_series(1, 100) i",
    )?;
    for column in ["c", "p", "q", "Odd \"n"] {
        let call = format!("CALL safe_set_not_null('t', '{column}')");
        let notices = db.call_after(DEBUG, &call)?.succeeded()?;
        assert_eq!(scans(&notices), 1, "{column}");
    }
    assert_eq!(
        db.value::<i64>(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND attnotnull"
        )?,
        4
    );
    Ok(())
}

/// Makes every session stop before its n-th DDL command, if it asks for that.
fn stop_at_commands(db: &Database) -> Result<()> {
    db.execute(
        "CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$
         DECLARE n int := coalesce(nullif(current_setting('test.count', true), '')::int, 0) + 1;
         BEGIN
             PERFORM set_config('test.count', n::text, false);
             IF n = nullif(current_setting('test.stop_at', true), '')::int THEN
                 PERFORM pg_sleep(coalesce(nullif(current_setting('test.stop_for', true), '')::int, 60));
             END IF;
         END $$;
         CREATE EVENT TRIGGER stop ON ddl_command_start EXECUTE FUNCTION stop()",
    )
}

fn wait_until_stopped(db: &Database, pid: i32) -> Result<()> {
    db.wait_until(&format!(
        "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {pid}"
    ))
}

#[test]
fn killed_between_any_two_steps_the_same_call_ends_it() -> Result<()> {
    let db = Database::alone(Options::default())?;
    stop_at_commands(&db)?;
    // The commands are: the constraint, its mark, the validation, and what comes after it.
    let commands = if is_native(&db)? { 4 } else { 5 };
    for command in 1..=commands {
        db.execute("DROP TABLE IF EXISTS t")?;
        table(&db)?;
        let run = db.start_after(&format!("SET test.stop_at = {command}"), CALL)?;
        wait_until_stopped(&db, run.pid)?;
        db.server().kill_backend(run.pid)?;
        run.end()?.failed()?;
        db.server().wait_until_ready()?;

        let notices = db.call_after(DEBUG, CALL)?.succeeded()?;
        is_done(&db).with_context(|| format!("killed before command {command}"))?;
        // From the command after the validation on, what it has found is not looked for again. On 18 the mark is
        // taken away in the transaction of the validation itself.
        let scanned = usize::from(command <= 3 || is_native(&db)?);
        assert_eq!(scans(&notices), scanned, "killed before command {command}");
    }
    // The counting has missed none: there is no further command to stop at.
    db.execute("DROP TABLE t")?;
    table(&db)?;
    db.call_after(&format!("SET test.stop_at = {}", commands + 1), CALL)?
        .succeeded()?;
    Ok(())
}

#[test]
fn cancelled_at_any_command_nothing_stands_in_the_way_of_the_next_call() -> Result<()> {
    let db = Database::new()?;
    stop_at_commands(&db)?;
    for command in 1..=if is_native(&db)? { 4 } else { 5 } {
        db.execute("DROP TABLE IF EXISTS t")?;
        table(&db)?;
        let run = db.start_after(&format!("SET test.stop_at = {command}"), CALL)?;
        wait_until_stopped(&db, run.pid)?;
        run.cancel()?;
        run.end()?.failed_with("57014")?;
        db.call(CALL)?.succeeded()?;
        is_done(&db)?;
    }
    Ok(())
}

#[test]
fn a_finished_scan_outlasts_exhausted_lock_timeouts() -> Result<()> {
    let db = Database::new()?;
    if is_native(&db)? {
        return Ok(()); // Nothing comes after the scan there.
    }
    table(&db)?;
    stop_at_commands(&db)?;
    let patience =
        "SET safe_backfill.lock_timeout = '50ms'; SET safe_backfill.lock_retry_limit = 1;";
    let run = db.start_after(
        &format!("{patience} SET test.stop_at = 3; SET test.stop_for = 1"),
        CALL,
    )?;
    wait_until_stopped(&db, run.pid)?;
    // While the validation is about to begin, somebody starts to read, and does not end.
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("SELECT FROM t", &[])?;
    run.end()?.failed_with("55P03")?;
    let state = state(&db, "t")?;
    ensure!(
        state.starts_with("nullable safe_set_not_null_2_c"),
        "{state}"
    );
    ensure!(!state.contains("not valid"), "{state}");
    reading.commit()?;
    let notices = db.call_after(DEBUG, CALL)?.succeeded()?;
    assert_eq!(scans(&notices), 0);
    is_done(&db)
}

#[test]
fn a_tree_is_done_table_by_table() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
         CREATE TABLE t21 PARTITION OF t2 FOR VALUES FROM (10) TO (20);
         INSERT INTO t SELECT i, i FROM generate_series(0, 19) i",
    )?;
    let notices = db.call_after(DEBUG, CALL)?.succeeded()?;
    assert_eq!(scans(&notices), 2);
    for table in ["t", "t1", "t2", "t21"] {
        assert_eq!(state(&db, table)?, "not null", "{table}");
    }
    // What has become NOT NULL with the tree can become nullable with it.
    db.execute("ALTER TABLE t ALTER c DROP NOT NULL")?;
    for table in ["t", "t1", "t2", "t21"] {
        assert_eq!(state(&db, table)?, "nullable", "{table}");
    }
    Ok(())
}

#[test]
fn a_null_in_one_partition_leaves_the_others_whole() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         INSERT INTO t SELECT i, nullif(i, 15) FROM generate_series(0, 19) i",
    )?;
    db.call(CALL)?.failed_with("23502")?;
    for table in ["t", "t1", "t2"] {
        assert_eq!(state(&db, table)?, "nullable", "{table}");
    }
    Ok(())
}

#[test]
fn children_keep_constraints_of_their_own() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int);
         CREATE TABLE done (x int) INHERITS (t);
         CREATE TABLE checked () INHERITS (t);
         CREATE TABLE plain () INHERITS (t);
         INSERT INTO t VALUES (1, 1); INSERT INTO done VALUES (2, 2, 2);
         INSERT INTO checked VALUES (3, 3); INSERT INTO plain VALUES (4, 4);
         ALTER TABLE done ALTER c SET NOT NULL;
         ALTER TABLE checked ADD CONSTRAINT own CHECK (c IS NOT NULL)",
    )?;
    db.call(CALL)?.succeeded()?;
    for (table, expected) in [
        ("t", "not null"),
        ("done", "not null"),
        ("checked", "not null own"),
        ("plain", "not null"),
    ] {
        assert_eq!(state(&db, table)?, expected, "{table}");
    }
    Ok(())
}

#[test]
fn a_partition_attached_meanwhile_is_done_too() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         INSERT INTO t SELECT i, i FROM generate_series(0, 9) i;
         CREATE TABLE late (id int, c int); INSERT INTO late VALUES (10, 1)",
    )?;
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("SELECT FROM ONLY t", &[])?;
    let run = db.start_after(
        &format!("{DEBUG}; SET safe_backfill.lock_timeout = '50ms'"),
        CALL,
    )?;
    // The partition is done, and the table itself cannot be locked.
    db.wait_until(&format!(
        "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    db.execute("ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (10) TO (20)")?;
    reading.commit()?;
    let notices = run.end()?.succeeded()?;
    for table in ["t", "t1", "late"] {
        assert_eq!(state(&db, table)?, "not null", "{table}");
    }
    assert_eq!(scans(&notices), 2);
    if !is_native(&db)? {
        assert_eq!(saying(&notices, "are sufficient to prove").len(), 2);
    }
    Ok(())
}

#[test]
fn bad_input_changes_nothing() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("CREATE VIEW v AS SELECT * FROM t; CREATE SEQUENCE s")?;
    for (arguments, code) in [
        ("'nosuch', 'c'", "42P01"),
        ("'v', 'c'", "42809"),
        ("'s', 'c'", "42809"),
        ("'t_pkey', 'id'", "42809"),
        ("'pg_class', 'relname'", "42809"),
        ("'t', 'nosuch'", "42703"),
        ("'t', 'ctid'", "0A000"),
        ("NULL, 'c'", "22004"),
        ("'t', NULL", "22004"),
    ] {
        db.call(&format!("CALL safe_set_not_null({arguments})"))?
            .failed_with(code)?;
    }
    let mut client = db.connect()?;
    let error = client
        .batch_execute(&format!("BEGIN; {CALL}"))
        .expect_err("within a transaction block");
    failure(error, "2D000")?;
    assert_eq!(state(&db, "t")?, "nullable");
    Ok(())
}

#[test]
fn a_second_call_and_a_backfill_keep_off() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    stop_at_commands(&db)?;
    let run = db.start_after("SET test.stop_at = 3; SET test.stop_for = 2", CALL)?;
    wait_until_stopped(&db, run.pid)?;
    for call in [CALL, "CALL safe_backfill('t', 'c', 1)"] {
        let error = db.call(call)?.failed_with("55006")?;
        let detail = error.detail.unwrap_or_default();
        ensure!(detail.contains(&run.pid.to_string()), "{detail}");
    }
    run.end()?.succeeded()?;
    is_done(&db)
}

/// An interrupted CALL must not leave the application with a constraint that its old rows violate.
#[test]
fn what_an_interrupted_call_left_is_taken_back_when_there_are_nulls() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    stop_at_commands(&db)?;
    // Stopped before the validation: the constraint and its mark are there.
    let run = db.start_after("SET test.stop_at = 3", CALL)?;
    wait_until_stopped(&db, run.pid)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    ensure!(state(&db, "t")? != "nullable");
    let native = is_native(&db)?;
    db.execute("ALTER EVENT TRIGGER stop DISABLE")?;
    if native {
        // No NULL can come in, so one that was there before is made up.
        db.execute(
            "CREATE TABLE old (id int, c int);
             INSERT INTO old VALUES (1, NULL);
             ALTER TABLE old ADD CONSTRAINT nn NOT NULL c NOT VALID;
             COMMENT ON CONSTRAINT nn ON old IS 'added by safe_set_not_null, which is not done yet'",
        )?;
    } else {
        db.execute(
            "CREATE TABLE old (id int, c int);
             INSERT INTO old VALUES (1, NULL);
             ALTER TABLE old ADD CONSTRAINT nn CHECK (c IS NOT NULL) NO INHERIT NOT VALID;
             COMMENT ON CONSTRAINT nn ON old IS 'added by safe_set_not_null, which is not done yet'",
        )?;
    }
    db.call("CALL safe_set_not_null('old', 'c')")?
        .failed_with("23502")?;
    assert_eq!(state(&db, "old")?, "nullable");
    db.execute("UPDATE old SET id = 2")?;
    db.call(CALL)?.succeeded()?;
    is_done(&db)
}

/// The CALL waits for its last step; what it was sure of is changed by others meanwhile.
fn changed_in_the_last_pause(change: &str) -> Result<(Database, client_tests::Ended)> {
    let db = Database::new()?;
    table(&db)?;
    db.execute("ALTER TABLE t ADD COLUMN d int")?;
    stop_at_commands(&db)?;
    let setup = format!(
        "{DEBUG}; SET safe_backfill.lock_timeout = '50ms'; SET test.stop_at = 3; SET test.stop_for = 1"
    );
    let run = db.start_after(&setup, CALL)?;
    wait_until_stopped(&db, run.pid)?;
    let mut application = db.connect()?;
    let mut reading = application.transaction()?;
    reading.execute("SELECT FROM t", &[])?;
    db.wait_until(&format!(
        "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = {}",
        run.pid
    ))?;
    reading.batch_execute(change)?;
    reading.commit()?;
    let ended = run.end()?;
    Ok((db, ended))
}

#[test]
fn a_proof_that_was_dropped_meanwhile_is_not_relied_on() -> Result<()> {
    let db = Database::new()?;
    if is_native(&db)? {
        return Ok(()); // The validation is the last step there.
    }
    let (db, ended) =
        changed_in_the_last_pause("ALTER TABLE t DROP CONSTRAINT safe_set_not_null_2_c")?;
    let notices = ended.succeeded()?;
    assert_eq!(scans(&notices), 2);
    assert_eq!(saying(&notices, "are sufficient to prove").len(), 1);
    is_done(&db)
}

#[test]
fn another_column_of_that_name_is_not_mistaken_for_the_one_that_was_proven() -> Result<()> {
    let db = Database::new()?;
    if is_native(&db)? {
        return Ok(()); // The validation is the last step there.
    }
    let (db, ended) =
        changed_in_the_last_pause("ALTER TABLE t RENAME c TO old; ALTER TABLE t RENAME d TO c")?;
    ended.failed_with("42703")?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 1 AND attnotnull")?,
        0
    );
    Ok(())
}

#[test]
fn calls_on_a_table_and_on_its_partition_keep_off_each_other() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         INSERT INTO t SELECT i, i FROM generate_series(0, 9) i",
    )?;
    stop_at_commands(&db)?;
    let partition = "CALL safe_set_not_null('t1', 'c')";
    let run = db.start_after("SET test.stop_at = 3; SET test.stop_for = 2", partition)?;
    wait_until_stopped(&db, run.pid)?;
    let setup = "SET safe_backfill.lock_timeout = '50ms'; SET safe_backfill.lock_retry_limit = 0";
    let error = db.call_after(setup, CALL)?.failed()?;
    let code = error.code().map(|code| code.code().to_owned());
    ensure!(
        matches!(code.as_deref(), Some("55006" | "55P03")),
        "{error:?}"
    );
    run.end()?.succeeded()?;
    db.call(CALL)?.succeeded()?;
    assert_eq!(state(&db, "t")?, "not null");
    Ok(())
}

/// Children come before their parents, however the OIDs are.
#[test]
fn children_of_children_are_done() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE g1 (id int, c text); CREATE TABLE g2 () INHERITS (g1); CREATE TABLE g3 () INHERITS (g2);
         CREATE TABLE d (id int, c text); CREATE TABLE d1 () INHERITS (d); CREATE TABLE d2 () INHERITS (d, d1);
         CREATE TABLE e3 (id int, c text); CREATE TABLE e2 (id int, c text); CREATE TABLE e1 (id int, c text);
         ALTER TABLE e3 INHERIT e2; ALTER TABLE e2 INHERIT e1; ALTER TABLE e3 INHERIT e1",
    )?;
    for (root, leaf) in [("g1", "g3"), ("d", "d2"), ("e1", "e3")] {
        db.execute(&format!("INSERT INTO {leaf} VALUES (1, 'x')"))?;
        db.call(&format!("CALL safe_set_not_null('{root}', 'c')"))?
            .succeeded()?;
    }
    assert_eq!(
        db.value::<i64>(
            "SELECT count(*) FROM pg_attribute
             WHERE attrelid::regclass::text ~ '^[gde]\\d?$' AND attname = 'c' AND NOT attnotnull"
        )?,
        0
    );
    assert_eq!(
        db.value::<i64>(
            "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text ~ '^[gde]\\d?$'"
        )?,
        0
    );
    Ok(())
}
