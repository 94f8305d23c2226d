//! What goes into a column, as a job stores it.

use serde::{Deserialize, Serialize};

/// What goes into the column, as a job stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// The same value for every row, as its type writes it.
    Constant(String),
    /// An SQL expression over the columns of the row.
    Expression(String),
}
