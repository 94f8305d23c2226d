//! Jobs that run in a background worker, as the role that started them, and outlive its session.

use crate::catalog::{holders, login};
use crate::error::Error;
use crate::fill::request::Request;
use crate::job::column_lock;
use crate::job::home::Home;
use crate::job::steering::Steered;
use crate::job::store;
use crate::job::stored;
use crate::pg::role;
use crate::pg::tx::Tx;
use crate::run::job_worker;

/// Stores the job, or takes up the unfinished one that does the same, and starts its worker, which begins when this
/// transaction is committed. Returns the number of the job.
///
/// # Errors
/// [`Error::AlreadyRunning`], [`Error::NoWorkerSlot`], [`Error::NoLogin`], [`Error::TemporaryTable`],
/// [`Error::NotInstalled`].
pub fn start(tx: &Tx, request: &Request) -> Result<i64, Error> {
    let target = &request.target;
    target.require_shared()?;
    login::require(tx, role::current_user())?;
    let home = Home::find(tx)?;
    home.keep_unpublished_within(tx)?;
    if let Some(pid) = holders::of_column(tx, target.table, target.number) {
        let (table, column) = (&target.table_name, &target.column);
        return Err(column_lock::already_running(tx, table, column, Some(pid)));
    }
    let what = request.assignment();
    let id = match stored::find_unfinished(tx, &home, &what)? {
        Some(id) => id,
        None => store::insert(tx, &home, &what, None)?,
    };
    stored::hand_over(tx, &home, id, &what)?;
    job_worker::start(id, role::current_user(), tx.id())?;
    Ok(id)
}

/// Resumes an unfinished job, in a background worker if no process works on it. Returns `false` if there is nothing to
/// do.
///
/// # Errors
/// [`Error::NoWorkerSlot`], [`Error::NoLogin`].
pub fn resume(tx: &Tx, job: &Steered) -> Result<bool, Error> {
    if !job.can_resume() {
        return Ok(false);
    }
    job.resume(tx)?;
    if job.pid.is_none() {
        login::require(tx, job.role)?;
        job_worker::start(job.id(), job.role, tx.id())?;
    }
    Ok(true)
}
