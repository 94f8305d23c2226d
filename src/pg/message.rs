//! Messages to the client that end nothing: NOTICE and WARNING.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Sends a NOTICE.
pub fn notice(message: String, hint: Option<&str>) {
    notice_with(message, None, hint);
}

/// Sends a NOTICE with a DETAIL line.
pub fn notice_with(message: String, detail: Option<String>, hint: Option<&str>) {
    send(
        PgLogLevel::NOTICE,
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        message,
        detail,
        hint,
    );
}

/// Sends a WARNING.
pub fn warning_with(message: String, detail: &str, hint: Option<&str>) {
    send(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_WARNING,
        message,
        Some(detail.into()),
        hint,
    );
}

fn send(
    level: PgLogLevel,
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
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
