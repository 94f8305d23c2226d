//! Messages that end nothing: NOTICE and WARNING to a client; the server log has those of a background worker.

use std::cell::Cell;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use crate::pg::server;

thread_local! {
    /// The job that this background worker works on.
    static JOB: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Tells which job the messages of this background worker are about.
pub fn are_about_job(job: i64) {
    JOB.set(Some(job));
}

/// Sends a NOTICE, with a DETAIL and a HINT where they are given.
pub fn notice(message: String, detail: Option<&str>, hint: Option<&str>) {
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    send(PgLogLevel::NOTICE, code, message, detail, hint);
}

/// Sends a WARNING with a DETAIL, and a HINT where one is given.
pub fn warning(message: String, detail: &str, hint: Option<&str>) {
    let code = PgSqlErrorCode::ERRCODE_WARNING;
    send(PgLogLevel::WARNING, code, message, Some(detail), hint);
}

fn send(
    level: PgLogLevel,
    code: PgSqlErrorCode,
    message: String,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let (level, message) = match (server::is_background_worker(), JOB.get()) {
        (true, Some(job)) => (logged(level), format!("job {job}: {message}")),
        (true, None) => (logged(level), message),
        (false, _) => (level, message),
    };
    let mut report = ErrorReport::new(code, message, "safe_backfill");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    // PostgreSQL looks for interrupts when it has sent a message. The error must find the Rust functions above this one: pgrx
    // guards all its calls into PostgreSQL but this.
    // SAFETY: what an error skips is one function of pgrx, which owns nothing any more by then.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| report.report(level)) };
}

/// The level at which a message without a client is to be found in the server log.
fn logged(level: PgLogLevel) -> PgLogLevel {
    match level {
        PgLogLevel::NOTICE => PgLogLevel::LOG,
        level => level,
    }
}
