//! Messages to the client that end nothing: NOTICE and WARNING.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

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
    let mut report = ErrorReport::new(code, message, "safe_backfill");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(level);
}
