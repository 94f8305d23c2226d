//! Messages to the client that end nothing: NOTICE and WARNING.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Sends a NOTICE.
pub fn notice(message: String, hint: Option<&str>) {
    send(
        PgLogLevel::NOTICE,
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        message,
        hint,
    );
}

/// Sends a WARNING.
pub fn warning(message: String, hint: &str) {
    send(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_WARNING,
        message,
        Some(hint),
    );
}

fn send(level: PgLogLevel, code: PgSqlErrorCode, message: String, hint: Option<&str>) {
    let mut report = ErrorReport::new(code, message, "safe_backfill");
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(level);
}
