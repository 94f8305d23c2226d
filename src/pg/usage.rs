//! What this backend has done so far, by PostgreSQL's own counters.

use pgrx::{direct_function_call, pg_sys};

use crate::pg::tx::Tx;

/// Bytes of WAL that this backend has written since it began.
pub fn wal_bytes() -> u64 {
    // SAFETY: a counter of this backend alone.
    unsafe { pg_sys::pgWalUsage.wal_bytes }
}

/// Flushes all WAL that this transaction has written so far, as its commit would.
pub fn flush_wal(_tx: &Tx) {
    // SAFETY: the end of this backend's last WAL record; commits flush up to the same place.
    unsafe { pg_sys::XLogFlush(pg_sys::XactLastRecEnd) };
}

/// HOT updates of a table that this backend has counted and not yet reported; 0 while `track_counts` is off.
pub fn hot_updates(_tx: &Tx, table: pg_sys::Oid) -> i64 {
    // SAFETY: a built-in function of one OID argument, called with one.
    let counted = unsafe {
        direct_function_call::<i64>(
            pg_sys::pg_stat_get_xact_tuples_hot_updated,
            &[Some(pg_sys::Datum::from(table))],
        )
    };
    counted.unwrap_or(0)
}

/// Whether `track_counts` is on, without which HOT updates are not counted.
pub fn counts_updates() -> bool {
    // SAFETY: a setting of this backend.
    unsafe { pg_sys::pgstat_track_counts }
}

/// A number of bytes as `pg_size_pretty` gives it.
pub fn size_pretty(bytes: u64) -> String {
    // SAFETY: a built-in function of one bigint, called with one; it returns text.
    let pretty = unsafe {
        direct_function_call::<String>(
            pg_sys::pg_size_pretty,
            &[Some(pg_sys::Datum::from(bytes.cast_signed()))],
        )
    };
    pretty.unwrap_or_default()
}

/// The process ID of this backend.
pub fn pid() -> i32 {
    // SAFETY: set once at the start of the backend.
    unsafe { pg_sys::MyProcPid }
}

/// Sleeps, but ends with cancellation and termination.
pub fn sleep(time: std::time::Duration) {
    nap(time, pg_sys::PG_WAIT_EXTENSION);
    super::interrupts::check();
}

/// Sleeps, but wakes for cancellation and termination; shown in `pg_stat_activity` as the wait of a commit for a
/// synchronous standby.
pub fn sleep_for_standby(time: std::time::Duration) {
    nap(time, pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP);
}

fn nap(time: std::time::Duration, wait_event: u32) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch of this backend, waited on in the manner of `pg_sleep`.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            time.as_millis().clamp(1, i32::MAX as u128) as _,
            wait_event,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}
