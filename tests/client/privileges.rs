//! Whose rights count, who sees which job, and that nobody gains any.

use anyhow::{Result, ensure};
use client_tests::{Database, failure};

/// Roles belong to the whole server, so each test gives its own a name of its database.
struct Roles {
    owner: String,
    other: String,
}

fn roles(db: &Database) -> Result<Roles> {
    let roles = Roles {
        owner: format!("{}_owner", db.name()),
        other: format!("{}_other", db.name()),
    };
    db.execute(&format!(
        "CREATE ROLE \"{}\" LOGIN; CREATE ROLE {} LOGIN;
         GRANT CREATE ON SCHEMA public TO PUBLIC",
        roles.owner, roles.other
    ))?;
    Ok(roles)
}

fn table(db: &Database, roles: &Roles) -> Result<()> {
    let mut owner = db.connect_as(&roles.owner)?;
    Ok(owner.batch_execute(
        "CREATE TABLE t (id int, c int, d int);
         INSERT INTO t SELECT i FROM generate_series(1, 1000) i",
    )?)
}

#[test]
fn an_ordinary_role_can_fill_its_own_table() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    db.start_as(&roles.owner, "", "CALL safe_backfill('t', 'c', 1)")?
        .end()?
        .succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 1000);
    Ok(())
}

#[test]
fn a_role_may_have_any_name() -> Result<()> {
    let db = Database::new()?;
    let role = format!("{} Owner's", db.name());
    let roles = Roles {
        owner: role.clone(),
        other: String::new(),
    };
    db.execute(&format!(
        "CREATE ROLE \"{role}\" LOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC"
    ))?;
    table(&db, &roles)?;
    db.start_as(&role, "", "CALL safe_backfill('t', 'c', 1)")?
        .end()?
        .succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 1000);
    let stored = "SELECT rolname::text FROM safe_backfill_job j JOIN pg_roles r ON r.oid = j.role";
    assert_eq!(db.value::<String>(stored)?, role);
    Ok(())
}

#[test]
fn needs_select_on_the_table_and_update_on_the_column() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    let other = &roles.other;
    let mut client = db.connect_as(other)?;
    let mut denied = |grants: &str| -> Result<()> {
        db.execute(grants)?;
        for call in [
            "CALL safe_backfill('t', 'c', 1)",
            "CALL safe_backfill_using('t', 'c', 'id')",
        ] {
            let error = client.batch_execute(call).expect_err(grants);
            failure(error, "42501")?;
        }
        assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
        assert_eq!(
            db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
            0
        );
        Ok(())
    };
    denied("SELECT")?;
    denied(&format!("GRANT SELECT ON t TO {other}"))?;
    denied(&format!("GRANT UPDATE (d) ON t TO {other}"))?;
    denied(&format!(
        "REVOKE SELECT ON t FROM {other}; GRANT UPDATE ON t TO {other}"
    ))?;
    denied(&format!(
        "REVOKE UPDATE ON t FROM {other}; GRANT SELECT (id), UPDATE (c) ON t TO {other}"
    ))?;
    db.execute(&format!("GRANT SELECT ON t TO {other}"))?;
    client.batch_execute("CALL safe_backfill('t', 'c', 1)")?;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 1")?, 1000);
    Ok(())
}

#[test]
fn needs_the_same_on_every_partition() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    let other = &roles.other;
    db.execute(&format!(
        "CREATE TABLE p (id int, c int) PARTITION BY LIST (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         INSERT INTO p VALUES (1), (2);
         GRANT SELECT, UPDATE ON p, p1 TO {other}"
    ))?;
    let mut client = db.connect_as(other)?;
    let error = client
        .batch_execute("CALL safe_backfill('p', 'c', 1)")
        .expect_err("p2 is not permitted");
    let error = failure(error, "42501")?;
    ensure!(error.message.contains("\"p2\""), "{error}");
    assert_eq!(db.value::<i64>("SELECT count(c) FROM p")?, 0);
    db.execute(&format!("GRANT SELECT, UPDATE ON p2 TO {other}"))?;
    client.batch_execute("CALL safe_backfill('p', 'c', 1)")?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM p")?, 2);
    Ok(())
}

