//! Everything that can go wrong, and how a user is told: SQLSTATE, message, DETAIL, HINT.

use std::fmt;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::messages::counted;
use crate::pg::failure::Failure;

mod detail;
mod hint;
mod instant;
mod rewrite;

pub use instant::InstantReason;
pub use rewrite::RewriteReason;

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
    /// A constant and an expression, of which only one can be.
    #[error("value and expression cannot both be given")]
    ValueAndExpression,
    /// The batch size is out of range.
    #[error("batch size {given} is outside the valid range ({least} .. {most})")]
    BatchSize { given: i32, least: i32, most: i32 },
    /// There is no such method.
    #[error("unrecognized method: \"{given}\"")]
    Method { given: String },
    /// Rows that lack the column cannot get the value without being written.
    #[error("cannot fill column \"{column}\" of table \"{table}\" with method \"instant\"")]
    Instant {
        table: String,
        column: String,
        why: InstantReason,
    },
    /// The type does not read what it has written as the same value.
    #[error("value for column \"{column}\" cannot be kept in the catalogs")]
    NotKept { column: String },
    /// The table was dropped meanwhile, or no table ever had this OID.
    #[error("table with OID {oid} does not exist")]
    NoTable { oid: u32 },
    /// Something that is not a table.
    #[error("relation \"{name}\" is not a table")]
    NotATable { name: String, kind: &'static str },
    /// A leaf of the tree is a foreign table.
    #[error("table \"{table}\" has foreign table \"{leaf}\" below it")]
    ForeignLeaf { table: String, leaf: String },
    /// A table that belongs to PostgreSQL itself.
    #[error("table \"{name}\" is a system catalog")]
    SystemCatalog { name: String },
    /// Another session's temporary table.
    #[error("cannot access temporary table \"{name}\" of another session")]
    OtherSessionsTable { name: String },
    /// Background workers are to fill a temporary table.
    #[error("background workers cannot fill temporary table \"{name}\"")]
    TemporaryTable { name: String },
    /// A table access method whose pages are not heap pages.
    #[error("cannot backfill table \"{name}\" because its access method is \"{method}\"")]
    AccessMethod { name: String, method: String },
    /// An UPDATE rule would send our UPDATE elsewhere.
    #[error("cannot backfill table \"{name}\" because it has a rule on UPDATE")]
    UpdateRule { name: String },
    /// The caller does not own the table.
    #[error("must be owner of table \"{table}\"")]
    NotOwner { table: String },
    /// The text is not the name of a type and nothing else.
    #[error("invalid column type: \"{text}\"")]
    NotAType { text: String },
    /// PostgreSQL would write every row anew to add such a column.
    #[error("cannot add column \"{column}\" without rewriting table \"{table}\"")]
    WouldRewrite {
        table: String,
        column: String,
        why: RewriteReason,
    },
    /// Every table has a system column of that name.
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
        /// Rows that are inserted without a value get one.
        has_default: bool,
        /// Why a constraint that was added could not be dropped again.
        left: Option<String>,
    },
    /// Other transactions kept the table locked.
    #[error("could not lock table \"{table}\"")]
    LockNotAvailable {
        table: String,
        attempts: u32,
        holders: Option<String>,
    },
    /// New partitions or child tables were attached in every round.
    #[error("table \"{table}\" kept getting new partitions or child tables")]
    TreeKeepsChanging { table: String },
    /// The column is missing.
    #[error("column \"{column}\" of table \"{table}\" does not exist")]
    NoColumn {
        table: String,
        column: String,
        /// The table with its schema, as SQL writes it.
        qualified: String,
    },
    /// A system column, such as `ctid` or `xmin`.
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
        /// What that process works on, if it is a job.
        job: Option<Running>,
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
    /// Other transactions kept their rows locked.
    #[error("could not fill {} of table \"{table}\" because {}", rows_of(*rows), locked_by(*rows, holders.is_some()))]
    RowsLocked {
        table: String,
        /// `None` if the rows could not be counted.
        rows: Option<u64>,
        holders: Option<String>,
        /// The message of the last error.
        message: String,
        /// The CALL that continues the run.
        call: String,
    },
    /// The job tables of the extension are not there.
    #[error("extension \"pg_safe_backfill\" is not installed in this database")]
    NotInstalled,
    /// The job tables of the extension went away while a CALL was using them.
    #[error("extension \"pg_safe_backfill\" was dropped during the call")]
    ExtensionDropped,
    /// Another session waits to drop the extension, or is about to.
    #[error("could not lock extension \"pg_safe_backfill\", as another session is dropping it")]
    ExtensionLocked,
    /// A publication names one of the job tables.
    #[error("table \"{table}\" is published by publication \"{publication}\"")]
    JobTablePublished {
        publication: String,
        table: &'static str,
        /// The table with its schema, as SQL writes it.
        qualified: String,
    },
    /// A trigger that an UPDATE of the named table would fire, but UPDATEs of its leaves would not.
    #[error(
        "cannot backfill table \"{table}\" because of its statement-level UPDATE trigger \"{trigger}\""
    )]
    StatementTrigger { table: String, trigger: String },
    /// Another session has called `safe_backfill_cancel`.
    #[error("canceling backfill of table \"{table}\" due to safe_backfill_cancel")]
    Cancelled { table: String, job: i64 },
    /// The query of `hold_while` fails, or does not return a boolean.
    #[error("could not run the query of \"safe_backfill.hold_while\"")]
    HoldWhile {
        /// A full sentence.
        reason: String,
    },
    /// All background workers are in use.
    #[error("out of background worker slots")]
    NoWorkerSlot,
    /// PostgreSQL starts no background worker as such a role.
    #[error("role \"{role}\" is not permitted to log in")]
    NoLogin { role: String },
    /// The role that started a job was dropped.
    #[error("role with OID {oid} does not exist")]
    NoRole { oid: u32 },
    /// There is no job of that number.
    #[error("job {job} does not exist")]
    NoJob { job: i64 },
    /// The current user may not control the job.
    #[error("permission denied for job {job}")]
    JobPermission { job: i64 },
    /// The job cannot be removed while a process works on it.
    #[error("job {job} is running")]
    JobRunning { job: i64, pid: i32 },
    /// The number of workers is out of range.
    #[error("number of workers {given} is outside the valid range ({least} .. {most})")]
    Workers { given: i32, least: i32, most: i32 },
    /// The error that ended a helper process.
    #[error("{}", .0.message)]
    OfHelper(Failure),
    /// A helper process ended without reporting an error.
    #[error("lost a background worker of the backfill")]
    HelperLost,
    /// Ends a helper once the leader needs it no more. No user sees it.
    #[error("the backfill has ended")]
    TeamIsOver,
    /// A stored job cannot be read.
    #[error("could not read the stored job: {0}")]
    StoredJob(#[from] serde_json::Error),
}

