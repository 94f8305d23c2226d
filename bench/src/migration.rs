//! The migration of a table to a new column that is NOT NULL, in three steps.

use anyhow::Result;

use crate::console::Console;
use crate::table::{COLUMN, VALUE, add_column};

/// A way to migrate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// One statement per step, as one would write it.
    Risky,
    /// No step makes the application wait.
    Safe,
}

impl Migration {
    /// The name in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Risky => "risky",
            Self::Safe => "safe",
        }
    }

    /// Prepares the session and the database.
    pub fn prepare(self, console: &mut Console) -> Result<()> {
        match self {
            Self::Risky => Ok(()),
            Self::Safe => {
                console.run("CREATE EXTENSION pg_safe_backfill")?;
                console.run("SET lock_timeout = '1s'")?;
                console.run("SET safe_backfill.progress_interval = '1s'")
            }
        }
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
            Self::Safe => console.run_patiently(&add_column(table)),
        }
    }

    fn fill(self, console: &mut Console, table: &str) -> Result<()> {
        match self {
            Self::Risky => console.run(&format!(
                "UPDATE {table} SET {COLUMN} = '{VALUE}' WHERE {COLUMN} IS NULL"
            )),
            Self::Safe => console.run(&format!(
                "CALL safe_backfill('{table}', '{COLUMN}', '{VALUE}', 10000)"
            )),
        }
    }

    fn set_not_null(self, console: &mut Console, table: &str) -> Result<()> {
        let set_not_null = format!("ALTER TABLE {table} ALTER COLUMN {COLUMN} SET NOT NULL");
        match self {
            Self::Risky => console.run(&set_not_null),
            Self::Safe => {
                // Only the validation reads the table, and it does so under a lock that lets writes through.
                let check = format!("{table}_{COLUMN}_not_null");
                console.run_patiently(&format!(
                    "ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({COLUMN} IS NOT NULL) NOT VALID"
                ))?;
                console
                    .run_patiently(&format!("ALTER TABLE {table} VALIDATE CONSTRAINT {check}"))?;
                console.run_patiently(&set_not_null)?;
                console.run_patiently(&format!("ALTER TABLE {table} DROP CONSTRAINT {check}"))
            }
        }
    }
}
