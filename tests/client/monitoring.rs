//! The queries for postgres_exporter run, and give the metrics that the alerts are about.

use std::fs;

use anyhow::{Context, Result, ensure};
use client_tests::Database;

use crate::documentation::root;

/// A query of the file, and the columns that it names as labels and metrics.
struct Queried {
    name: String,
    query: String,
    columns: Vec<String>,
}

/// The file, as far as it is written here: names at the margin, a query as a block, one metric in a line.
fn queries() -> Result<Vec<Queried>> {
    let text = fs::read_to_string(root().join("monitoring/postgres_exporter.yaml"))?;
    let mut all: Vec<Queried> = vec![];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            all.push(Queried {
                name: name.into(),
                query: String::new(),
                columns: vec![],
            });
        } else if let Some(last) = all.last_mut() {
            if let Some(column) = line.strip_prefix("    - ") {
                let (column, _) = column.split_once(':').context("a metric without :")?;
                last.columns.push(column.into());
            } else if let Some(sql) = line.strip_prefix("    ") {
                last.query += sql;
                last.query.push('\n');
            }
        }
    }
    Ok(all)
}

#[test]
fn each_query_gives_the_columns_that_are_described() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t (c int); INSERT INTO t VALUES (NULL), (NULL)")?;
    db.call("CALL safe_backfill('t', 'c', 7)")?.succeeded()?;
    let mut client = db.connect()?;
    let queries = queries()?;
    assert_eq!(queries.len(), 2);
    for queried in &queries {
        let statement = client.prepare(&queried.query)?;
        let columns: Vec<_> = statement.columns().iter().map(|c| c.name()).collect();
        assert_eq!(columns, queried.columns, "{}", queried.name);
    }
    let rows = client.query(&queries[0].query, &[])?;
    ensure!(rows.len() == 1, "{} rows", rows.len());
    assert_eq!(rows[0].get::<_, &str>("state"), "completed");
    assert_eq!(rows[0].get::<_, &str>("table_name"), "t");
    assert_eq!(rows[0].get::<_, i64>("rows_filled"), 2);
    Ok(())
}

#[test]
fn the_alerts_are_about_metrics_that_there_are() -> Result<()> {
    let alerts = fs::read_to_string(root().join("monitoring/alerts.yaml"))?;
    let known: Vec<String> = queries()?
        .iter()
        .flat_map(|q| {
            q.columns
                .iter()
                .map(|column| format!("{}_{column}", q.name))
        })
        .collect();
    let expressions: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(expressions.len(), 4);
    for expression in expressions {
        let (metric, _) = expression.split_once('{').context("no labels")?;
        ensure!(known.iter().any(|name| name == metric), "{metric}");
    }
    Ok(())
}
