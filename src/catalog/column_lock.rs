//! The lock that prevents two runs on the same column at the same time.

use pgrx::pg_sys;

use crate::catalog::holders;
use crate::error::Error;
use crate::pg::lock::ColumnLock;
use crate::pg::tx::Tx;

/// Takes the lock, or fails at once.
///
/// # Errors
/// [`Error::AlreadyRunning`].
pub fn acquire(
    tx: &Tx,
    table: pg_sys::Oid,
    number: i16,
    table_name: &str,
    column_name: &str,
) -> Result<ColumnLock, Error> {
    ColumnLock::try_acquire(tx, table, number).ok_or_else(|| Error::AlreadyRunning {
        table: table_name.into(),
        column: column_name.into(),
        pid: holders::of_column(tx, table, number),
    })
}
