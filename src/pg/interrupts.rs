//! Cancellation and termination.

use pgrx::pg_sys;

/// Ends the CALL if it was cancelled or its backend terminated.
pub fn check() {
    pg_sys::check_for_interrupts!();
}

/// Whether the CALL was cancelled or its backend terminated; [`check`] ends it.
pub fn are_pending() -> bool {
    // SAFETY: flags that signal handlers set.
    unsafe { pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0 }
}
