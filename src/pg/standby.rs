//! Standbys: how far they are, and commits that let go of their locks before a synchronous one is waited for.
//!
//! PostgreSQL waits within the commit, while the transaction still has all its locks, and turns a cancellation of that
//! wait into a WARNING (`SyncRepWaitForLSN` in `syncrep.c`). Here the commit is local, and the wait comes after it,
//! where nothing is locked and a cancellation ends the CALL.

use pgrx::pg_sys;
use pgrx::pg_sys::SyncCommitLevel as Level;

use crate::pg::settings;
use crate::pg::tx::Tx;

/// What the session asks of its commits (`synchronous_commit`), while one of ours is under way.
pub struct Durability {
    level: u32,
    /// The transaction has an ID, so that its commit is worth waiting for.
    wrote: bool,
}

/// A commit that synchronous standbys are to confirm.
#[derive(Debug, Clone, Copy)]
pub struct Unconfirmed {
    level: u32,
    end: pg_sys::XLogRecPtr,
    /// Another transaction ID was taken so that standbys report at once.
    pub took_id: bool,
}

impl Durability {
    /// Has the commit of this transaction wait for the local disk alone. [`Durability::after_commit`] tells what else the
    /// session asks for.
    pub fn local_first(tx: &Tx) -> Self {
        // SAFETY: an integer of this backend, which PostgreSQL keeps within the enum.
        let level = unsafe { pg_sys::synchronous_commit.unsigned_abs() };
        let wrote = tx.has_written();
        if wrote && level > Level::SYNCHRONOUS_COMMIT_LOCAL_FLUSH {
            settings::set_local_commit_to_local(tx);
        }
        Durability { level, wrote }
    }

    /// What the synchronous standbys are to confirm after the commit, if anything. `commit_id` commits a transaction that
    /// has an ID and does nothing.
    ///
    /// Standbys report at once how far they have replayed for commits that were made under `remote_apply`, and otherwise
    /// every `wal_receiver_status_interval`. That one was; having written nothing but its commit record, it waits neither
    /// for the standby itself nor for the disk.
    pub fn after_commit(&self, commit_id: impl FnOnce()) -> Option<Unconfirmed> {
        let level = self.level;
        if !self.wrote || !standbys_are_awaited(level) {
            return None;
        }
        let replays = level == Level::SYNCHRONOUS_COMMIT_REMOTE_APPLY;
        if replays {
            commit_id();
        }
        // SAFETY: the end of this backend's last commit record.
        let end = unsafe { pg_sys::XactLastCommitEnd };
        if replays {
            // SAFETY: flushes what was written.
            unsafe { pg_sys::XLogFlush(end) };
        }
        Some(Unconfirmed {
            level,
            end,
            took_id: replays,
        })
    }
}

impl Unconfirmed {
    /// Whether no standby is to be waited for any more: they have confirmed it, or the configuration requires none now.
    pub fn is_confirmed(&self) -> bool {
        !standbys_are_awaited(self.level) || confirmed(self.level) >= self.end
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
