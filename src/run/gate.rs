//! What every batch, and every attempt of a DDL statement, passes before it begins.

use crate::pg::interrupts;
use crate::pg::{postmaster, settings};

/// Ends the run if it was cancelled, its backend terminated or the server's postmaster is gone; reads the configuration
/// again if that was asked for. Call it between transactions.
///
/// # Errors
/// PostgreSQL's 57014 and 57P01.
pub fn pass() {
    postmaster::require_alive();
    interrupts::check();
    settings::reload_if_asked();
}