/// A job that a process works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub job: i64,
    /// It is paused.
    pub is_paused: bool,
}

/// How a column changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was dropped.
    Dropped,
    /// It was renamed.
    Renamed,
    /// It was given another type.
    Altered,
    /// It was dropped, and another one was added under its name.
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
            Error::BatchSize { .. } | Error::Method { .. } | Error::ValueAndExpression => {
                ERRCODE_INVALID_PARAMETER_VALUE
            }
            Error::Instant { why, .. } => why.sqlstate(),
            Error::NoTable { .. } | Error::TableDropped { .. } => ERRCODE_UNDEFINED_TABLE,
            Error::NotATable { .. } | Error::ForeignLeaf { .. } | Error::SystemCatalog { .. } => {
                ERRCODE_WRONG_OBJECT_TYPE
            }
            Error::Encoding { .. }
            | Error::OtherSessionsTable { .. }
            | Error::TemporaryTable { .. }
            | Error::AccessMethod { .. }
            | Error::UpdateRule { .. }
            | Error::NotKept { .. }
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
            Error::RowsLocked { .. } | Error::ExtensionLocked => ERRCODE_LOCK_NOT_AVAILABLE,
            Error::NotInstalled | Error::ExtensionDropped | Error::JobTablePublished { .. } => {
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Error::StoredJob(_) => ERRCODE_DATA_CORRUPTED,
            Error::Cancelled { .. } => ERRCODE_QUERY_CANCELED,
            Error::HoldWhile { .. } => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::NoWorkerSlot => ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            Error::Workers { .. } => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::OfHelper(failure) => failure.code(),
            Error::HelperLost | Error::TeamIsOver => ERRCODE_ADMIN_SHUTDOWN,
            Error::NoRole { .. } => ERRCODE_UNDEFINED_OBJECT,
            Error::NoLogin { .. } => ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            Error::NoJob { .. } => ERRCODE_UNDEFINED_OBJECT,
            Error::JobPermission { .. } => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::JobRunning { .. } => ERRCODE_OBJECT_IN_USE,
        }
    }
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

impl Error {
    /// The error in the form in which it is stored.
    pub fn as_failure(&self) -> Failure {
        Failure::new(
            self.sqlstate(),
            self.to_string(),
            self.detail(),
            self.hint(),
        )
    }
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        error.as_failure().into()
    }
}
