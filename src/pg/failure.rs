//! An error that was raised, in a form that can be stored.

use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::{Deserialize, Serialize};

/// An error: of PostgreSQL's, of ours, or a panic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The SQLSTATE, five characters.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// What is known beyond it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// The failure of an error that was caught.
    pub(super) fn of(error: &CaughtError) -> Self {
        match error {
            CaughtError::PostgresError(report)
            | CaughtError::ErrorReport(report)
            | CaughtError::RustPanic {
                ereport: report, ..
            } => Self::of_report(report),
        }
    }

    fn of_report(report: &ErrorReportWithLevel) -> Self {
        Failure {
            sqlstate: sqlstate(report.sql_error_code()),
            message: report.message().into(),
            detail: report.detail().map(Into::into),
            hint: report.hint().map(Into::into),
        }
    }

    /// The failure of an error of ours, before it is raised.
    pub fn new(
        code: PgSqlErrorCode,
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    ) -> Self {
        Failure {
            sqlstate: sqlstate(code),
            message,
            detail,
            hint,
        }
    }

    /// Whether it is an intervention from outside: a cancellation, a timeout, a shutdown (SQLSTATE class 57).
    pub fn is_intervention(&self) -> bool {
        self.sqlstate.starts_with("57")
    }

    /// Whether it comes from the state of the server at the moment, and not from what was asked for: locks and deadlocks, lack
    /// of resources, interventions.
    pub fn is_passing(&self) -> bool {
        let classes = ["40", "53", "57", "58"];
        self.sqlstate == "55P03" || classes.iter().any(|class| self.sqlstate.starts_with(class))
    }

    /// The code of its SQLSTATE.
    pub fn code(&self) -> PgSqlErrorCode {
        // As MAKE_SQLSTATE in PostgreSQL's `elog.h`: six bits for each character.
        let bits = self.sqlstate.bytes().take(5).enumerate();
        let code = bits.fold(0, |code, (place, byte)| {
            code | (i32::from(byte.wrapping_sub(b'0')) & 0x3f) << (6 * place)
        });
        PgSqlErrorCode::from(code)
    }
}

impl From<Failure> for ErrorReport {
    fn from(failure: Failure) -> Self {
        let code = failure.code();
        let mut report = ErrorReport::new(code, failure.message, "safe_backfill");
        if let Some(detail) = failure.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = failure.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

fn sqlstate(code: PgSqlErrorCode) -> String {
    // SAFETY: returns a NUL-terminated string in memory of its own.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::unpack_sql_state(code as i32)) }
        .to_string_lossy()
        .into_owned()
}
