//! Transactions and their commits: inside one CALL, and in a background worker.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgTryBuilder, pg_sys};

use crate::pg::failure::Failure;
use crate::pg::settings;
use crate::pg::snapshot;
use crate::pg::spi::Connection;
use crate::pg::standby::{Durability, Unconfirmed};
use crate::pg::tx::Tx;

/// What transactions are begun and committed by. Only the driver of a run has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A CALL of this procedure.
    Call(pg_sys::Oid),
    /// The start of a background worker.
    Worker,
}

impl Way {
    /// Runs `work` in a transaction and commits it on this server. Also returns what synchronous standbys are to confirm.
    ///
    /// # Errors
    /// Those of `work`; then nothing of the transaction is left.
    pub fn commit<T, E>(
        self,
        work: impl FnOnce(&Tx) -> Result<T, E>,
    ) -> Result<(T, Option<Unconfirmed>), E> {
        match self {
            Way::Call(_) => commit_within_call(work),
            Way::Worker => commit_within_worker(work),
        }
    }

    /// Rolls back what is not committed, after an error. Returns `false`, and does nothing, where a CALL is part of another
    /// statement.
    pub fn roll_back(self) -> bool {
        match self {
            Way::Call(procedure) => roll_back_within_call(procedure),
            Way::Worker => {
                roll_back_worker();
                true
            }
        }
    }

    /// Has PostgreSQL add what this process has counted to its statistics. Call it between transactions.
    pub fn report_statistics(self) {
        match self {
            Way::Call(procedure) => report_statistics_within_call(procedure),
            Way::Worker => report_statistics_within_worker(),
        }
    }
}

/// Runs `work` in the transaction of a CALL and commits it; the next transaction has begun when this returns.
///
/// All that PostgreSQL allocated for `work` is freed. No synchronous standby is waited for. The session's `lock_timeout`
/// has no effect, since the steps set their own.
///
/// # Errors
/// Those of `work`; then nothing of the transaction is left.
fn commit_within_call<T, E>(
    work: impl FnOnce(&Tx) -> Result<T, E>,
) -> Result<(T, Option<Unconfirmed>), E> {
    let connection = Connection::open_nonatomic();
    read_committed();
    let tx = Tx::of_this_thread();
    settings::wait_for_locks_without_limit(&tx);
    match work(&tx) {
        Ok(result) => {
            let durability = Durability::local_first(&tx);
            connection.commit();
            let unconfirmed = durability.after_commit(|| commit_id_within_call(&connection));
            Ok((result, unconfirmed))
        }
        Err(error) => {
            // A rollback releases session locks, such as the one on the column; the run may go on.
            match tx.has_written() {
                true => connection.roll_back(),
                false => connection.commit(),
            }
            Err(error)
        }
    }
}

/// Runs `work` in a transaction of a background worker, and commits it. Otherwise as [`commit_within_call`].
///
/// # Errors
/// Those of [`commit_within_call`].
fn commit_within_worker<T, E>(
    work: impl FnOnce(&Tx) -> Result<T, E>,
) -> Result<(T, Option<Unconfirmed>), E> {
    // SAFETY: the worker is between two transactions; an error of PostgreSQL's leaves this one to `roll_back_worker`.
    unsafe {
        // What `now()` gives, and the age of the transaction that others see.
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
    let (result, has_written) = {
        let _connection = Connection::open_atomic();
        read_committed();
        let tx = Tx::of_this_thread();
        settings::wait_for_locks_without_limit(&tx);
        let result = work(&tx).map(|result| (result, Durability::local_first(&tx)));
        (result, tx.has_written())
    };
    if result.is_err() && has_written {
        roll_back_worker();
    } else {
        snapshot::drop_all();
        // SAFETY: the transaction was begun above, and nothing of it is in use any more.
        unsafe { pg_sys::CommitTransactionCommand() };
    }
    let (result, durability) = result?;
    Ok((result, durability.after_commit(commit_id_within_worker)))
}

/// Commits a transaction of a CALL that has an ID and does nothing.
fn commit_id_within_call(connection: &Connection) {
    // SAFETY: the transaction that followed the last commit has done nothing yet.
    unsafe { pg_sys::GetCurrentTransactionId() };
    connection.commit();
}

/// Commits a transaction of a background worker that has an ID and does nothing.
fn commit_id_within_worker() {
    // SAFETY: the worker is between two transactions.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetCurrentTransactionId();
        pg_sys::CommitTransactionCommand();
    }
}

/// Ends the transaction of a background worker, if it is in one, and undoes it.
fn roll_back_worker() {
    // SAFETY: what the transaction has allocated, opened or locked is not used after it.
    unsafe { pg_sys::AbortCurrentTransaction() };
}

