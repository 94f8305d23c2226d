//! Transactions and their commits inside one CALL.

use pgrx::pg_sys;

use crate::pg::settings;
use crate::pg::spi::Connection;
use crate::pg::standby::Durability;
use crate::pg::tx::Tx;

/// Runs `work` in the transaction of a CALL and commits it; the next transaction has begun when this returns.
///
/// All that PostgreSQL allocated for `work` is freed. An error leaves the transaction to be rolled back by the
/// error's way out of the CALL. Locks are let go before a synchronous standby is waited for. The session's
/// `lock_timeout` does not count: the steps set their own. For the driver of the run alone.
///
/// # Errors
/// Those of `work`, and PostgreSQL's 57014 when the wait for a standby is cancelled.
pub fn commit_within_call<T, E>(work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
    let connection = Connection::open_nonatomic();
    read_committed();
    let tx = Tx::of_this_thread();
    settings::wait_for_locks_without_limit(&tx);
    let result = work(&tx)?;
    let durability = Durability::local_first(&tx);
    connection.commit();
    durability.reach();
    Ok(result)
}

/// Runs `work` in the transaction of the statement that calls this extension, and commits nothing.
#[cfg(any(test, feature = "pg_test"))]
pub fn within_statement<T>(work: impl FnOnce(&Tx) -> T) -> T {
    let _connection = Connection::open_nonatomic();
    work(&Tx::of_this_thread())
}

/// Ends the transaction that has begun after a commit and done nothing, has PostgreSQL add what this backend has counted
/// to its statistics, and begins the next transaction.
///
/// A backend does this by itself only between two statements. PostgreSQL adds at most once in a second.
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
pub fn report_statistics_within_call(procedure: pg_sys::Oid) {
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

/// The next transaction ID that the server will give to anyone; it wraps around.
pub fn next_id() -> u32 {
    // SAFETY: reads shared memory under the lock it needs.
    unsafe { pg_sys::ReadNextTransactionId() }.into_inner()
}
