//! Everything that can go wrong, and how a user is told: SQLSTATE, message, DETAIL, HINT.

use std::fmt;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

/// A failure that the user can understand and act on.
///
/// Names in the messages are shown as PostgreSQL shows them, within double quotes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The procedure was called where it cannot commit.
    #[error("{procedure} cannot run inside a transaction block")]
    TransactionBlock { procedure: &'static str },
    /// The server replays WAL from another one.
    #[error("cannot execute {procedure} on a hot standby")]
    HotStandby { procedure: &'static str },
    /// The session or database is set to read only.
    #[error("cannot execute {procedure} in a read-only transaction")]
    ReadOnly { procedure: &'static str },
    /// The database has an encoding that Rust's strings cannot hold.
    #[error("cannot execute {procedure} in a database whose encoding is not UTF8")]
    Encoding { procedure: &'static str },
    /// An argument that must not be NULL is.
    #[error("{argument} must not be null")]
    NullArgument { argument: &'static str },
    /// The batch size is out of range.
    #[error("batch size {given} is outside the valid range ({least} .. {most})")]
    BatchSize { given: i32, least: i32, most: i32 },
    /// The table went away, or the OID never was one.
    #[error("table with OID {oid} does not exist")]
    NoTable { oid: u32 },
    /// Something that is not a table.
    #[error("relation \"{name}\" is not a table")]
    NotATable { name: String, kind: &'static str },
    /// A leaf of the tree is a foreign table.
    #[error("table \"{table}\" has foreign table \"{leaf}\" below it")]
    ForeignLeaf { table: String, leaf: String },
    /// A table that belongs to PostgreSQL itself.
    #[error("\"{name}\" is a system catalog")]
    SystemCatalog { name: String },
    /// Another session's temporary table.
    #[error("cannot access temporary table \"{name}\" of another session")]
    OtherSessionsTable { name: String },
    /// A table access method whose pages are not heap pages.
    #[error("cannot backfill table \"{name}\" because its access method is \"{method}\"")]
    AccessMethod { name: String, method: String },
    /// An UPDATE rule would send our UPDATE elsewhere.
    #[error("cannot backfill table \"{name}\" because it has a rule on UPDATE")]
    UpdateRule { name: String },
    /// The caller does not own the table.
    #[error("must be owner of table \"{table}\"")]
    NotOwner { table: String },
    /// More or less than the name of a type.
    #[error("invalid column type: \"{text}\"")]
    NotAType { text: String },
    /// PostgreSQL would write every row anew to add such a column.
    #[error("cannot add column \"{column}\" without rewriting table \"{table}\"")]
    WouldRewrite {
        table: String,
        column: String,
        /// A full sentence.
        why: String,
    },
    /// A column of that name there is in every table.
    #[error("column name \"{column}\" conflicts with a system column name")]
    SystemColumnName { column: String },
    /// There is a column of that name already.
    #[error("column \"{column}\" of table \"{table}\" already exists")]
    ColumnExists {
        table: String,
        column: String,
        existing: String,
        wanted: String,
    },
    /// Rows have to be filled before the column can be NOT NULL.
    #[error("column \"{column}\" of table \"{table}\" contains null values")]
    StillNull {
        table: String,
        column: String,
        rows: u64,
        maybe_more: bool,
        /// The table with its schema, as SQL writes it.
        qualified: String,
        /// Why a constraint that was added could not be dropped again.
        left: Option<String>,
    },
    /// Others never let go of the table.
    #[error("could not lock table \"{table}\"")]
    LockNotAvailable {
        table: String,
        attempts: u32,
        holders: Option<String>,
    },
    /// Tables were being attached all the time.
    #[error("table \"{table}\" kept getting new partitions or child tables")]
    TreeKeepsChanging { table: String },
    /// The column is missing.
    #[error("column \"{column}\" of table \"{table}\" does not exist")]
    NoColumn { table: String, column: String },
    /// `ctid`, `xmin` and their like.
    #[error("column \"{column}\" is a system column")]
    SystemColumn { column: String },
    /// A column that PostgreSQL computes.
    #[error("cannot backfill column \"{column}\" of table \"{table}\" because it is {kind}")]
    ComputedColumn {
        table: String,
        column: String,
        kind: &'static str,
    },
    /// Filling the column would move rows between partitions.
    #[error(
        "cannot backfill column \"{column}\" because it is part of the partition key of table \"{table}\""
    )]
    PartitionKey { table: String, column: String },
    /// The caller may not read the table or update the column.
    #[error("permission denied for table \"{table}\"")]
    Permission { table: String, column: String },
    /// Policies would hide rows from the caller.
    #[error("row-level security on table \"{table}\" would hide rows from this backfill")]
    RowSecurity { table: String },
    /// The value has a type that does not become the column's by assignment.
    #[error("column \"{column}\" is of type {column_type} but value is of type {value_type}")]
    ValueType {
        column: String,
        column_type: String,
        value_type: String,
    },
    /// A CHECK on this column alone refuses the value.
    #[error(
        "value for column \"{column}\" of table \"{table}\" violates check constraint \"{constraint}\""
    )]
    CheckViolation {
        table: String,
        column: String,
        constraint: String,
    },
    /// The text is not one SQL expression.
    #[error("{argument} is not a single SQL expression")]
    NotAnExpression { argument: &'static str },
    /// Another backend is filling the same column.
    #[error("another session is working on column \"{column}\" of table \"{table}\"")]
    AlreadyRunning {
        table: String,
        column: String,
        pid: Option<i32>,
    },
    /// The column is not what it was when the run began.
    #[error("column \"{column}\" of table \"{table}\" was {change} during the call")]
    ColumnChanged {
        table: String,
        column: String,
        change: Change,
    },
    /// The table was dropped between two batches.
    #[error("table \"{table}\" was dropped during the call")]
    TableDropped { table: String },
    /// Other transactions never let go of their rows.
    #[error("could not fill {} of table \"{table}\" because {}", rows_of(*rows), locked_by(*rows, holders.is_some()))]
    RowsLocked {
        table: String,
        /// `None` if even they could not be counted.
        rows: Option<u64>,
        holders: Option<String>,
        /// The message of the last error.
        message: String,
    },
    /// The job tables of the extension are not there.
    #[error("extension \"pg_safe_backfill\" is not installed in this database")]
    NotInstalled,
    /// The job tables of the extension went away while a CALL was using them.
    #[error("extension \"pg_safe_backfill\" was dropped during the call")]
    ExtensionDropped,
    /// A publication names the job table.
    #[error("table \"safe_backfill_job\" is published by publication \"{publication}\"")]
    JobTablePublished { publication: String, table: String },
    /// Triggers that an UPDATE of the named table would fire, and UPDATEs of its leaves do not.
    #[error(
        "cannot backfill table \"{table}\" because of its statement-level UPDATE trigger \"{trigger}\""
    )]
    StatementTrigger { table: String, trigger: String },
    /// What the job table holds cannot be read.
    #[error("could not read the stored job: {0}")]
    StoredJob(#[from] serde_json::Error),
}

/// What became of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was dropped.
    Dropped,
    /// It was renamed.
    Renamed,
    /// It was given another type.
    Altered,
    /// It was dropped, and another one made of that name.
    Replaced,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::Dropped => "dropped",
            Change::Renamed => "renamed",
            Change::Altered => "altered",
            Change::Replaced => "replaced by another of that name",
        })
    }
}

