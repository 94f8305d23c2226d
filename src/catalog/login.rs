//! Which roles a background worker can run as.

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::tx::Tx;
use crate::pg::worker::RUNS_AS_ANYONE;

/// Fails unless PostgreSQL starts background workers as this role.
///
/// # Errors
/// [`Error::NoLogin`], [`Error::NoRole`].
pub fn require(tx: &Tx, role: pg_sys::Oid) -> Result<(), Error> {
    const ROLE: &str = "SELECT rolname::text, rolcanlogin FROM pg_roles WHERE oid = $1";
    let rows = tx.catalog(ROLE, &[&role]);
    let Some(found) = rows.first() else {
        return Err(Error::NoRole { oid: role.to_u32() });
    };
    if !RUNS_AS_ANYONE && found.get(2) == Some(false) {
        return Err(Error::NoLogin {
            role: found.get(1).unwrap_or_default(),
        });
    }
    Ok(())
}
