//! The server that this backend belongs to, and the session.

use pgrx::pg_sys;

/// The cluster's system identifier, as `pg_control_system()` gives it; physical standbys share it, subscribers do not.
pub fn system_identifier() -> i64 {
    // SAFETY: read from the control file when the server started.
    unsafe { pg_sys::GetSystemIdentifier() }.cast_signed()
}

/// Whether it replays WAL from another server.
pub fn is_standby() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the transaction of the CALL may not write.
pub fn is_read_only() -> bool {
    // SAFETY: a variable of this backend.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether the database has the encoding that Rust's strings have.
pub fn is_utf8() -> bool {
    // SAFETY: set once at the start of the backend.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// Whether this process is a background worker.
pub fn is_background_worker() -> bool {
    // SAFETY: set once at the start of the process.
    unsafe { !pg_sys::MyBgworkerEntry.is_null() }
}
