//! What to do about an error.

use crate::error::Error;
use crate::pg::spi::quote;

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
            Error::Encoding { .. } => "Use an UPDATE in batches of your own there.",
            Error::HotStandby { .. } => "Connect to the primary server.",
            Error::ReadOnly { .. } => {
                "Set \"default_transaction_read_only\" to off for this session."
            }
            Error::NullArgument { argument: "value" } => {
                "To compute a value for each row, use safe_backfill_using."
            }
            Error::NullArgument { .. } => "Only filter and default_value can be null.",
            Error::NoTable { .. } | Error::TableDropped { .. } => {
                "Name a table that exists; a CALL on another one starts a job of its own."
            }
            _ => return None,
        };
        Some(hint.into())
    }

    fn about_the_table(&self) -> Option<String> {
        let hint = match self {
            Error::NoColumn { .. } => "Add it first: CALL safe_add_column(...) takes no time.",
            Error::SystemCatalog { .. } | Error::SystemColumn { .. } => {
                "PostgreSQL fills it by itself; there is nothing to backfill."
            }
            Error::OtherSessionsTable { .. } => "Only the session that created it can fill it.",
            Error::CheckViolation { .. } => "Give a value that the constraint allows.",
            Error::BatchSize { .. } => {
                "From 1000 to 50000 suits most tables; \"safe_backfill.max_batch_time\" shortens slow batches by itself."
            }
            Error::ForeignLeaf { .. } => {
                "Detach it, or call the procedure for the other partitions or child tables by name."
            }
            Error::AccessMethod { .. } => {
                "Only tables of access method \"heap\" can be backfilled."
            }
            Error::UpdateRule { .. } => "Drop or disable the rule, or use a trigger in its place.",
            Error::StatementTrigger { .. } => {
                "Disable the trigger for that time, make it a row-level trigger, or call the procedure for each partition or child table by name."
            }
            Error::JobTablePublished { publication, table } => {
                return Some(format!(
                    "Take it out: ALTER PUBLICATION {} DROP TABLE {table};",
                    quote(publication)
                ));
            }
            Error::ExtensionDropped => {
                "Run CREATE EXTENSION pg_safe_backfill, then the same CALL again: it goes on with what is left."
            }
            Error::ComputedColumn { .. } => {
                "PostgreSQL fills such a column by itself; there is nothing to backfill."
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
            Error::AlreadyRunning { .. } => {
                "Wait for its end, or cancel it with pg_cancel_backend.  What a backfill has done stands in safe_backfill_progress."
            }
            Error::ColumnChanged { .. } => "Check the column, then call again.",
            Error::RowsLocked { call, .. } => return Some(format!("Go on from there: {call}")),
            Error::Cancelled { job, .. } => {
                return Some(format!(
                    "The same CALL goes on from there, or SELECT safe_backfill_resume({job});"
                ));
            }
            Error::HoldWhile { .. } => {
                "Give a query such as SELECT count(*) > 50 FROM pg_stat_activity WHERE state = 'active'."
            }
            Error::OfHelper(failure) => return failure.hint.clone(),
            Error::HelperLost => {
                "It was terminated, or could not be started: see the server log.  The same CALL goes on from there."
            }
            Error::Workers { .. } => {
                "More workers than processors, or than the storage has room for, are no faster."
            }
            Error::NoWorkerSlot => {
                "You might need to increase \"max_worker_processes\".  CALL safe_backfill with one worker needs no background worker."
            }
            Error::NoLogin { .. } => {
                "Start it as a role that can log in, or use CALL safe_backfill."
            }
            Error::NoJob { .. } => "Jobs stand in safe_backfill_progress.",
            Error::JobPermission { .. } => {
                "The role that started it, the owner of the table and superusers may steer a job."
            }
            Error::JobRunning { job, .. } => {
                return Some(format!("End it first: SELECT safe_backfill_cancel({job});"));
            }
            Error::StillNull {
                qualified, column, ..
            } => {
                return Some(format!(
                    "Fill them first: CALL safe_backfill('{}', '{}', ...).  Then call safe_set_not_null again.",
                    qualified.replace('\'', "''"),
                    column.replace('\'', "''")
                ));
            }
            Error::LockNotAvailable { .. } => {
                "Call again when they are done.  See \"safe_backfill.lock_timeout\" and \"safe_backfill.lock_retry_limit\"."
            }
            Error::TreeKeepsChanging { .. } => "Call again when no more tables are being attached.",
            Error::NotAType { .. } => {
                "Give a type alone, such as varchar(20).  What is computed for each row takes three steps: safe_add_column, safe_backfill_using, safe_set_not_null."
            }
            Error::WouldRewrite { .. } => {
                "Add it in three steps: safe_add_column with a plain type and at most a constant default, then safe_backfill_using for a value that is computed for each row, then safe_set_not_null."
            }
            Error::NotInstalled => "Run CREATE EXTENSION pg_safe_backfill first.",
            _ => return None,
        };
        Some(hint.into())
    }
}
