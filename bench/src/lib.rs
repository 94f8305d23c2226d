//! Ways to fill a column, measured side by side on identical copies of a table.
//!
//! The program `bench` compares strategies; the program `demo` shows a risky and a safe migration under live
//! traffic. Both bring their own PostgreSQL server and remove it afterwards.

pub mod chart;
pub mod console;
pub mod contents;
pub mod copy;
pub mod figures;
pub mod latency;
pub mod memory;
pub mod migration;
pub mod report;
pub mod shape;
pub mod snapshots;
pub mod standby;
pub mod strategy;
pub mod table;
pub mod traffic;

/// Fails unless the extension can be created on the server.
pub fn ensure_extension(server: &testenv::Server) -> anyhow::Result<()> {
    let query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_safe_backfill'";
    let available: i64 = server.connect()?.query_one(query, &[])?.get(0);
    anyhow::ensure!(
        available == 1,
        "the extension pg_safe_backfill is not installed in this PostgreSQL"
    );
    Ok(())
}
