//! What a CALL asks for, proven before anything is touched.

use pgrx::pg_sys;

use crate::catalog::relation::require_alterable;
use crate::error::Error;
use crate::not_null::nullness::require_attribute;
use crate::pg::tx::Tx;

/// A column of a table, and of all tables below it, that is to be NOT NULL.
pub struct Request {
    /// The table that was named.
    pub table: pg_sys::Oid,
    /// Its name without the schema.
    pub table_name: String,
    /// The column.
    pub column: String,
    /// Its number in that table.
    pub number: i16,
}

impl Request {
    /// Checks that the current user may do it, before anything is touched.
    ///
    /// # Errors
    /// Those of [`require_alterable`], [`Error::NoColumn`], [`Error::SystemColumn`].
    pub fn prove(tx: &Tx, table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let relation = require_alterable(tx, table)?;
        let attribute = require_attribute(tx, &relation, column)?;
        if attribute.number < 1 {
            return Err(Error::SystemColumn {
                column: column.into(),
            });
        }
        Ok(Request {
            table,
            table_name: relation.name,
            column: column.into(),
            number: attribute.number,
        })
    }
}
