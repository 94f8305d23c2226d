//! What may be done to a job from any session.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::background;
use crate::error::Error;
use crate::job::steering::{self, Steered};
use crate::pg::transaction;
use crate::pg::tx::Tx;
use crate::run::driver::require_writable;

/// Has a job wait before its next batch.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_pause(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_pause(job_id: i64) -> Result<bool, ErrorReport> {
    steer("safe_backfill_pause", job_id, |tx, job| job.pause(tx))
}

/// Resumes a job that was paused, cancelled or interrupted, or has failed.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_resume(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_resume(job_id: i64) -> Result<bool, ErrorReport> {
    steer("safe_backfill_resume", job_id, background::resume)
}

/// Has a job end before its next batch.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_cancel(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_cancel(job_id: i64) -> Result<bool, ErrorReport> {
    steer("safe_backfill_cancel", job_id, |tx, job| job.cancel(tx))
}

/// Removes a job that no process works on.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_forget(job_id pg_catalog.int8) RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_forget_job(job_id: i64) -> Result<bool, ErrorReport> {
    steer("safe_backfill_forget", job_id, |tx, job| {
        job.forget(tx).map(|()| true)
    })
}

/// Removes the jobs that ended longer ago than that.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_forget(older_than pg_catalog.interval) RETURNS pg_catalog.int8
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_forget_older(older_than: Interval) -> Result<i64, ErrorReport> {
    const DAYS_OF_A_MONTH: i64 = 30;
    let days = i64::from(older_than.months()) * DAYS_OF_A_MONTH + i64::from(older_than.days());
    let seconds = days as f64 * 86_400.0 + older_than.micros() as f64 / 1e6;
    require_writable("safe_backfill_forget")?;
    Ok(transaction::within_statement(|tx| {
        steering::forget_older(tx, seconds)
    })?)
}

fn steer(
    function: &'static str,
    job: i64,
    work: impl FnOnce(&Tx, &Steered) -> Result<bool, Error>,
) -> Result<bool, ErrorReport> {
    require_writable(function)?;
    Ok(transaction::within_statement(|tx| {
        let job = Steered::find(tx, job)?;
        work(tx, &job)
    })?)
}
