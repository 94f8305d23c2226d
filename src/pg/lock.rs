//! Locks on tables, and on a column, which prevent two runs on it at the same time.

use pgrx::pg_sys;

use crate::pg::tx::Tx;

/// A session lock on one column, of the kind PostgreSQL uses for objects other than tables.
///
/// It outlives commits and ends with the run, with an error, or with the session. DBAs see it in `pg_locks` as
/// `locktype = 'object'`, `classid = 'pg_class'::regclass`, `objid` the table, `objsubid` the column's number. Unlike
/// an advisory lock, no application can take it by chance.
pub struct ColumnLock {
    tag: pg_sys::LOCKTAG,
}

const MODE: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

impl ColumnLock {
    /// Takes the lock on column `number` of `table`, or `None` at once if another session has it.
    pub fn try_acquire(_tx: &Tx, table: pg_sys::Oid, number: i16) -> Option<Self> {
        let tag = pg_sys::LOCKTAG {
            // SAFETY: set once at the start of the backend.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: pg_sys::RelationRelationId.to_u32(),
            locktag_field3: table.to_u32(),
            locktag_field4: number as u16,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        // SAFETY: the tag outlives the call, which copies it.
        let result = unsafe { pg_sys::LockAcquire(&tag, MODE, true, true) };
        match result {
            pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => None,
            pg_sys::LockAcquireResult::LOCKACQUIRE_OK => Some(ColumnLock { tag }),
            _ => {
                // This session holds it already, for an outer run. Release the additional lock.
                drop(ColumnLock { tag });
                None
            }
        }
    }
}

impl ColumnLock {
    /// Whether the session still holds it: a rollback releases it.
    fn is_held(&self) -> bool {
        // SAFETY: reads this backend's own table of locks.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            return pg_sys::LockHeldByMe(&self.tag, MODE);
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            return pg_sys::LockHeldByMe(&self.tag, MODE, false);
        }
    }
}

impl Drop for ColumnLock {
    fn drop(&mut self) {
        // After an error, PostgreSQL releases it itself when it rolls back the transaction.
        if std::thread::panicking() || !self.is_held() {
            return;
        }
        // SAFETY: this session took the lock with the same tag and mode.
        unsafe { pg_sys::LockRelease(&self.tag, MODE, true) };
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