#[test]
fn row_level_security_hides_no_row_from_a_run() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    let (owner, other) = (&roles.owner, &roles.other);
    db.execute(&format!(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY half ON t USING (id % 2 = 0);
         GRANT ALL ON t TO {other}"
    ))?;
    let mut client = db.connect_as(other)?;
    let error = client
        .batch_execute("CALL safe_backfill('t', 'c', 1)")
        .expect_err("half would be hidden");
    failure(error, "42501")?;
    db.execute("ALTER TABLE t FORCE ROW LEVEL SECURITY")?;
    let ended = db
        .start_as(owner, "", "CALL safe_backfill('t', 'c', 1)")?
        .end()?;
    ensure!(ended.failed_with("42501")?.hint.is_some());
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 0);
    db.execute("ALTER TABLE t NO FORCE ROW LEVEL SECURITY")?;
    db.start_as(owner, "", "CALL safe_backfill('t', 'c', 1)")?
        .end()?
        .succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 1000);
    Ok(())
}

#[test]
fn row_level_security_that_begins_during_a_run_ends_it() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    let other = &roles.other;
    db.execute(&format!("GRANT ALL ON t TO {other}"))?;
    db.slow_down("t")?;
    let run = db.start_as(
        other,
        "SET test.pause = 0.002",
        "CALL safe_backfill('t', 'c', 1, 50)",
    )?;
    run.wait_for_rows("t", 50)?;
    db.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")?;
    run.end()?.failed_with("42501")?;
    ensure!(db.value::<bool>("SELECT state <> 'completed' FROM safe_backfill_job")?);
    Ok(())
}

#[test]
fn jobs_are_seen_by_those_who_may_read_the_table_and_written_by_nobody() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    let other = &roles.other;
    db.start_as(&roles.owner, "", "CALL safe_backfill('t', 'c', 1)")?
        .end()?
        .succeeded()?;
    let mut client = db.connect_as(other)?;
    let mut seen = || -> Result<(i64, i64, i64)> {
        let query = "SELECT (SELECT count(*) FROM safe_backfill_job), (SELECT count(*) FROM safe_backfill_part),
                            (SELECT count(*) FROM safe_backfill_progress)";
        let row = client.query_one(query, &[])?;
        Ok((row.get(0), row.get(1), row.get(2)))
    };
    assert_eq!(seen()?, (0, 0, 0));
    db.execute(&format!("GRANT pg_monitor TO {other}"))?;
    assert_eq!(seen()?, (1, 1, 1));
    db.execute(&format!("REVOKE pg_monitor FROM {other}"))?;
    assert_eq!(seen()?, (0, 0, 0));
    db.execute(&format!("GRANT SELECT ON t TO {other}"))?;
    assert_eq!(seen()?, (1, 1, 1));
    for role in [&roles.owner, other] {
        let mut client = db.connect_as(role)?;
        for statement in [
            "UPDATE safe_backfill_part SET next_block = 0",
            "DELETE FROM safe_backfill_part",
            "DELETE FROM safe_backfill_job",
            "UPDATE safe_backfill_job SET pid = 0",
            "TRUNCATE safe_backfill_job",
            "INSERT INTO safe_backfill_job SELECT * FROM safe_backfill_job",
            "SELECT FROM safe_backfill_job FOR UPDATE",
            "CREATE TRIGGER x AFTER INSERT ON safe_backfill_job EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "SELECT nextval('safe_backfill_job_id')",
        ] {
            failure(
                client.batch_execute(statement).expect_err(statement),
                "42501",
            )?;
        }
    }
    Ok(())
}

