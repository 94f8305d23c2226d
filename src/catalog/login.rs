//! Which roles a background worker can run as.

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::tx::Tx;
use crate::pg::worker::RUNS_AS_ANYONE;

/// Fails unless PostgreSQL starts background workers as this role.
///
/// # Errors
/// [`Error::NoLogin`].
pub fn require(tx: &Tx, role: pg_sys::Oid) -> Result<(), Error> {
    const ROLE: &str = "SELECT rolname::text FROM pg_roles WHERE oid = $1 AND NOT rolcanlogin";
    match tx.catalog_value(ROLE, &[&role]) {
        Some(role) if !RUNS_AS_ANYONE => Err(Error::NoLogin { role }),
        _ => Ok(()),
    }
}
