//! A time limit for one query, within a statement that may run for hours.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::failure::Failure;
use crate::pg::tx::Tx;

// From PostgreSQL's `utils/timeout.h`; pgrx has no bindings of it.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: u32, handler: extern "C-unwind" fn()) -> u32;
    fn enable_timeout_after(id: u32, delay_ms: c_int);
    fn disable_timeout(id: u32, keep_indicator: bool);
}

/// `USER_TIMEOUT`: PostgreSQL assigns the next free one.
#[cfg(any(feature = "pg15", feature = "pg16"))]
const USER_TIMEOUT: u32 = 12;
#[cfg(any(feature = "pg17", feature = "pg18"))]
const USER_TIMEOUT: u32 = 13;

static IS_OVER: AtomicBool = AtomicBool::new(false);
static TIMEOUT: AtomicU32 = AtomicU32::new(u32::MAX);

/// Cancels the running query, as PostgreSQL's own timeout handlers do. Runs within a signal handler.
extern "C-unwind" fn cancel() {
    IS_OVER.store(true, Ordering::Relaxed);
    // SAFETY: flags that are made for signal handlers, and the latch of this process.
    unsafe {
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

/// Why work was not finished.
#[derive(Debug)]
pub enum Undone {
    /// It took too long.
    Late,
    /// It raised an error.
    Failed(Failure),
}

/// Runs `work`, which writes nothing, for at most `limit`.
///
/// # Errors [`Undone`]. PostgreSQL's 57014 and 57P01 are passed on if another session has cancelled the query.
pub fn within<T>(tx: &Tx, limit: Duration, work: impl FnOnce() -> T) -> Result<T, Undone> {
    IS_OVER.store(false, Ordering::Relaxed);
    let timeout = registered();
    let is_late = |failure: &Failure| {
        failure.code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED && IS_OVER.load(Ordering::Relaxed)
    };
    let result = tx.attempt_if(
        |failure| is_late(failure) || !failure.is_intervention(),
        || {
            let _armed = Armed::for_the_next(timeout, limit);
            work()
        },
    );
    result.map_err(|failure| match is_late(&failure) {
        true => Undone::Late,
        false => Undone::Failed(failure),
    })
}

fn registered() -> u32 {
    let known = TIMEOUT.load(Ordering::Relaxed);
    if known != u32::MAX {
        return known;
    }
    // SAFETY: the handler only sets flags; PostgreSQL gives an identifier of its own for it.
    let timeout = unsafe { RegisterTimeout(USER_TIMEOUT, cancel) };
    TIMEOUT.store(timeout, Ordering::Relaxed);
    timeout
}

/// A timeout that is running; PostgreSQL ends it, too, when it handles an error.
struct Armed(u32);

impl Armed {
    fn for_the_next(timeout: u32, limit: Duration) -> Self {
        let millis = limit.as_millis().clamp(1, i32::MAX as u128) as c_int;
        // SAFETY: the timeout is registered.
        unsafe { enable_timeout_after(timeout, millis) };
        Armed(timeout)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // SAFETY: the timeout is registered; without effect if it is not running.
        unsafe {
            disable_timeout(self.0, false);
            // The timeout may have fired after the work was done.
            if IS_OVER.load(Ordering::Relaxed) && !std::thread::panicking() {
                pg_sys::QueryCancelPending = 0;
            }
        }
    }
}
