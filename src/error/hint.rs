//! What to do about an error.

use crate::error::{Error, Running};
use crate::pg::spi::{quote, quote_literal};

impl Error {
    /// What to do about it, in full sentences.
    pub fn hint(&self) -> Option<String> {
        self.about_the_call()
            .or_else(|| self.about_the_table())
            .or_else(|| self.about_the_run())
    }

    fn about_the_call(&self) -> Option<String> {
        let hint = match self {
            Error::TransactionBlock { .. } => {
                "Call it as a statement of its own: not after BEGIN, not in a function, not in a migration that the tool wraps in a transaction."
            }
            Error::Encoding { .. } => "Use UPDATE statements on some rows at a time instead.",
            Error::HotStandby { .. } => "Connect to the primary server.",
            Error::ReadOnly { .. } => {
                "Set \"default_transaction_read_only\" to off for this session."
            }
            Error::NullArgument { argument: "value" } => {
                "To compute a value for each row, use safe_backfill_using."
            }
            Error::NoTable { .. } | Error::TableDropped { .. } => "Name a table that exists.",
            _ => return None,
        };
        Some(hint.into())
    }

    fn about_the_table(&self) -> Option<String> {
        let hint = match self {
            Error::NoColumn {
                qualified, column, ..
            } => {
                return Some(format!(
                    "Check the name, or add the column first: CALL safe_add_column({}, {}, ...);",
                    quote_literal(qualified),
                    quote_literal(column)
                ));
            }
            Error::Instant { why, .. } => return Some(why.hint()),
            Error::NotKept { .. } => "Use method => 'batch'.",
            Error::Method { .. } => "Use \"batch\" or \"instant\".",
            Error::CheckViolation { .. } => "Give a value that the constraint allows.",
            Error::BatchSize { .. } => "For most tables, use a value from 1000 to 50000.",
            Error::ForeignLeaf { .. } => {
                "Detach it, or call the procedure for the other partitions or child tables by name."
            }
            Error::UpdateRule { .. } => "Drop or disable the rule, or replace it with a trigger.",
            Error::StatementTrigger { .. } => {
                "Disable the trigger for that time, make it a row-level trigger, or call the procedure for each partition or child table by name."
            }
            Error::JobTablePublished {
                publication,
                qualified,
                ..
            } => {
                return Some(format!(
                    "Remove it: ALTER PUBLICATION {} DROP TABLE {qualified};",
                    quote(publication)
                ));
            }
            Error::ExtensionDropped => {
                "Run CREATE EXTENSION pg_safe_backfill, then the same CALL again."
            }
            Error::PartitionKey { .. } => {
                "Fill such a column with UPDATE statements on the partitioned table itself."
            }
            Error::RowSecurity { .. } => {
                "Run it as a role with BYPASSRLS, or as the owner of a table without FORCE ROW LEVEL SECURITY."
            }
            Error::ValueType { .. } => "Cast the value to the column's type.",
            Error::NotAnExpression { argument: "filter" } => {
                "Give what could stand after WHERE, such as created_at < '2024-01-01'."
            }
            Error::NotAnExpression { .. } => {
                "Give what could stand after SET column =, such as lower(name) or created_at::date."
            }
            _ => return None,
        };
        Some(hint.into())
    }

    fn about_the_run(&self) -> Option<String> {
        let hint = match self {
            Error::AlreadyRunning {
                job: Some(running), ..
            } => return Some(on_running(*running)),
            Error::AlreadyRunning { pid: Some(pid), .. } => {
                return Some(format!(
                    "See safe_backfill_progress.  Wait for it to end, or run SELECT pg_cancel_backend({pid});"
                ));
            }
            Error::AlreadyRunning { .. } => "Wait for it to end.  See safe_backfill_progress.",
            Error::ColumnChanged { .. } => "Check the column, then call again.",
            Error::RowsLocked { call, .. } => return Some(format!("To continue, run {call}")),
            Error::Cancelled { job, .. } => {
                return Some(format!(
                    "To continue, run the same CALL again, or SELECT safe_backfill_resume({job});"
                ));
            }
            Error::HoldWhile { .. } => {
                "Give a query such as SELECT count(*) > 50 FROM pg_stat_activity WHERE state = 'active'."
            }
            Error::OfHelper(failure) => return failure.hint.clone(),
            Error::HelperLost => "See the server log.  To continue, run the same CALL again.",
            Error::Workers { .. } => "Use no more workers than the server has processors.",
            Error::NoWorkerSlot => {
                "Increase \"max_worker_processes\", or use CALL safe_backfill with one worker."
            }
            Error::NoRole { .. } => "Run the same backfill again, as another role.",
            Error::NoLogin { .. } => {
                "Start it as a role that can log in, or use CALL safe_backfill."
            }
            Error::NoJob { .. } => "See safe_backfill_progress for the jobs.",
            Error::JobRunning { job, .. } => {
                return Some(format!(
                    "Cancel it first: SELECT safe_backfill_cancel({job});"
                ));
            }
            Error::StillNull {
                qualified,
                column,
                has_default,
                ..
            } => return Some(fill_first(qualified, column, *has_default)),
            Error::LockNotAvailable { .. } => {
                "Call again later, or raise \"safe_backfill.lock_retry_limit\"."
            }
            Error::TreeKeepsChanging { .. } => "Call again when no more tables are being attached.",
            Error::NotAType { .. } => {
                "Give a type alone, such as varchar(20).  For computed values, use safe_backfill_using."
            }
            Error::WouldRewrite { .. } => {
                "Add it in three steps: safe_add_column with a plain type and no default but a constant, safe_backfill_using for computed values, and safe_set_not_null."
            }
            Error::ExtensionLocked => {
                "DROP EXTENSION waits until no backfill runs.  Cancel it, or create the extension again."
            }
            Error::NotInstalled => "Run CREATE EXTENSION pg_safe_backfill first.",
            _ => return None,
        };
        Some(hint.into())
    }
}

/// What to do about a job that another process works on.
fn on_running(running: Running) -> String {
    let Running { job, is_paused } = running;
    match is_paused {
        true => format!(
            "To continue that job, run SELECT safe_backfill_resume({job});  To end it, run SELECT safe_backfill_cancel({job});"
        ),
        false => format!(
            "See safe_backfill_progress.  Wait for it to end, or run SELECT safe_backfill_cancel({job});"
        ),
    }
}

/// What to do about rows that are NULL, before the column can be NOT NULL.
fn fill_first(qualified: &str, column: &str, has_default: bool) -> String {
    let default = match has_default {
        true => String::new(),
        false => format!(
            "The column has no default, so that new rows may be null: SET lock_timeout = '1s'; ALTER TABLE {qualified} ALTER COLUMN {} SET DEFAULT ...;  ",
            quote(column)
        ),
    };
    format!(
        "{default}Fill them first: CALL safe_backfill({}, {}, ...);",
        quote_literal(qualified),
        quote_literal(column)
    )
}
