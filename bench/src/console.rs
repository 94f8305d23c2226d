//! A session that shows what it does, as psql would.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::error::SqlState;
use postgres::{Client, Error};
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
        self.attempt(statement)
            .with_context(|| format!("\"{statement}\" failed"))
    }

    /// Runs a statement that may have to give way to the application: when its `lock_timeout` is up, everybody
    /// who queued behind it gets through before it tries again.
    pub fn run_patiently(&mut self, statement: &str) -> Result<()> {
        const ATTEMPTS: usize = 50;
        const PAUSE: Duration = Duration::from_millis(500);
        for _ in 0..ATTEMPTS {
            match self.attempt(statement) {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    println!("ERROR:  {}; trying again", message(&error));
                    std::thread::sleep(PAUSE);
                }
                result => {
                    return result.with_context(|| format!("\"{statement}\" failed"));
                }
            }
        }
        bail!("\"{statement}\" got no lock in {ATTEMPTS} attempts")
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

    fn attempt(&mut self, statement: &str) -> Result<(), Error> {
        println!("{}=# {statement};", self.database);
        let start = Instant::now();
        self.client.batch_execute(statement)?;
        println!(
            "Time: {}",
            report::milliseconds(start.elapsed().as_secs_f64() * 1000.0)
        );
        Ok(())
    }
}

fn message(error: &Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().into())
}
