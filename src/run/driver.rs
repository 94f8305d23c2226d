//! The one way to commit.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::call::Call;
use crate::pg::transaction;
use crate::pg::tx::Tx;
use crate::pg::{server, spi};

/// PostgreSQL adds what a backend has counted to its statistics once in a second at most.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs transactions, one after the other, in the way of whatever the run was started by: a CALL.
///
/// Whoever has one may commit; there is none in a transaction block, on a standby or in a read-only transaction.
pub struct Driver {
    procedure: pg_sys::Oid,
    in_transaction: Cell<bool>,
    reported_at: Cell<Instant>,
}

impl Driver {
    /// The driver of a CALL, which may commit and write.
    ///
    /// # Errors
    /// [`Error::TransactionBlock`], [`Error::HotStandby`], [`Error::ReadOnly`], [`Error::Encoding`].
    pub fn of_call(call: &Call) -> Result<Self, Error> {
        let procedure = call.procedure;
        spi::free_orphans();
        match () {
            () if server::is_standby() => Err(Error::HotStandby { procedure }),
            () if call.is_atomic() => Err(Error::TransactionBlock { procedure }),
            () if server::is_read_only() => Err(Error::ReadOnly { procedure }),
            () if !server::is_utf8() => Err(Error::Encoding { procedure }),
            () => Ok(Driver {
                procedure: call.oid(),
                in_transaction: Cell::new(false),
                reported_at: Cell::new(Instant::now()),
            }),
        }
    }

    /// Runs `work` in a transaction and commits it. Nothing of the transaction can outlive it.
    ///
    /// # Errors
    /// Those of `work`, which must not have written anything if the run goes on after them: what it wrote is committed with
    /// the next transaction, or rolled back by the error that ends the CALL. PostgreSQL's 57014 when the wait for a
    /// standby is cancelled.
    pub fn transaction<T, E>(&self, work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        if self.in_transaction.replace(true) {
            pgrx::error!("a transaction was begun within another one");
        }
        let result = transaction::commit_within_call(work);
        self.in_transaction.set(false);
        if result.is_ok() {
            self.report_statistics();
        }
        result
    }

    /// Lets autovacuum and others see what was done, while the run goes on.
    fn report_statistics(&self) {
        if self.reported_at.get().elapsed() >= STATISTICS_INTERVAL {
            self.reported_at.set(Instant::now());
            transaction::report_statistics_within_call(self.procedure);
        }
    }
}
