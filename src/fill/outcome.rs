//! Rows that are NULL still when a leaf table is done.

use planner::phase::Finding;

/// Rows that are NULL still when a leaf is done.
#[derive(Debug)]
pub struct Leftover {
    /// The leaf.
    pub table: String,
    /// The column.
    pub column: String,
    /// How many rows.
    pub rows: u64,
    /// Why.
    pub cause: Cause,
}

/// Why rows are NULL still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The expression is NULL for them.
    NullExpression,
    /// An UPDATE was asked to fill them, and they are NULL still.
    Refused,
    /// Every look found rows to fill.
    KeptComing,
}

/// How many rows the finding leaves NULL, and why.
pub fn left_by(finding: Finding) -> (u64, Cause) {
    match finding {
        Finding::Verified { null } => (null, Cause::NullExpression),
        Finding::Refused { null } => (null, Cause::Refused),
        Finding::KeptComing { null } => (null, Cause::KeptComing),
    }
}
