//! Locks on tables, on a column, which prevent two runs on it at the same time, and on the extension.

use pgrx::pg_sys;

use crate::pg::tx::Tx;

/// A lock on an object other than a table that outlives commits and ends with its owner, with an error, or with the session.
struct SessionLock {
    tag: pg_sys::LOCKTAG,
    mode: pg_sys::LOCKMODE,
}

impl SessionLock {
    /// Takes the lock, or `None` at once if a conflicting one exists; with it, whether this session had it already.
    fn try_acquire(
        class: pg_sys::Oid,
        object: pg_sys::Oid,
        sub_object: u16,
        mode: u32,
    ) -> Option<(Self, bool)> {
        let tag = pg_sys::LOCKTAG {
            // SAFETY: set once at the start of the backend.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: class.to_u32(),
            locktag_field3: object.to_u32(),
            locktag_field4: sub_object,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let mode = mode as pg_sys::LOCKMODE;
        // SAFETY: the tag outlives the call, which copies it.
        let result = unsafe { pg_sys::LockAcquire(&tag, mode, true, true) };
        match result {
            pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => None,
            pg_sys::LockAcquireResult::LOCKACQUIRE_OK => Some((SessionLock { tag, mode }, false)),
            _ => Some((SessionLock { tag, mode }, true)),
        }
    }

    /// Whether the session still holds it: a rollback releases it.
    fn is_held(&self) -> bool {
        // SAFETY: reads this backend's own table of locks.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            return pg_sys::LockHeldByMe(&self.tag, self.mode);
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            return pg_sys::LockHeldByMe(&self.tag, self.mode, false);
        }
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        // After an error, PostgreSQL releases it itself when it rolls back the transaction.
        if std::thread::panicking() || !self.is_held() {
            return;
        }
        // SAFETY: this session took the lock with the same tag and mode.
        unsafe { pg_sys::LockRelease(&self.tag, self.mode, true) };
    }
}

/// A session lock on one column, of the kind PostgreSQL uses for objects other than tables.
///
/// DBAs see it in `pg_locks` as `locktype = 'object'`, `classid = 'pg_class'::regclass`, `objid` the table, `objsubid` the
/// column's number. Unlike an advisory lock, no application can take it by chance.
pub struct ColumnLock {
    _lock: SessionLock,
}

impl ColumnLock {
    /// Takes the lock on column `number` of `table`, or `None` at once if another session, or an outer run of this one,
    /// has it.
    pub fn try_acquire(_tx: &Tx, table: pg_sys::Oid, number: i16) -> Option<Self> {
        let (lock, had_before) = SessionLock::try_acquire(
            pg_sys::RelationRelationId,
            table,
            number as u16,
            pg_sys::ShareUpdateExclusiveLock,
        )?;
        (!had_before).then_some(ColumnLock { _lock: lock })
    }
}

/// A session lock on the extension, with which many sessions can work at the same time, but none can drop it.
pub struct ExtensionLock {
    _lock: SessionLock,
}

impl ExtensionLock {
    /// Takes the lock, or `None` at once if a session drops the extension or waits to do so.
    pub fn try_acquire(_tx: &Tx, extension: pg_sys::Oid) -> Option<Self> {
        let (lock, _) = SessionLock::try_acquire(
            pg_sys::ExtensionRelationId,
            extension,
            0,
            pg_sys::AccessShareLock,
        )?;
        Some(ExtensionLock { _lock: lock })
    }
}

/// How strongly a table is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLock {
    /// Nobody else may read or write: for a change of the catalogs.
    AccessExclusive,
    /// Everyone may read and write, and nobody change the table's definition: for a validation.
    ShareUpdateExclusive,
    /// Everyone may read and write: to write rows.
    RowExclusive,
    /// Everyone may read and write: to read rows.
    AccessShare,
}

impl TableLock {
    fn mode(self) -> pg_sys::LOCKMODE {
        let mode = match self {
            TableLock::AccessExclusive => pg_sys::AccessExclusiveLock,
            TableLock::ShareUpdateExclusive => pg_sys::ShareUpdateExclusiveLock,
            TableLock::RowExclusive => pg_sys::RowExclusiveLock,
            TableLock::AccessShare => pg_sys::AccessShareLock,
        };
        mode as pg_sys::LOCKMODE
    }
}

impl Tx {
    /// Locks a table until the end of the transaction, waiting at most `lock_timeout`.
    ///
    /// The table may be gone when this returns. The caller has made sure that the user may lock it.
    ///
    /// # Errors
    /// PostgreSQL's 55P03 and 40P01.
    pub fn lock_table(&self, table: pg_sys::Oid, lock: TableLock) {
        // SAFETY: any OID will do; the lock belongs to the current resource owner.
        unsafe { pg_sys::LockRelationOid(table, lock.mode()) };
    }

    /// Locks a table until the end of the transaction, or returns `false` at once if a conflicting lock exists.
    pub fn try_lock_table(&self, table: pg_sys::Oid, lock: TableLock) -> bool {
        // SAFETY: any OID will do; the lock belongs to the current resource owner.
        unsafe { pg_sys::ConditionalLockRelationOid(table, lock.mode()) }
    }
}
