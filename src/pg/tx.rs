//! A transaction that is open, and subtransactions within it.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use crate::pg::failure::Failure;

/// A transaction that is open, with a connection to SPI.
///
/// Whatever needs one takes `&Tx`; what must not outlive it (rows, open tables) borrows from it.
pub struct Tx {
    /// A transaction belongs to the thread that PostgreSQL runs in.
    _of_this_thread: PhantomData<*const ()>,
}

impl Tx {
    /// The transaction that PostgreSQL is in. For [`crate::pg::transaction`] alone.
    pub(super) fn of_this_thread() -> Self {
        Tx {
            _of_this_thread: PhantomData,
        }
    }
}

impl Tx {
    /// The ID of the innermost (sub)transaction, or `None` while it has written nothing.
    pub fn current_id(&self) -> Option<pg_sys::TransactionId> {
        // SAFETY: reads the state of the transaction.
        let id = unsafe { pg_sys::GetCurrentTransactionIdIfAny() };
        (id != pg_sys::TransactionId::INVALID).then_some(id)
    }

    /// Whether the transaction, or a subtransaction of it, has an ID: nothing can be written without one.
    pub fn has_written(&self) -> bool {
        // SAFETY: reads the state of the transaction.
        let id = unsafe { pg_sys::GetTopTransactionIdIfAny() };
        id != pg_sys::TransactionId::INVALID
    }

    /// The ID of the whole transaction, which gets one if it has none.
    pub fn id(&self) -> u32 {
        // SAFETY: we are inside a transaction that may write.
        unsafe { pg_sys::GetTopTransactionId() }.into_inner()
    }
}

/// What becomes of a subtransaction whose work has succeeded.
#[derive(Clone, Copy)]
enum Outcome {
    Kept,
    Undone,
}

/// The result of work that may meet a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt<T> {
    /// It succeeded.
    Done(T),
    /// A lock was not available in time, or a deadlock was found. Everything it did was undone. Holds the error's
    /// message.
    Locked(String),
}

impl Tx {
    /// Runs `work` in a subtransaction, which is undone if a lock makes it fail. Any other error is passed on.
    pub fn attempt<T>(&self, work: impl FnOnce() -> T) -> Attempt<T> {
        const LOCK_FAILURES: &[PgSqlErrorCode] = &[
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED,
        ];
        match self.attempt_except(LOCK_FAILURES, work) {
            Ok(result) => Attempt::Done(result),
            Err(failure) => Attempt::Locked(failure.message),
        }
    }

    /// Runs `work` in a subtransaction. An error with one of these SQLSTATEs undoes it and is returned as `Err`; any
    /// other is passed on.
    ///
    /// The saving and restoring of memory context and resource owner follows PL/pgSQL's exception blocks
    /// (`exec_stmt_block` in `pl_exec.c`).
    pub fn attempt_except<T>(
        &self,
        codes: &[PgSqlErrorCode],
        work: impl FnOnce() -> T,
    ) -> Result<T, Failure> {
        self.attempt_if(|failure| codes.contains(&failure.code()), work)
    }

    /// Runs `work` in a subtransaction. An error that is `expected` undoes it and is returned as `Err`; any other is
    /// passed on.
    pub fn attempt_if<T>(
        &self,
        expected: impl Fn(&Failure) -> bool,
        work: impl FnOnce() -> T,
    ) -> Result<T, Failure> {
        self.within_subtransaction(Outcome::Kept, expected, work)
    }

    /// Runs `work`, then undoes whatever it did, and releases the locks that it took. Errors are passed on.
    pub fn undone<T>(&self, work: impl FnOnce() -> T) -> Result<T, Failure> {
        self.within_subtransaction(Outcome::Undone, |_| false, work)
    }

    fn within_subtransaction<T>(
        &self,
        outcome: Outcome,
        expected: impl Fn(&Failure) -> bool,
        work: impl FnOnce() -> T,
    ) -> Result<T, Failure> {
        // SAFETY: both are valid for the whole transaction; they are restored on both ways out.
        let (context, owner) =
            unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
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
        let expected = AssertUnwindSafe(expected);
        PgTryBuilder::new(AssertUnwindSafe(|| {
            let result = work();
            // SAFETY: the subtransaction begun above is the innermost one again; the work left it as it found it. What it
            // returns does not depend on it.
            unsafe {
                match outcome {
                    Outcome::Kept => pg_sys::ReleaseCurrentSubTransaction(),
                    Outcome::Undone => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
                }
            }
            restore();
            Ok(result)
        }))
        .catch_others(move |error| {
            let expected = &expected;
            // If it were left open, the error would roll back only this subtransaction, and not the transaction around
            // it. SAFETY: the subtransaction begun above is the innermost one, since PostgreSQL has unwound to here.
            unsafe {
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
            restore();
            let failure = Failure::of(&error);
            match expected.0(&failure) {
                true => Err(failure),
                false => error.rethrow(),
            }
        })
        .execute()
    }
}
