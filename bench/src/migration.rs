//! The migration of a table to a new column that is NOT NULL, in three steps.

use anyhow::Result;

use crate::console::Console;
use crate::table::{COLUMN, COLUMN_TYPE, VALUE, add_column};

/// So many rows, or fewer, are filled before progress is reported twice by default.
const SHOWN_OFTEN: u64 = 1_000_000;

/// A way to migrate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// One statement per step, as one would write it.
    Risky,
    /// No step makes the application wait.
    Safe,
    /// Likewise, and rows that lack the column are not written.
    Instant,
}

impl Migration {
    /// The name in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Risky => "risky",
            Self::Safe => "safe",
            Self::Instant => "instant",
        }
    }

    /// The name in tables and pictures.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Risky => "risky way",
            Self::Safe => "safe way",
            Self::Instant => "instant way",
        }
    }

    /// Prepares the session and the database for a table of so many rows.
    pub fn prepare(self, console: &mut Console, rows: u64) -> Result<()> {
        if self == Self::Risky {
            return Ok(());
        }
        console.run("CREATE EXTENSION pg_safe_backfill")?;
        if rows <= SHOWN_OFTEN {
            console.run("SET safe_backfill.progress_interval = '1s'")?;
        }
        Ok(())
    }

    /// Migrates a table.
    pub fn run(self, console: &mut Console, table: &str) -> Result<()> {
        self.add_column(console, table)?;
        self.fill(console, table)?;
        self.set_not_null(console, table)
    }

    fn add_column(self, console: &mut Console, table: &str) -> Result<()> {
        match self {
            Self::Risky => console.run(&add_column(table)),
            Self::Safe | Self::Instant => {
                console.run(&format!(
                    "CALL safe_add_column('{table}', '{COLUMN}', '{COLUMN_TYPE}')"
                ))?;
                console.run("SET lock_timeout = '1s'")?;
                // For new rows only: the rows that are there are what this is about.
                console.run(&format!(
                    "ALTER TABLE {table} ALTER COLUMN {COLUMN} SET DEFAULT '{VALUE}'"
                ))
            }
        }
    }

    fn fill(self, console: &mut Console, table: &str) -> Result<()> {
        console.run(&match self {
            Self::Risky => {
                format!("UPDATE {table} SET {COLUMN} = '{VALUE}' WHERE {COLUMN} IS NULL")
            }
            Self::Safe => format!("CALL safe_backfill('{table}', '{COLUMN}', '{VALUE}', 10000)"),
            Self::Instant => {
                format!("CALL safe_backfill('{table}', '{COLUMN}', '{VALUE}', method => 'instant')")
            }
        })
    }

    fn set_not_null(self, console: &mut Console, table: &str) -> Result<()> {
        console.run(&match self {
            Self::Risky => format!("ALTER TABLE {table} ALTER COLUMN {COLUMN} SET NOT NULL"),
            Self::Safe | Self::Instant => format!("CALL safe_set_not_null('{table}', '{COLUMN}')"),
        })
    }
}
