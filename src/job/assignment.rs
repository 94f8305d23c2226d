//! What a job is to do.

use pgrx::pg_sys;

use crate::job::method::Method;
use crate::job::recipe::Recipe;

/// What a job fills, and with what.
pub struct Assignment {
    /// The table that was named.
    pub root: pg_sys::Oid,
    /// Its name, for messages.
    pub table_name: String,
    /// The tables that hold its rows.
    pub leaves: Vec<pg_sys::Oid>,
    /// The column.
    pub column: String,
    /// Its number in the table that was named.
    pub number: i16,
    /// What goes into it.
    pub recipe: Recipe,
    /// How rows get their value.
    pub method: Method,
    /// The condition that a row must meet to be filled.
    pub filter: Option<String>,
    /// Most rows of a batch.
    pub batch_size: i32,
    /// How many processes work on it.
    pub workers: i32,
}
