//! Rows that are NULL still when a leaf table is done.

use planner::phase::Finding;

use crate::messages;

/// A leaf table in which rows are NULL still.
#[derive(Debug)]
pub struct Leftover {
    table: String,
    column: String,
    finding: Finding,
}

impl Leftover {
    /// What the finding leaves, if it leaves anything.
    pub fn of(table: &str, column: &str, finding: Finding) -> Option<Self> {
        (finding.null() > 0).then(|| Leftover {
            table: table.into(),
            column: column.into(),
            finding,
        })
    }

    /// Tells the user.
    pub fn warn(&self) {
        messages::warn_of_leftover(&self.table, &self.column, self.finding);
    }
}
