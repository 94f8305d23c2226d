//! The server that this backend belongs to.

use pgrx::pg_sys;

/// The cluster's system identifier, as `pg_control_system()` gives it; physical standbys share it, subscribers do not.
pub fn system_identifier() -> i64 {
    // SAFETY: read from the control file when the server started.
    unsafe { pg_sys::GetSystemIdentifier() }.cast_signed()
}
