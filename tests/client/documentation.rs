//! The documents say nothing that is not so: their links lead somewhere and their SQL runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options};

/// The folder of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All documents, with their text.
fn documents() -> Result<Vec<(PathBuf, String)>> {
    let mut documents = vec![];
    for folder in [".", "docs", "examples/django"] {
        for entry in fs::read_dir(root().join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path)?;
                documents.push((path, text));
            }
        }
    }
    Ok(documents)
}

/// What stands between `](` and `)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// What stands between fences, with the language of each.
pub fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').unwrap_or((block, "")))
}

/// The blocks that are fenced as SQL.
fn sql_blocks(text: &str) -> impl Iterator<Item = &str> {
    blocks(text).filter_map(|(language, block)| (language == "sql").then_some(block))
}

#[test]
fn no_block_of_code_is_empty() -> Result<()> {
    for (path, text) in documents()? {
        ensure!(
            text.matches("```").count() % 2 == 0,
            "{}: a block without end",
            path.display()
        );
        for (language, block) in blocks(&text) {
            ensure!(
                !block.trim().is_empty(),
                "{}: an empty block {language:?}",
                path.display()
            );
        }
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut followed = 0;
    for (path, text) in documents()? {
        let folder = path.parent().context("a document is in a folder")?;
        for link in links(&text).filter(|link| !link.contains("://")) {
            let file = link.split('#').next().unwrap_or_default();
            ensure!(
                file.is_empty() || folder.join(file).exists(),
                "{}: {link} leads nowhere",
                path.display()
            );
            followed += 1;
        }
    }
    ensure!(followed >= 5, "{followed} links only");
    Ok(())
}

#[test]
fn sql_runs_from_the_top_of_each_document_to_its_end() -> Result<()> {
    let mut documents_with_sql = 0;
    for (path, text) in documents()? {
        let session: String = sql_blocks(&text).map(watched_once).collect();
        if session.is_empty() {
            continue;
        }
        let db = Database::alone(Options::default())?;
        db.execute(
            "DROP EXTENSION pg_safe_backfill;
             CREATE TABLE large_user (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(100) NOT NULL);
             INSERT INTO large_user (name) SELECT 'user ' || i FROM generate_series(1, 5000) i",
        )?;
        let file = db.server().scratch_directory()?.join("session.sql");
        fs::write(&file, &session)?;
        let output = db
            .server()
            .psql(db.name())
            .args(["-v", "ON_ERROR_STOP=1", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "{}: {}\n{session}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        documents_with_sql += 1;
    }
    ensure!(
        documents_with_sql >= 2,
        "{documents_with_sql} documents only"
    );
    Ok(())
}

/// `\watch` goes on until somebody stops it.
fn watched_once(block: &str) -> String {
    block
        .lines()
        .map(|line| match line.split_once(" \\watch") {
            Some((query, _)) => format!("{query};\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

/// Every setting and every SQL object that a user can name stands in the reference.
#[test]
fn the_reference_is_complete() -> Result<()> {
    let db = Database::new()?;
    let reference = fs::read_to_string(root().join("docs/reference.md"))?;
    let mut client = db.connect()?;
    client.batch_execute("LOAD 'pg_safe_backfill'")?;
    let names = client.query(
        "SELECT name FROM pg_settings WHERE name LIKE 'safe\\_backfill.%'
         UNION SELECT proname FROM pg_proc WHERE proname LIKE 'safe\\_%'
         UNION SELECT attname FROM pg_attribute WHERE attrelid = 'safe_backfill_progress'::regclass AND attnum > 0",
        &[],
    )?;
    ensure!(names.len() > 20, "{} names only", names.len());
    for row in names {
        let name: String = row.get(0);
        ensure!(
            reference.contains(&format!("`{name}")),
            "docs/reference.md does not know {name}"
        );
    }
    Ok(())
}
