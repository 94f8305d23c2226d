//! The background worker that runs a job.

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::worker::{self, Start};

/// The C function that it runs; it is in `worker.rs`.
const JOB_MAIN: &str = "safe_backfill_job_main";

/// Starts a worker that takes up the job as this role, once that transaction has ended; 0 for none.
///
/// # Errors
/// [`Error::NoWorkerSlot`].
pub fn start(job: i64, role: pg_sys::Oid, transaction: u32) -> Result<(), Error> {
    let start = Start {
        role,
        job,
        transaction,
        ..Start::here()
    };
    let name = format!("pg_safe_backfill job {job}");
    match worker::start(&name, JOB_MAIN, start) {
        Some(_) => Ok(()),
        None => Err(Error::NoWorkerSlot),
    }
}
