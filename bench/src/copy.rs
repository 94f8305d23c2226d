//! Identical copies of a loaded database.

use anyhow::{Context, Result};
use postgres::Client;
use testenv::{SUPERUSER, Server};

const TEMPLATE: &str = "loaded";

/// Loads the template that every copy is made of and returns what the loader does.
pub fn load<T>(server: &Server, loader: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
    remove(server, TEMPLATE)?;
    server.create_database(TEMPLATE)?;
    let mut client = server.connect_as(SUPERUSER, TEMPLATE)?;
    let loaded = loader(&mut client).context("could not load the tables")?;
    client.close()?;
    // Autovacuum must not change the template between two copies.
    server.connect()?.batch_execute(&format!(
        "ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false"
    ))?;
    Ok(loaded)
}

/// Makes a fresh copy, physically identical to the template, in place of an earlier one.
pub fn make(server: &Server, name: &str) -> Result<()> {
    remove(server, name)?;
    let mut client = server.connect()?;
    client.batch_execute(&format!(
        "CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy"
    ))?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// Removes a copy.
pub fn remove(server: &Server, name: &str) -> Result<()> {
    server
        .connect()?
        .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
    Ok(())
}
