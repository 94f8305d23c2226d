//! The postmaster, which a backend must not outlive.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

unsafe extern "C-unwind" {
    /// From PostgreSQL's `storage/pmsignal.h`; pgrx has no binding of it.
    fn PostmasterIsAliveInternal() -> bool;
}

/// Ends this backend if the postmaster is gone: as long as one backend is left, the server cannot be started again.
///
/// PostgreSQL itself checks only while it waits, and a CALL that always has something to do never waits.
pub fn require_alive() {
    // SAFETY: a read of the pipe that the postmaster holds open, without waiting.
    if unsafe { PostmasterIsAliveInternal() } {
        return;
    }
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
        "terminating connection due to unexpected postmaster exit",
        "safe_backfill",
    )
    .report(PgLogLevel::FATAL);
}
