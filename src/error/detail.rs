//! What is known beyond an error's message.

use std::fmt;

use crate::error::Error;
use crate::messages::counted;

impl Error {
    /// What is known beyond the message, in full sentences.
    pub fn detail(&self) -> Option<String> {
        let detail = match self {
            Error::TransactionBlock { .. } => {
                "Each of its batches or steps is committed by itself."
            }
            Error::NotATable { kind, .. } => {
                return Some(format!("This operation is not supported for {kind}."));
            }
            Error::WouldRewrite { why, .. } => why,
            Error::HoldWhile { reason } => reason,
            Error::OfHelper(failure) => return failure.detail.clone(),
            Error::HelperLost => "All batches before this were committed.",
            Error::ColumnExists {
                existing, wanted, ..
            } => return Some(format!("It is of type {existing}, not {wanted}.")),
            Error::StillNull {
                rows,
                maybe_more,
                left,
                ..
            } => return Some(still_null(*rows, *maybe_more, left.as_deref())),
            Error::LockNotAvailable {
                attempts, holders, ..
            } => return Some(lock_not_available(*attempts, holders.as_deref())),
            Error::Permission { column, .. } => {
                return Some(format!(
                    "A backfill needs SELECT on the table and UPDATE on column \"{column}\", on every partition or child table too."
                ));
            }
            Error::AlreadyRunning { pid: Some(pid), .. } => {
                return Some(format!("It is the process with PID {pid}."));
            }
            Error::RowsLocked {
                holders, message, ..
            } => {
                let last_error = || format!("The last error was: {message}.  ");
                let cause = holders.as_ref().map_or_else(last_error, held_by);
                return Some(format!("{cause}All batches before this were committed."));
            }
            Error::StatementTrigger { .. } => {
                "A backfill updates each partition or child table by itself, which does not fire it."
            }
            Error::JobTablePublished { .. } => {
                "A subscriber without the extension could not apply its rows, and replication would stop."
            }
            Error::ColumnChanged { .. } | Error::ExtensionDropped | Error::TableDropped { .. } => {
                "All batches and steps before this were committed."
            }
            Error::NoLogin { .. } => {
                "Before PostgreSQL 17 a background worker needs a role that can."
            }
            Error::Cancelled { .. } => "All batches before this were committed.",
            Error::JobRunning { pid, .. } => {
                return Some(format!("It is the process with PID {pid}."));
            }
            Error::TreeKeepsChanging { .. } => "What was done is kept.",
            Error::PartitionKey { .. } => "Filling it would move rows between partitions.",
            _ => return None,
        };
        Some(detail.into())
    }
}

fn still_null(rows: u64, maybe_more: bool, left: Option<&str>) -> String {
    let least = if maybe_more { "at least " } else { "" };
    let left = left.map_or(String::new(), |why| {
        format!("  A constraint that is not valid is left, as this failed: {why}.")
    });
    format!(
        "The column is null in {least}{}.{left}",
        counted(rows, "row")
    )
}

fn lock_not_available(attempts: u32, holders: Option<&str>) -> String {
    let attempts = counted(attempts.into(), "attempt");
    let holders = holders.map_or(String::new(), held_by);
    format!(
        "{holders}It was given up after {attempts}.  This step has changed nothing; steps before it are kept."
    )
}

fn held_by(holders: impl fmt::Display) -> String {
    format!("Locks are held by {holders}.  ")
}
