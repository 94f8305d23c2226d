//! Cancellation and termination.

use pgrx::pg_sys;

/// Ends the CALL if it was cancelled or its backend terminated.
pub fn check() {
    pg_sys::check_for_interrupts!();
}
