//! ALTER EXTENSION UPDATE, with a job that is not finished and with objects of the user's own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use client_tests::Database;

use crate::documentation::root;

const ROWS: i64 = 1200;
/// A version that is newer than all others and made up by the test.
const NEXT: &str = "made.up.by.a.test";

/// The members of the extension.
const MEMBERS: &str = "
    SELECT string_agg(pg_describe_object(classid, objid, 0), E'\\n' ORDER BY pg_describe_object(classid, objid, 0))
    FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
    AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_safe_backfill')";

/// The versions whose installation scripts are committed: all that were released, and the present one.
fn versions() -> Result<Vec<String>> {
    let mut versions = vec![];
    for entry in fs::read_dir(root().join("sql"))? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let version = name
            .strip_prefix("pg_safe_backfill--")
            .and_then(|rest| rest.strip_suffix(".sql"));
        versions.extend(version.filter(|v| !v.contains("--")).map(str::to_owned));
    }
    Ok(versions)
}

/// An upgrade script beside those of the extension, for as long as this exists.
struct Script(PathBuf);

impl Script {
    fn put(from: &str, to: &str, sql: &str) -> Result<Self> {
        let output = Command::new(env::var("PG_CONFIG")?)
            .arg("--sharedir")
            .output()?;
        let share = String::from_utf8(output.stdout)?;
        let name = format!("pg_safe_backfill--{from}--{to}.sql");
        let path = Path::new(share.trim()).join("extension").join(name);
        fs::write(&path, sql).with_context(|| path.display().to_string())?;
        Ok(Script(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A job that was cancelled in the middle of table `t`, begun with `version`; and a view of the user's own on the jobs.
fn unfinished_job(version: &str) -> Result<(Database, i64)> {
    let db = Database::new()?;
    db.execute(&format!(
        "DROP EXTENSION pg_safe_backfill;
         CREATE EXTENSION pg_safe_backfill VERSION '{version}';
         CREATE TABLE t (id int, c int DEFAULT 0);
         INSERT INTO t SELECT i, NULL FROM generate_series(1, {ROWS}) i;
         CREATE VIEW my_jobs AS SELECT job_id, state, rows_filled FROM safe_backfill_progress"
    ))?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.002",
        "CALL safe_backfill('t', 'c', 7, 50)",
    )?;
    db.wait_until("SELECT count(c) >= 200 FROM t")?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    let job = db.value("SELECT job_id FROM my_jobs WHERE state = 'interrupted'")?;
    Ok((db, job))
}

/// The job is the same as before, and the same CALL finishes it.
fn is_finished_by_the_same_call(db: &Database, job: i64) -> Result<()> {
    let filled: i64 = db.value("SELECT count(c) FROM t")?;
    ensure!((200..ROWS).contains(&filled), "{filled} rows are filled");
    db.call("CALL safe_backfill('t', 'c', 7, 50)")?
        .succeeded()?;
    let ended = format!(
        "SELECT job_id = {job} AND state = 'completed' AND rows_filled = {ROWS} FROM my_jobs"
    );
    ensure!(db.value::<bool>(&ended)?, "{job}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM t WHERE c = 7")?, ROWS);
    Ok(())
}

#[test]
fn every_released_version_is_updated_to_the_present_one() -> Result<()> {
    let present = env!("CARGO_PKG_VERSION");
    let versions = versions()?;
    ensure!(
        versions.iter().any(|version| version == present),
        "{versions:?}"
    );
    let members: String = Database::new()?.value(MEMBERS)?;
    for version in versions {
        let (db, job) = unfinished_job(&version)?;
        db.execute("ALTER EXTENSION pg_safe_backfill UPDATE")?;
        let updated: String =
            db.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_safe_backfill'")?;
        assert_eq!(updated, present);
        assert_eq!(db.value::<String>(MEMBERS)?, members, "from {version}");
        is_finished_by_the_same_call(&db, job)?;
    }
    Ok(())
}

#[test]
fn a_later_version_takes_over_jobs_and_objects_of_the_user() -> Result<()> {
    let present = env!("CARGO_PKG_VERSION");
    let _script = Script::put(
        present,
        NEXT,
        "ALTER TABLE @extschema@.safe_backfill_job ADD COLUMN later pg_catalog.text;
         CREATE FUNCTION @extschema@.safe_backfill_later() RETURNS pg_catalog.int4
         LANGUAGE sql IMMUTABLE AS $$ SELECT 7 $$;",
    )?;
    let (db, job) = unfinished_job(present)?;
    let before: String = db.value(MEMBERS)?;
    db.execute(&format!(
        "ALTER EXTENSION pg_safe_backfill UPDATE TO '{NEXT}'"
    ))?;
    let after: String = db.value(MEMBERS)?;
    let new: Vec<_> = after
        .lines()
        .filter(|member| !before.lines().any(|old| old == *member))
        .collect();
    assert_eq!(new, ["function safe_backfill_later()"]);
    is_finished_by_the_same_call(&db, job)?;
    // It goes as a whole, with what the update has added.
    db.execute("DROP VIEW my_jobs; DROP EXTENSION pg_safe_backfill")?;
    assert_eq!(
        db.value::<i64>(r"SELECT count(*) FROM pg_class WHERE relname LIKE 'safe\_%'")?,
        0
    );
    Ok(())
}
