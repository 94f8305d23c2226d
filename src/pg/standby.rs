//! Synchronous standbys: commits that let go of their locks before a standby is waited for.
//!
//! PostgreSQL waits within the commit, while the transaction still has all its locks, and turns a cancellation of that
//! wait into a WARNING (`SyncRepWaitForLSN` in `syncrep.c`). Here the commit is local, and the wait comes after it,
//! where nothing is locked and a cancellation ends the CALL.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::pg_sys::SyncCommitLevel as Level;

use crate::pg::interrupts;
use crate::pg::tx::Tx;
use crate::pg::{message, settings, usage};

/// A nearby standby usually answers within this time; until then it is polled in short naps.
const SOON: Duration = Duration::from_millis(3);
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(5);

/// What the session asks of its commits (`synchronous_commit`), while one of ours is under way.
pub struct Durability {
    level: u32,
    /// The transaction has an ID, so that its commit is worth waiting for.
    wrote: bool,
}

impl Durability {
    /// Has the commit of this transaction wait for the local disk alone. [`Durability::reach`] does the rest.
    pub fn local_first(tx: &Tx) -> Self {
        // SAFETY: an integer of this backend, which PostgreSQL keeps within the enum.
        let level = unsafe { pg_sys::synchronous_commit.unsigned_abs() };
        let wrote = tx.has_written();
        if wrote && level > Level::SYNCHRONOUS_COMMIT_LOCAL_FLUSH {
            settings::set_local_commit_to_local(tx);
        }
        Durability { level, wrote }
    }

    /// Waits, after the commit, until the synchronous standbys have come as far as the session asks. `commit_id` commits a
    /// transaction that has an ID and does nothing.
    ///
    /// Standbys report at once how far they have replayed for commits that were made under `remote_apply`, and otherwise
    /// every `wal_receiver_status_interval`. That one was; having written nothing but its commit record, it waits neither
    /// for the standby itself nor for the disk.
    ///
    /// # Errors
    /// PostgreSQL's 57014 when it is cancelled; what was committed stays.
    pub fn reach(&self, commit_id: impl FnOnce()) {
        if !self.wrote || !standbys_are_awaited(self.level) {
            return;
        }
        if self.level == Level::SYNCHRONOUS_COMMIT_REMOTE_APPLY {
            commit_id();
            // SAFETY: the end of this backend's last commit record.
            unsafe { pg_sys::XLogFlush(pg_sys::XactLastCommitEnd) };
        }
        // SAFETY: the end of this backend's last commit record.
        let end = unsafe { pg_sys::XactLastCommitEnd };
        let began = Instant::now();
        while standbys_are_awaited(self.level) && confirmed(self.level) < end {
            warn_if_interrupted();
            interrupts::check();
            // The standby may be taken off the list, which only the configuration tells.
            settings::reload_if_asked();
            if began.elapsed() < SOON {
                std::thread::sleep(SHORT_NAP);
            } else {
                usage::sleep_for(LONG_NAP, pg_sys::WaitEventIPC::WAIT_EVENT_SYNC_REP);
            }
        }
    }
}

/// Whether commits of this level wait for a standby (`SyncRepRequested` and `SyncStandbysDefined`).
fn standbys_are_awaited(level: u32) -> bool {
    // SAFETY: settings of this backend; a text setting is null or NUL-terminated.
    unsafe {
        level > Level::SYNCHRONOUS_COMMIT_LOCAL_FLUSH
            && pg_sys::max_wal_senders > 0
            && !pg_sys::SyncRepStandbyNames.is_null()
            && *pg_sys::SyncRepStandbyNames != 0
    }
}

/// Up to where the synchronous standbys have confirmed what commits of this level wait for.
fn confirmed(level: u32) -> pg_sys::XLogRecPtr {
    let mode = match level {
        Level::SYNCHRONOUS_COMMIT_REMOTE_WRITE => pg_sys::SYNC_REP_WAIT_WRITE,
        Level::SYNCHRONOUS_COMMIT_REMOTE_APPLY => pg_sys::SYNC_REP_WAIT_APPLY,
        _ => pg_sys::SYNC_REP_WAIT_FLUSH,
    };
    // SAFETY: shared memory that lives as long as the server. The WAL senders write the eight bytes at once; a value
    // read too early is read again.
    unsafe { std::ptr::read_volatile(&raw const (*pg_sys::WalSndCtl).lsn[mode as usize]) }
}

/// As PostgreSQL says when a cancellation comes into that wait: the error alone could be taken for a rollback.
fn warn_if_interrupted() {
    // SAFETY: flags that signal handlers set.
    let interrupted = unsafe { pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0 };
    if interrupted {
        message::warning(
            "canceling the wait for synchronous replication".into(),
            "The transaction has already committed locally, but might not have been replicated to the standby.",
            None,
        );
    }
}

/// How far the standby has replayed that this process sends WAL to; `None` if it sends none any more.
pub fn replayed(sender: i32) -> Option<u64> {
    // SAFETY: shared memory that lives as long as the server, an array of max_wal_senders. The WAL senders write the
    // eight bytes at once; a value read too early is read again.
    unsafe {
        let senders = std::slice::from_raw_parts(
            (*pg_sys::WalSndCtl).walsnds.as_ptr(),
            pg_sys::max_wal_senders.unsigned_abs() as usize,
        );
        let sender = senders.iter().find(|slot| slot.pid == sender)?;
        Some(std::ptr::read_volatile(&raw const sender.apply))
    }
}

/// Whether WAL is sent to anybody.
pub fn is_any_connected() -> bool {
    // SAFETY: as in `replayed`.
    unsafe {
        let senders = std::slice::from_raw_parts(
            (*pg_sys::WalSndCtl).walsnds.as_ptr(),
            pg_sys::max_wal_senders.unsigned_abs() as usize,
        );
        senders.iter().any(|slot| slot.pid != 0)
    }
}

/// The end of all WAL that is written or being written.
pub fn wal_end() -> u64 {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::GetXLogInsertRecPtr() }
}
