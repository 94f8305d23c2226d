//! Background workers: how they are started, and how they begin.

use std::ffi::{CString, c_int};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker,
};
use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::pg_sys;

use crate::pg::tx::Tx;
use crate::pg::usage;

/// The library, as `shared_preload_libraries` names it.
const LIBRARY: &str = "pg_safe_backfill";

unsafe extern "C-unwind" {
    /// From PostgreSQL's `tcop/tcopprot.h`: a handler that ends the process at the next check for interrupts. pgrx binds
    /// it as a function to be called, and not as a handler.
    fn die(signal: c_int);
    /// From PostgreSQL's `postmaster/interrupt.h`, likewise: a handler that has the configuration read again.
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// What a worker is to do, and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The database.
    pub database: pg_sys::Oid,
    /// The role; the one that initialized the cluster if it is invalid.
    pub role: pg_sys::Oid,
    /// The number of the job.
    pub job: i64,
    /// The transaction that has written the job, which the worker waits for; 0 for none.
    pub transaction: u32,
    /// The segment that the processes of a run share, for a worker that helps; 0 for none.
    pub segment: u32,
    /// The number of the worker among those processes.
    pub worker: u32,
    /// How many there are.
    pub of: u32,
}

impl Start {
    /// For a worker in the database of this process that is to do nothing yet.
    pub fn here() -> Self {
        Start {
            database: database(),
            role: pg_sys::InvalidOid,
            job: 0,
            transaction: 0,
            segment: 0,
            worker: 0,
            of: 1,
        }
    }
}

/// A worker that this process has started.
pub struct Worker(DynamicBackgroundWorker);

impl Worker {
    /// Whether it has ended, or could not be started.
    pub fn has_ended(&self) -> bool {
        use BackgroundWorkerStatus::{PostmasterDied, Stopped};
        matches!(self.0.pid(), Err(Stopped | PostmasterDied))
    }

    /// Has it terminated, if it has not ended.
    pub fn terminate(self) {
        self.0.terminate();
    }

    /// Waits until it has ended, though not for longer than this.
    pub fn wait_for_end(&self, longest: Duration) {
        const POLL: Duration = Duration::from_millis(10);
        let began = Instant::now();
        while !self.has_ended() && began.elapsed() < longest {
            usage::sleep(POLL);
        }
    }
}

/// Whether the process of this number is connected to a database, so that it may commit yet.
pub fn is_connected(pid: i32) -> bool {
    // SAFETY: takes the lock that it needs; the result is compared only.
    unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

/// Starts a worker that calls this C function of the library; `None` if no slot is free.
pub fn start(name: &str, function: &str, start: Start) -> Option<Worker> {
    let extra = format!(
        "{} {} {} {} {} {}",
        start.database.to_u32(),
        start.role.to_u32(),
        start.transaction,
        start.segment,
        start.worker,
        start.of
    );
    // PostgreSQL's handle outlives the transaction.
    // SAFETY: that context lives as long as this process, and the other one is gone back to.
    let context = unsafe { pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext) };
    let started = BackgroundWorkerBuilder::new(name)
        .set_type("pg_safe_backfill")
        .set_library(LIBRARY)
        .set_function(function)
        .set_argument(start.job.into_datum())
        .set_extra(&extra)
        .set_restart_time(None)
        .set_notify_pid(usage::pid())
        .enable_spi_access()
        .load_dynamic();
    // SAFETY: the context was current before.
    unsafe { pg_sys::MemoryContextSwitchTo(context) };
    started.ok().map(Worker)
}

/// Registers a worker that starts with the server. Only while `shared_preload_libraries` are loaded.
pub fn register(name: &str, function: &str) {
    BackgroundWorkerBuilder::new(name)
        .set_type("pg_safe_backfill")
        .set_library(LIBRARY)
        .set_function(function)
        .set_restart_time(Some(Duration::from_secs(5)))
        .enable_spi_access()
        .load();
}

/// Whether the library is being loaded by the postmaster, for all processes.
pub fn is_preloading() -> bool {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// What the worker that runs was started for.
pub fn begin(argument: pg_sys::Datum) -> Option<Start> {
    // SAFETY: the argument is what `start` gave: a bigint.
    let job = unsafe { i64::from_datum(argument, false) }?;
    let mut extra = BackgroundWorker::get_extra()
        .split(' ')
        .map_while(|number| number.parse::<u32>().ok());
    Some(Start {
        database: pg_sys::Oid::from(extra.next()?),
        role: pg_sys::Oid::from(extra.next()?),
        job,
        transaction: extra.next()?,
        segment: extra.next()?,
        worker: extra.next()?,
        of: extra.next()?,
    })
}

/// Lets the worker be terminated and told to read the configuration, as any backend.
pub fn heed_signals() {
    // SAFETY: both handlers are PostgreSQL's own, and set flags alone.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let set = |signal, handler| pg_sys::pqsignal(signal, handler);
        #[cfg(feature = "pg18")]
        let set = |signal, handler| pg_sys::pqsignal_be(signal, handler);
        set(pg_sys::SIGTERM as c_int, Some(die));
        set(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Connects the worker to a database as a role, with their settings; to the shared catalogs alone if the database is
/// invalid.
pub fn connect(database: pg_sys::Oid, role: pg_sys::Oid) {
    // SAFETY: called once, at the beginning of a background worker with access to shared memory.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role, LOGIN_CHECK);
        pg_sys::before_shmem_exit(Some(release_locks), pg_sys::Datum::from(0));
    }
}

/// Releases session locks when the worker ends. PostgreSQL does so when it ends a transaction, and between two of them a
/// worker is in none.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn release_locks(_code: c_int, _argument: pg_sys::Datum) {
    // SAFETY: as PostgreSQL itself does when a process ends (`ShutdownPostgres` in `postinit.c`); the transaction, if there
    // is one, is ended first, as there.
    unsafe {
        pg_sys::AbortOutOfAnyTransaction();
        pg_sys::LockReleaseAll(pg_sys::DEFAULT_LOCKMETHOD as u16, true);
    }
}

/// Shows what the worker does as its query in `pg_stat_activity`.
pub fn describe(text: &str) {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the text is NUL-terminated, and copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) };
}

/// From PostgreSQL 17 on a worker may run as a role that cannot log in.
#[cfg(any(feature = "pg17", feature = "pg18"))]
const LOGIN_CHECK: u32 = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
const LOGIN_CHECK: u32 = 0;

/// Whether workers can run as roles that cannot log in.
pub const RUNS_AS_ANYONE: bool = LOGIN_CHECK != 0;

/// Waits until a transaction of another session has ended.
pub fn wait_for_transaction(_tx: &Tx, id: u32) {
    let id = pg_sys::TransactionId::from(id);
    if id == pg_sys::TransactionId::INVALID {
        return;
    }
    // SAFETY: waits for the lock that a transaction has on its own ID; one that has ended has none.
    unsafe {
        pg_sys::XactLockTableWait(
            id,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::XLTW_Oper::XLTW_None,
        )
    };
}

/// The database that this process is connected to.
pub fn database() -> pg_sys::Oid {
    // SAFETY: set once at the start of the process.
    unsafe { pg_sys::MyDatabaseId }
}

/// Sleeps until the worker is signalled.
pub fn wait_for_signals() {
    BackgroundWorker::wait_latch(None);
    super::interrupts::check();
}
