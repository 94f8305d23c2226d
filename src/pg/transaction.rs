//! Transactions, commits and subtransactions inside one CALL.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use crate::error::Error;
use crate::pg::spi::Connection;
use crate::pg::standby::Durability;
use crate::pg::{postmaster, settings};

/// Runs `work` with SPI and commits it; the next transaction has begun when this returns.
///
/// All that PostgreSQL allocated for `work` is freed. An error leaves the transaction to be rolled back by the
/// error's way out of the CALL. Locks are let go before a synchronous standby is waited for. The session's
/// `lock_timeout` does not count: the steps set their own.
///
/// # Errors
/// Those of `work`, and PostgreSQL's 57014 when the wait for a standby is cancelled.
pub fn commit_after<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    transact(work)
}

/// [`commit_after`] for work that can end in more ways than an [`Error`].
///
/// # Errors
/// Those of [`commit_after`].
pub fn transact<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    postmaster::require_alive();
    let connection = Connection::open_nonatomic();
    read_committed();
    settings::wait_for_locks_without_limit();
    let result = work()?;
    let durability = Durability::local_first();
    connection.commit();
    durability.reach();
    Ok(result)
}

/// Batches look at each row anew after waiting for its lock, whatever the session's default isolation is.
///
/// Without effect in the first transaction of a CALL, whose snapshot is taken already.
fn read_committed() {
    // SAFETY: an integer of this backend; it may change while the transaction has no snapshot, and in the first
    // transaction of a CALL only the catalogs are read.
    unsafe {
        if !pg_sys::FirstSnapshotSet {
            pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        }
    }
}

/// The ID of the innermost (sub)transaction, or `None` while it has written nothing.
pub fn current_id() -> Option<pg_sys::TransactionId> {
    // SAFETY: reads the state of the transaction that surrounds every call of this extension.
    let id = unsafe { pg_sys::GetCurrentTransactionIdIfAny() };
    (id != pg_sys::TransactionId::INVALID).then_some(id)
}

/// The next transaction ID that the server will give to anyone; it wraps around.
pub fn next_id() -> u32 {
    // SAFETY: reads shared memory under the lock it needs.
    unsafe { pg_sys::ReadNextTransactionId() }.into_inner()
}

/// What became of work that may meet a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt<T> {
    /// It went through.
    Done(T),
    /// A lock was not to be had in time, or a deadlock was found; everything it did was undone. With the message of
    /// the error.
    Locked(String),
}

/// Runs `work` in a subtransaction that is undone when it fails for a lock. Any other error goes on its way.
pub fn attempt<T>(work: impl FnOnce() -> T) -> Attempt<T> {
    const LOCK_FAILURES: &[PgSqlErrorCode] = &[
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED,
    ];
    match attempt_except(LOCK_FAILURES, work) {
        Ok(result) => Attempt::Done(result),
        Err(failure) => Attempt::Locked(failure.message),
    }
}

/// An error that undid a subtransaction.
#[derive(Debug)]
pub struct Failure {
    code: PgSqlErrorCode,
    message: String,
}

/// Runs `work` in a subtransaction. An error with one of these SQLSTATEs undoes it and comes back as `Err`; any other
/// goes on its way.
///
/// The saving and restoring of memory context and resource owner follows PL/pgSQL's exception blocks
/// (`exec_stmt_block` in `pl_exec.c`).
pub fn attempt_except<T>(codes: &[PgSqlErrorCode], work: impl FnOnce() -> T) -> Result<T, Failure> {
    // SAFETY: both are valid for the whole transaction; they are restored on both ways out.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: we are inside a transaction; the subtransaction is ended on both ways out, and by the
    // surrounding abort when an error passes through.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
    }
    let restore = || {
        // SAFETY: both outlive the subtransaction.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let result = work();
        // SAFETY: the subtransaction begun above is the innermost one again; the work left it as it found it.
        unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        restore();
        Ok(result)
    }))
    .catch_others(|error| {
        // Left open, it alone would be rolled back by the error, and not the transaction around it.
        // SAFETY: the subtransaction begun above is the innermost one, since PostgreSQL has unwound to here.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        restore();
        match failure(&error) {
            Some(failure) if codes.contains(&failure.code) => Err(failure),
            _ => error.rethrow(),
        }
    })
    .execute()
}

fn failure(error: &CaughtError) -> Option<Failure> {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => Some(Failure {
            code: report.sql_error_code(),
            message: report.message().into(),
        }),
        CaughtError::RustPanic { .. } => None,
    }
}

/// Ends the CALL if it was cancelled or its backend terminated.
pub fn check_for_interrupts() {
    pg_sys::check_for_interrupts!();
}
