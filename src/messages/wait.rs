//! What a run waits for, and how that is said.

use std::fmt;
use std::time::Duration;

use crate::messages::amounts::{counted, seconds};
use crate::pg::usage;

/// Why a run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// This setting has it do so; without the extension's prefix.
    Setting(&'static str),
    /// Others have rows locked.
    RowLocks,
    /// Others have the table locked.
    TableLock,
    /// Another run works on a partition.
    Run,
    /// An ANALYZE of the table holds the xmin horizon back.
    Analyze,
    /// Somebody keeps dead row versions alive.
    Horizon,
    /// Synchronous standbys are to confirm a commit.
    Confirmation,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    what: String,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Wait {
    fn of(setting: &'static str, what: String) -> Self {
        let reason = Reason::Setting(setting);
        Wait { what, reason }
    }

    /// The time between two batches, as this setting wants it.
    pub fn between_batches(setting: &'static str, time: Duration) -> Self {
        Self::of(setting, format!("the next batch, for {}", seconds(time)))
    }

    /// A standby is behind by `bytes`, and for `age`.
    pub fn standby(name: &str, pid: i32, bytes: u64, age: Duration) -> Self {
        Self::of(
            "max_replica_lag",
            format!(
                "standby \"{name}\" (process {pid}), which has {} of WAL to replay and is {} behind",
                usage::size_pretty(bytes),
                seconds(age)
            ),
        )
    }

    /// Too much WAL is kept for a replication slot.
    pub fn slot(name: &str, active: bool, bytes: u64) -> Self {
        let nobody = if active {
            ""
        } else {
            " and which nobody reads"
        };
        Self::of(
            "max_slot_lag",
            format!(
                "replication slot \"{name}\", for which {} of WAL is kept{nobody}",
                usage::size_pretty(bytes)
            ),
        )
    }

    /// Too much WAL waits to be archived.
    pub fn archiver(bytes: u64, failing: bool) -> Self {
        let failing = if failing {
            " and whose last attempt has failed"
        } else {
            ""
        };
        Self::of(
            "max_archive_lag",
            format!(
                "the WAL archiver, which has {} to archive{failing}",
                usage::size_pretty(bytes)
            ),
        )
    }

    /// The directory `pg_wal` is too large.
    pub fn pg_wal(bytes: u64) -> Self {
        Self::of(
            "max_pg_wal_size",
            format!(
                "the directory pg_wal, which has {}",
                usage::size_pretty(bytes)
            ),
        )
    }

    /// Autovacuum works on the table.
    pub fn autovacuum(pid: i32) -> Self {
        Self::of(
            "hold_for_autovacuum",
            format!("autovacuum of the table by process {pid}"),
        )
    }

    /// The query of `hold_while` returns true.
    pub fn hold_while() -> Self {
        Self::of(
            "hold_while",
            "the query of \"safe_backfill.hold_while\"".into(),
        )
    }

    /// Another run, as this error tells.
    pub fn run(error: &str) -> Self {
        Wait {
            what: format!("another run to end: {error}"),
            reason: Reason::Run,
        }
    }

    /// An ANALYZE of the table, by this process.
    pub fn analyze(pid: i32) -> Self {
        Wait {
            what: format!("ANALYZE of the table by process {pid}"),
            reason: Reason::Analyze,
        }
    }

    /// Dead row versions cannot be removed yet.
    pub fn horizon(holder: Option<&str>) -> Self {
        Wait {
            what: format!("the xmin horizon{}", held_by(holder)),
            reason: Reason::Horizon,
        }
    }

    /// Others have so many rows locked.
    pub fn row_locks(table: &str, rows: usize, holders: Option<&str>) -> Self {
        let rows = counted(rows as u64, "row");
        Wait {
            what: format!("locks on {rows} of table \"{table}\"{}", held_by(holders)),
            reason: Reason::RowLocks,
        }
    }

    /// Others have a table locked.
    pub fn table_lock(table: &str, holders: Option<&str>) -> Self {
        Wait {
            what: format!("a lock on table \"{table}\"{}", held_by(holders)),
            reason: Reason::TableLock,
        }
    }

    /// A commit is to be confirmed.
    pub fn confirmation() -> Self {
        Wait {
            what: "synchronous standbys, which are to confirm a commit".into(),
            reason: Reason::Confirmation,
        }
    }
}

fn held_by(holders: Option<&str>) -> String {
    holders.map_or_else(String::new, |holders| format!(", held by {holders}"))
}
