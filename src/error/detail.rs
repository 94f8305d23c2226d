//! What is known beyond an error's message.

use std::fmt;

use crate::error::Error;
use crate::messages::counted;

impl Error {
    /// What is known beyond the message, in full sentences.
    pub fn detail(&self) -> Option<String> {
        self.detail_of_its_own()
            .or_else(|| self.detail_of_its_kind().map(Into::into))
    }

    /// A DETAIL that depends on what the error holds.
    fn detail_of_its_own(&self) -> Option<String> {
        match self {
            Error::NotATable { kind, .. } => {
                Some(format!("This operation is not supported for {kind}."))
            }
            Error::WouldRewrite { why, .. } => Some(why.to_string()),
            Error::Instant { why, .. } => Some(why.to_string()),
            Error::HoldWhile { reason } => Some(reason.clone()),
            Error::OfHelper(failure) => failure.detail.clone(),
            Error::ColumnExists {
                existing, wanted, ..
            } => Some(format!("It is of type {existing}, not {wanted}.")),
            Error::StillNull {
                rows,
                maybe_more,
                left,
                ..
            } => Some(still_null(*rows, *maybe_more, left.as_deref())),
            Error::LockNotAvailable {
                attempts, holders, ..
            } => Some(lock_not_available(*attempts, holders.as_deref())),
            Error::Permission { column, .. } => Some(format!(
                "A backfill needs SELECT on the table and UPDATE on column \"{column}\", on every partition or child table too."
            )),
            Error::AlreadyRunning {
                pid: Some(pid),
                job: Some(running),
                ..
            } => Some(format!(
                "It is the process with PID {pid}, which {} job {}.",
                if running.is_paused {
                    "has paused"
                } else {
                    "works on"
                },
                running.job
            )),
            Error::AlreadyRunning { pid: Some(pid), .. } | Error::JobRunning { pid, .. } => {
                Some(format!("It is the process with PID {pid}."))
            }
            Error::RowsLocked {
                holders, message, ..
            } => {
                let last_error = || format!("The last error was: {message}.  ");
                let cause = holders.as_ref().map_or_else(last_error, held_by);
                Some(format!("{cause}All batches before this were committed."))
            }
            _ => None,
        }
    }

    /// A DETAIL that all errors of a kind have.
    fn detail_of_its_kind(&self) -> Option<&'static str> {
        Some(match self {
            Error::TransactionBlock { .. } => {
                "Each of its batches or steps is committed by itself."
            }
            Error::NullArgument { argument } if *argument != "value" => {
                "Only filter and default_value can be null."
            }
            Error::SystemCatalog { .. }
            | Error::SystemColumn { .. }
            | Error::ComputedColumn { .. } => "PostgreSQL fills it by itself.",
            Error::OtherSessionsTable { .. } | Error::TemporaryTable { .. } => {
                "Only the session that created it can use it."
            }
            Error::AccessMethod { .. } => {
                "Only tables of access method \"heap\" can be backfilled."
            }
            Error::StatementTrigger { .. } => {
                "A backfill updates each partition or child table by itself, which does not fire it."
            }
            Error::PartitionKey { .. } => "Filling it would move rows between partitions.",
            Error::JobTablePublished { .. } => {
                "A subscriber without the extension could not apply its rows, and replication would stop."
            }
            Error::NotKept { .. } => "Its type does not read its text as the same value.",
            Error::JobPermission { .. } => {
                "Only the role that started it, the owner of the table and superusers can control it."
            }
            Error::NoLogin { .. } => {
                "Before PostgreSQL 17, background workers run only as roles that can log in."
            }
            Error::ColumnChanged { .. } | Error::ExtensionDropped | Error::TableDropped { .. } => {
                "All batches and steps before this were committed."
            }
            Error::HelperLost => {
                "It was terminated, or could not be started.  All batches before this were committed."
            }
            Error::Cancelled { .. } => "All batches before this were committed.",
            Error::TreeKeepsChanging { .. } => "All steps before this were committed.",
            _ => return None,
        })
    }
}

fn still_null(rows: u64, maybe_more: bool, left: Option<&str>) -> String {
    let least = if maybe_more { "at least " } else { "" };
    let left = left.map_or(String::new(), |why| {
        format!("  A NOT VALID constraint was left behind: {why}.")
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
        "{holders}The lock was not available in {attempts}.  This step has changed nothing; all steps before it were committed."
    )
}

fn held_by(holders: impl fmt::Display) -> String {
    format!("Locks are held by {holders}.  ")
}