impl Error {
    /// The SQLSTATE that clients see.
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode::*;
        match self {
            Error::TransactionBlock { .. } => ERRCODE_INVALID_TRANSACTION_TERMINATION,
            Error::HotStandby { .. } | Error::ReadOnly { .. } => ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Error::NullArgument { .. } => ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Error::BatchSize { .. } => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::NoTable { .. } | Error::TableDropped { .. } => ERRCODE_UNDEFINED_TABLE,
            Error::NotATable { .. } | Error::ForeignLeaf { .. } | Error::SystemCatalog { .. } => {
                ERRCODE_WRONG_OBJECT_TYPE
            }
            Error::Encoding { .. }
            | Error::OtherSessionsTable { .. }
            | Error::AccessMethod { .. }
            | Error::UpdateRule { .. }
            | Error::StatementTrigger { .. }
            | Error::SystemColumn { .. }
            | Error::PartitionKey { .. } => ERRCODE_FEATURE_NOT_SUPPORTED,
            Error::NotOwner { .. } => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::NotAType { .. } => ERRCODE_SYNTAX_ERROR,
            Error::WouldRewrite { .. } => ERRCODE_FEATURE_NOT_SUPPORTED,
            Error::ColumnExists { .. } | Error::SystemColumnName { .. } => ERRCODE_DUPLICATE_COLUMN,
            Error::StillNull { .. } => ERRCODE_NOT_NULL_VIOLATION,
            Error::LockNotAvailable { .. } => ERRCODE_LOCK_NOT_AVAILABLE,
            Error::TreeKeepsChanging { .. } => ERRCODE_OBJECT_IN_USE,
            Error::NoColumn { .. } | Error::ColumnChanged { .. } => ERRCODE_UNDEFINED_COLUMN,
            Error::ComputedColumn { .. } => ERRCODE_GENERATED_ALWAYS,
            Error::Permission { .. } | Error::RowSecurity { .. } => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::ValueType { .. } => ERRCODE_DATATYPE_MISMATCH,
            Error::CheckViolation { .. } => ERRCODE_CHECK_VIOLATION,
            Error::NotAnExpression { .. } => ERRCODE_SYNTAX_ERROR,
            Error::AlreadyRunning { .. } => ERRCODE_OBJECT_IN_USE,
            Error::RowsLocked { .. } => ERRCODE_LOCK_NOT_AVAILABLE,
            Error::NotInstalled | Error::ExtensionDropped | Error::JobTablePublished { .. } => {
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Error::StoredJob(_) => ERRCODE_DATA_CORRUPTED,
        }
    }

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
            Error::TreeKeepsChanging { .. } => "What was done is kept.",
            Error::PartitionKey { .. } => "Filling it would move rows between partitions.",
            _ => return None,
        };
        Some(detail.into())
    }

    /// What to do about it, in full sentences.
    pub fn hint(&self) -> Option<String> {
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
                    crate::pg::spi::quote(publication)
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
            Error::AlreadyRunning { .. } => {
                "Wait for its end, or cancel it with pg_cancel_backend.  What a backfill has done stands in safe_backfill_progress."
            }
            Error::ColumnChanged { .. } => "Check the column, then call again.",
            Error::RowsLocked { .. } => "Run the same CALL again to go on from there.",
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

fn rows_of(rows: Option<u64>) -> String {
    rows.map_or_else(|| "some rows".into(), |rows| counted(rows, "row"))
}

fn locked_by(rows: Option<u64>, holders_are_known: bool) -> String {
    let of_what = match rows {
        _ if !holders_are_known => return "locks were not available".into(),
        Some(1) => "it",
        _ => "them",
    };
    format!("other transactions hold locks on {of_what}")
}

/// So many of them: `1 row`, `2 batches`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = match count {
        1 => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {noun}{plural}")
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let mut report = ErrorReport::new(error.sqlstate(), error.to_string(), "safe_backfill");
        if let Some(detail) = error.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint() {
            report = report.set_hint(hint);
        }
        report
    }
}
