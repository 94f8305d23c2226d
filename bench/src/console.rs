//! A session that shows what it does, as psql would.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use testenv::{SUPERUSER, Server};

use crate::report;

/// A connection to a database that prints every statement, how long it took and what the server says meanwhile.
pub struct Console<'a> {
    server: &'a Server,
    database: String,
    client: Client,
}

impl<'a> Console<'a> {
    /// Connects to a database.
    pub fn open(server: &'a Server, database: &str) -> Result<Self> {
        let client =
            server.connect_listening(SUPERUSER, database, |notice| println!("{notice}"))?;
        Ok(Self {
            server,
            database: database.into(),
            client,
        })
    }

    /// Runs a statement.
    pub fn run(&mut self, statement: &str) -> Result<()> {
        println!("{}=# {statement};", self.database);
        let start = Instant::now();
        self.client
            .batch_execute(statement)
            .with_context(|| format!("\"{statement}\" failed"))?;
        println!(
            "Time: {}",
            report::milliseconds(start.elapsed().as_secs_f64() * 1000.0)
        );
        Ok(())
    }

    /// Shows the result of a query or of a psql command.
    pub fn show(&self, query: &str) -> Result<()> {
        let end = if query.starts_with('\\') { "" } else { ";" };
        println!("{}=# {query}{end}", self.database);
        let status = self
            .server
            .psql(&self.database)
            .args(["-c", query])
            .stdin(Stdio::null())
            .status()
            .context("could not run psql")?;
        ensure!(status.success(), "\"{query}\" failed");
        Ok(())
    }

    /// Ends the session.
    pub fn close(self) -> Result<()> {
        self.client.close()?;
        Ok(())
    }
}
