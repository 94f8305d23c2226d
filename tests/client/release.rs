//! What is released says the same everywhere: the version, and what PGXN asks for.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use client_tests::Database;
use serde_json::Value;

use crate::documentation::root;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

fn text<'a>(json: &'a Value, pointer: &str) -> Result<&'a str> {
    json.pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.trim().is_empty())
        .with_context(|| format!("META.json: {pointer}"))
}

#[test]
fn the_version_is_in_the_changelog_with_a_date() -> Result<()> {
    let changelog = read("CHANGELOG.md")?;
    let heading = changelog
        .lines()
        .find_map(|line| line.strip_prefix("## "))
        .context("no version")?;
    let (version, date) = heading.split_once(" - ").context("no date")?;
    assert_eq!(version, VERSION);
    let digits = date.split('-').map(str::len).collect::<Vec<_>>();
    assert_eq!(digits, [4, 2, 2], "{date}");
    assert!(date.chars().all(|c| c.is_ascii_digit() || c == '-'));
    Ok(())
}

/// From PostgreSQL 18 on, the server knows what it has loaded.
#[test]
fn the_library_tells_its_name_and_version() -> Result<()> {
    let db = Database::new()?;
    if db.value::<i32>("SELECT current_setting('server_version_num')::int")? < 180000 {
        return Ok(());
    }
    let mut client = db.connect()?;
    client.batch_execute("LOAD 'pg_safe_backfill'")?;
    let loaded = client.query_one(
        "SELECT version FROM pg_get_loaded_modules() WHERE module_name = 'pg_safe_backfill'",
        &[],
    )?;
    assert_eq!(loaded.get::<_, String>(0), VERSION);
    Ok(())
}

/// What the specification of META.json (version 1.0.0) requires, and that the files are there.
#[test]
fn pgxn_is_told_what_is_there() -> Result<()> {
    let meta: Value = serde_json::from_str(&read("META.json")?)?;
    for required in [
        "/name",
        "/abstract",
        "/maintainer",
        "/license",
        "/meta-spec/url",
    ] {
        text(&meta, required)?;
    }
    assert_eq!(text(&meta, "/meta-spec/version")?, "1.0.0");
    assert_eq!(text(&meta, "/version")?, VERSION);
    assert_eq!(
        text(&meta, "/maintainer")?,
        read("packages/maintainer")?.trim()
    );
    let extension = "/provides/pg_safe_backfill";
    assert_eq!(text(&meta, &format!("{extension}/version"))?, VERSION);
    for file in ["file", "docfile"] {
        let path = text(&meta, &format!("{extension}/{file}"))?;
        ensure!(root().join(path).is_file(), "{path}");
    }
    let script = text(&meta, &format!("{extension}/file"))?;
    let script = Path::new(script).file_name().and_then(|name| name.to_str());
    assert_eq!(
        script,
        Some(format!("pg_safe_backfill--{VERSION}.sql").as_str())
    );
    Ok(())
}
