//! A streaming standby beside the runs, with and without feedback.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use testenv::{Options, Server};

/// What a standby tells the primary of the rows that it may read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feedback {
    /// Nothing: `hot_standby_feedback` is off
    Off,
    /// `hot_standby_feedback` is on
    On,
}

impl Feedback {
    /// The name in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Feedback::Off => "standby without feedback",
            Feedback::On => "standby with feedback",
        }
    }
}

/// Makes a standby that sends feedback every `interval`, if it is to send any.
///
/// # Errors
/// If it cannot be made.
pub fn start(primary: &Server, interval: &str) -> Result<Server> {
    let options = Options::default().set("wal_receiver_status_interval", interval);
    let standby = Server::standby_of(primary, options)?;
    standby.catch_up_with(primary)?;
    Ok(standby)
}

/// Turns feedback on or off, and waits until the primary knows.
///
/// # Errors
/// If the primary does not learn of it.
pub fn set_feedback(standby: &Server, primary: &Server, feedback: Feedback) -> Result<()> {
    let (value, known) = match feedback {
        Feedback::Off => ("off", "IS NULL"),
        Feedback::On => ("on", "IS NOT NULL"),
    };
    let mut client = standby.connect()?;
    client.batch_execute(&format!("ALTER SYSTEM SET hot_standby_feedback = {value}"))?;
    client.batch_execute("SELECT pg_reload_conf()")?;
    let query = format!("SELECT bool_and(backend_xmin {known}) FROM pg_stat_replication");
    let mut client = primary.connect()?;
    testenv::wait_for("the standby to send its feedback", || {
        let known: Option<bool> = client.query_one(&query, &[])?.get(0);
        Ok(known == Some(true))
    })
    .context("is the standby connected?")?;
    standby.catch_up_with(primary)
}