/// Lets PostgreSQL report this background worker's statistics. Call it between transactions.
fn report_statistics_within_worker() {
    // SAFETY: no transaction is open.
    unsafe { pg_sys::pgstat_report_stat(false) };
}

/// Runs `work` in the transaction of the statement that calls this extension, and commits nothing.
pub fn within_statement<T>(work: impl FnOnce(&Tx) -> T) -> T {
    let _connection = Connection::open_atomic();
    work(&Tx::of_this_thread())
}

/// Runs `work`. Shows an error of PostgreSQL's, or a panic, to `failed` and raises it again afterwards, or what that returns
/// in its place.
pub fn watch<T>(work: impl FnOnce() -> T, failed: impl FnOnce(&Failure) -> Option<Failure>) -> T {
    let mut failed = Some(AssertUnwindSafe(failed));
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(move |error| {
            let told = failed
                .take()
                .and_then(|failed| failed.0(&Failure::of(&error)));
            if let Some(told) = told {
                ErrorReport::from(told).report(PgLogLevel::ERROR);
            }
            error.rethrow()
        })
        .execute()
}

/// Runs `work`. Returns an error of PostgreSQL's, or a panic, as `Err`; whoever calls this rolls back then.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    let work = AssertUnwindSafe(|| Ok(work()));
    PgTryBuilder::new(work)
        .catch_others(|error| Err(Failure::of(&error)))
        .execute()
}

/// Rolls back the transaction of a CALL after an error, which the caller raises again afterwards, and begins the next
/// transaction.
///
/// `false`, with nothing done, unless the procedure is itself the statement that the client sent: a function or DO
/// block around it has resources of the transaction still in use.
fn roll_back_within_call(procedure: pg_sys::Oid) -> bool {
    // SAFETY: the portal that is active, if any, lives during the CALL. As PostgreSQL itself does at the end of every
    // statement that fails, and in `_SPI_commit` of `spi.c` before a failure goes on: the error was copied, and between
    // here and the portal is nothing that belongs to the transaction. The portal's snapshot ends with it.
    unsafe {
        if !is_statement_of_portal(procedure) {
            return false;
        }
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::AbortCurrentTransaction();
        (*pg_sys::ActivePortal).portalSnapshot = std::ptr::null_mut();
        pg_sys::StartTransactionCommand();
        pg_sys::MemoryContextSwitchTo(context);
    }
    true
}

/// Ends the transaction that began after a commit and has done nothing, lets PostgreSQL report this backend's
/// statistics, and begins the next transaction.
///
/// By itself a backend does this only between two statements. PostgreSQL reports at most once per second.
///
/// # Safety
/// The CALL is the statement that the client sent, not one of a function's, which would lose its SPI connection; it has
/// none itself.
unsafe fn report_statistics() {
    // SAFETY: the caller says so. As in commands that commit by themselves (`vacuum` in `vacuum.c`), what belongs to
    // the portal stays; its memory context is gone back to.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(false);
        pg_sys::StartTransactionCommand();
        pg_sys::MemoryContextSwitchTo(context);
    }
    // That transaction has the time of the CALL as its beginning; one that is begun through SPI has its own.
    Connection::open_nonatomic().commit();
}

/// Reports statistics if the procedure that runs is itself the statement that the client sent.
fn report_statistics_within_call(procedure: pg_sys::Oid) {
    // SAFETY: the portal that is active, if any, lives during the CALL. Its statement is a CALL of our procedure, so
    // that no function with an SPI connection of its own is in between.
    unsafe {
        if is_statement_of_portal(procedure) {
            report_statistics();
        }
    }
}

/// # Safety
/// Called while a statement runs.
unsafe fn is_statement_of_portal(procedure: pg_sys::Oid) -> bool {
    // SAFETY: a portal's statements live as long as it does; each cast follows the check of the node's tag.
    unsafe {
        let portal = pg_sys::ActivePortal;
        if portal.is_null() || (*portal).stmts.is_null() || (*(*portal).stmts).length != 1 {
            return false;
        }
        let planned: *mut pg_sys::PlannedStmt = (*(*(*portal).stmts).elements).ptr_value.cast();
        let statement = (*planned).utilityStmt;
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_CallStmt {
            return false;
        }
        let call = (*statement.cast::<pg_sys::CallStmt>()).funcexpr;
        !call.is_null() && (*call).funcid == procedure
    }
}

/// Makes batches read each row again after waiting for its lock, whatever the session's default isolation level is.
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

/// The next transaction ID that the server will give to anyone; it wraps around.
pub fn next_id() -> u32 {
    // SAFETY: reads shared memory under the lock it needs.
    unsafe { pg_sys::ReadNextTransactionId() }.into_inner()
}
