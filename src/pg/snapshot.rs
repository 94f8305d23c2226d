//! The snapshot of a background worker's transaction.

use pgrx::pg_sys;

/// Gives the transaction of a background worker a snapshot, if it has none, as a portal does for that of a CALL: SPI wants
/// one around its statements.
pub fn ensure() {
    // SAFETY: inside a transaction; `drop_all` undoes it before the transaction ends, or its rollback does.
    unsafe {
        if pg_sys::ActivePortal.is_null() && !pg_sys::ActiveSnapshotSet() {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
    }
}

/// Drops what `ensure` gave.
pub fn drop_all() {
    // SAFETY: nothing that needs the snapshot is in use any more.
    unsafe {
        while pg_sys::ActiveSnapshotSet() {
            pg_sys::PopActiveSnapshot();
        }
    }
}