/// Everything that the extension's own statements use is offered in other versions, which would tell if they were
/// run, and by whom.
#[test]
fn a_hostile_search_path_changes_nothing() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    let mut setup = String::from(
        "CREATE SCHEMA evil;
         CREATE TABLE evil.seen (who name);
         GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.seen TO PUBLIC;
         CREATE FUNCTION evil.tell() RETURNS boolean LANGUAGE plpgsql VOLATILE AS
             $$ BEGIN INSERT INTO evil.seen VALUES (current_user); RETURN true; END $$;",
    );
    for types in [
        "oid, oid",
        "tid, tid",
        "int2, int2",
        "int8, int8",
        "name, name",
        "text, text",
        "name, text",
        "jsonb, jsonb",
    ] {
        let (left, right) = types.split_once(", ").expect("two types");
        for operator in ["=", "<>", "+"] {
            setup += &format!(
                "CREATE FUNCTION evil.op{}({types}) RETURNS boolean LANGUAGE sql AS 'SELECT evil.tell()';
                 CREATE OPERATOR evil.{operator} (LEFTARG = {left}, RIGHTARG = {right},
                                                 FUNCTION = evil.op{0});",
                ["=", "<>", "+"].iter().position(|o| *o == operator).expect("one of them")
            );
        }
    }
    for (function, result) in [
        ("count(anyelement)", "bigint"),
        ("has_table_privilege(oid, text)", "boolean"),
        ("clock_timestamp()", "timestamptz"),
        ("greatest(bigint, bigint)", "bigint"),
        ("pg_relation_size(oid)", "bigint"),
        ("unnest(oid[])", "oid"),
    ] {
        let function = function.replace("greatest", "\"greatest\"");
        setup += &format!(
            "CREATE FUNCTION evil.{function} RETURNS {result} LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM evil.tell(); RETURN NULL; END $$;"
        );
    }
    db.execute(&setup)?;
    let temporary = "
        SET search_path = evil, pg_catalog, public;
        CREATE TEMPORARY TABLE pg_class (oid oid, relname name, relkind \"char\");
        CREATE TEMPORARY VIEW pg_locks AS SELECT evil.tell();
        CREATE TEMPORARY VIEW pg_stat_activity AS SELECT evil.tell();
        CREATE TEMPORARY TABLE safe_backfill_job (job_id bigint);
        CREATE TEMPORARY TABLE pg_extension (extname name);
        CREATE DOMAIN pg_temp.regclass AS text CHECK (evil.tell());
        CREATE DOMAIN pg_temp.jsonb AS text CHECK (evil.tell());";
    let ended = db
        .start_as(
            &roles.owner,
            temporary,
            "CALL public.safe_backfill('public.t', 'c', '1')",
        )?
        .end()?;
    ended.succeeded()?;
    let call = "CALL public.safe_backfill_using('public.t', 'd', 'id')";
    db.start_as(&roles.owner, temporary, call)?
        .end()?
        .succeeded()?;
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c = 1 AND d = id")?,
        1000
    );
    assert_eq!(db.value::<i64>("SELECT count(*) FROM evil.seen")?, 0);
    assert_eq!(
        db.value::<i64>("SELECT sum(rows_filled)::bigint FROM public.safe_backfill_part")?,
        2000
    );
    Ok(())
}

#[test]
fn code_of_the_table_runs_with_the_callers_rights() -> Result<()> {
    let db = Database::new()?;
    let roles = roles(&db)?;
    table(&db, &roles)?;
    let mut owner = db.connect_as(&roles.owner)?;
    owner.batch_execute(
        "CREATE TABLE seen (who name, path text);
         CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen VALUES (current_user, current_setting('search_path')); RETURN NULL; END $$;
         CREATE TRIGGER tell AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell();
         CREATE FUNCTION told(int) RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen VALUES (current_user, current_setting('search_path')); RETURN $1; END $$;
         SET search_path = public, pg_temp;
         ALTER TABLE t ADD CHECK (told(c) > 0)",
    )?;
    owner.batch_execute("CALL safe_backfill_using('t', 'c', 'told(id)')")?;
    let seen = owner.query_one(
        "SELECT count(*), count(DISTINCT (who, path)), min(who)::text, min(path) FROM seen",
        &[],
    )?;
    ensure!(seen.get::<_, i64>(0) >= 3000);
    assert_eq!(seen.get::<_, i64>(1), 1);
    assert_eq!(
        (seen.get(2), seen.get(3)),
        (roles.owner.as_str(), "public, pg_temp")
    );
    Ok(())
}
