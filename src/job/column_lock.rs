//! The lock that prevents two runs on the same column at the same time.

use pgrx::pg_sys;

use crate::catalog::holders;
use crate::error::{Error, Running};
use crate::job::home::Home;
use crate::pg::lock::ColumnLock;
use crate::pg::server;
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
    ColumnLock::try_acquire(tx, table, number).ok_or_else(|| {
        let pid = holders::of_column(tx, table, number);
        already_running(tx, table_name, column_name, pid)
    })
}

/// The error that names the process that has the lock, and its job.
pub fn already_running(tx: &Tx, table_name: &str, column_name: &str, pid: Option<i32>) -> Error {
    Error::AlreadyRunning {
        table: table_name.into(),
        column: column_name.into(),
        pid,
        job: pid.and_then(|pid| job_of(tx, pid)),
    }
}

/// The job of the process with this PID; `None` if it has none, or the jobs cannot be read now.
fn job_of(tx: &Tx, pid: i32) -> Option<Running> {
    const OF_PROCESS: &str = "
        SELECT job_id, state = 'paused' FROM @job
        WHERE system_identifier = $1 AND pid = $2 AND state IN ('running', 'paused')
        ORDER BY job_id DESC LIMIT 1";
    let home = Home::find(tx).ok()?;
    if !home.try_lock_to_read(tx) {
        return None;
    }
    let rows = home.execute(tx, OF_PROCESS, &[&server::system_identifier(), &pid]);
    let rows = rows.ok()?;
    let row = rows.first()?;
    Some(Running {
        job: row.get(1)?,
        is_paused: row.get(2)?,
    })
}
