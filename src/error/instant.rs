//! Why rows that lack a column cannot get its value through the catalogs.

use std::fmt;

use pgrx::PgSqlErrorCode;

use crate::pg::usage;

/// What would be wrong if rows that lack a column got its value without being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstantReason {
    /// Only some rows are to be filled.
    Filter,
    /// The value is too large for a row of `pg_attribute`: its bytes, and the most that are allowed.
    LargeValue { bytes: usize, most: usize },
    /// An UPDATE would fire this trigger.
    Trigger(String),
    /// This index has an entry for each row, made from the column as it was.
    Index(String),
    /// This constraint compares the column with others, or with another table.
    Constraint(String),
    /// This column is computed from it, and stored.
    GeneratedColumn(String),
    /// This statistics object describes the column as it was.
    Statistics(String),
    /// This policy, of this table, depends on the column.
    Policy { policy: String, table: String },
    /// This materialized view holds a copy of the column.
    MaterializedView(String),
    /// This relation has rows of the table stored within its own: those would change too. Its column, if it is one.
    RowType {
        relation: String,
        column: Option<String>,
    },
    /// This publication sends UPDATEs of the table to subscribers.
    Publication(String),
    /// This slot sends changes of the database to whoever reads it.
    Slot(String),
}

impl fmt::Display for InstantReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use InstantReason::*;
        match self {
            Filter => f.write_str("All rows that lack the column would get the value, whether they meet the filter or not."),
            LargeValue { bytes, most } => write!(
                f,
                "The value takes {bytes} bytes, and at most {} are kept in the catalogs.",
                usage::size_pretty(*most as u64)
            ),
            Trigger(name) => write!(f, "Trigger \"{name}\" would not be fired for rows that are not updated."),
            Index(name) => write!(f, "Index \"{name}\" uses the column, and would have its old value for rows that are not updated."),
            Constraint(name) => write!(f, "Constraint \"{name}\" uses the column, and would not be checked for rows that are not updated."),
            GeneratedColumn(name) => write!(f, "Generated column \"{name}\" uses the column, and would not be computed anew for rows that are not updated."),
            Statistics(name) => write!(f, "Statistics object \"{name}\" uses the column, and would describe its old value."),
            Policy { policy, table } => write!(f, "Policy \"{policy}\" of table \"{table}\" uses the column: transactions that are open already would see other rows than before."),
            MaterializedView(name) => write!(f, "Materialized view \"{name}\" has a copy of the column, which would keep its old value."),
            RowType { relation, column: Some(column) } => write!(f, "Column \"{column}\" of relation \"{relation}\" has values of the table's row type, which would change as well."),
            RowType { relation, column: None } => write!(f, "Relation \"{relation}\" has values of the table's row type, which would change as well."),
            Publication(name) => write!(f, "Publication \"{name}\" publishes updates of the table, and subscribers would not get the value."),
            Slot(name) => write!(f, "Logical replication slot \"{name}\" is on this database, and its consumer would not get the value."),
        }
    }
}

impl InstantReason {
    /// Whether it never will be possible, or is not now.
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use InstantReason::*;
        match self {
            Filter | LargeValue { .. } | RowType { .. } => {
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
            }
            _ => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        }
    }

    /// What to do about it, in a full sentence.
    pub fn hint(&self) -> String {
        use InstantReason::*;
        let also = match self {
            Filter => "  Or give no filter.",
            LargeValue { .. } => "",
            Trigger(_) => {
                "  Or disable the trigger for that time, in which what the application writes does not fire it either."
            }
            Index(_) => {
                "  Or drop the index, and create it again afterwards with CREATE INDEX CONCURRENTLY."
            }
            Constraint(_) => {
                "  Or drop the constraint, and add it again afterwards with NOT VALID, then validate it."
            }
            GeneratedColumn(_) => "  Or drop the generated column, and add it again afterwards.",
            Statistics(_) => "  Or drop the statistics object, and create it again afterwards.",
            Policy { .. } => "  Or drop the policy, and create it again afterwards.",
            MaterializedView(_) => {
                "  Or drop the materialized view, and create it again afterwards."
            }
            RowType { .. } => "  Or give that column another type.",
            Publication(_) => {
                "  Or have the publication not publish the table, and set the value on subscribers too."
            }
            Slot(_) => "  Or drop the slot, if nobody reads it.",
        };
        format!("Use method => 'batch'.{also}")
    }
}
