//! How a leaf table came out, and what is said of rows that are NULL still.

use crate::error::counted;
use crate::job::End;
use crate::pg::message;

/// How a leaf came out.
#[derive(Debug)]
pub struct Outturn {
    /// As the job stores it.
    pub end: End,
    /// The rows that are NULL still, to be told to the user.
    pub leftover: Option<Leftover>,
}

/// Rows that are NULL still when a leaf is done.
#[derive(Debug)]
pub struct Leftover {
    /// The leaf.
    pub table: String,
    /// The column.
    pub column: String,
    /// How many rows.
    pub rows: i64,
    /// Why.
    pub cause: Cause,
}

/// Why rows are NULL still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// None is left to be filled; but rows whose expression is NULL do not count as such.
    NullExpression,
    /// An UPDATE was asked to fill them, and they are NULL still.
    Refused,
    /// Rows were filled in every round, and new ones were there in the next.
    New,
}

impl Leftover {
    /// Tells the user.
    pub fn warn(&self) {
        let (detail, hint) = match self.cause {
            Cause::NullExpression => (
                "The expression is null for them.",
                "Fill them in another way.",
            ),
            Cause::Refused => (
                "A trigger or the expression keeps them so.",
                "Fill them in another way, or without the trigger.",
            ),
            Cause::New => (
                "New ones keep coming.",
                "Set a default on the column, or have the application give a value, then call again.",
            ),
        };
        let are = if self.rows == 1 { "is" } else { "are" };
        message::warning_with(
            format!(
                "{} of table \"{}\" {are} still null in column \"{}\"",
                counted(self.rows.unsigned_abs(), "row"),
                self.table,
                self.column
            ),
            detail,
            Some(hint),
        );
    }
}
