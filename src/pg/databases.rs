//! The databases of the cluster, for a process that is connected to none.

use pgrx::pg_sys;

use crate::pg::tx::Tx;

/// What `datconnlimit` is while a database is being dropped (`DATCONNLIMIT_INVALID_DB`).
const BEING_DROPPED: i32 = -2;

/// The databases that can be connected to, but for templates.
///
/// Without a database there is no catalog to parse a query with; so the table is read as the autovacuum launcher reads it
/// (`get_database_list` in `autovacuum.c`).
pub fn all(_tx: &Tx) -> Vec<pg_sys::Oid> {
    const LOCK: i32 = pg_sys::AccessShareLock as i32;
    let mut found = vec![];
    // SAFETY: the transaction has a snapshot while the table is scanned, which is shared by all databases and has rows of
    // this shape; what is opened is closed, or ends with the transaction after an error.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, LOCK);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let row = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if row.is_null() {
                break;
            }
            let database: *const pg_sys::FormData_pg_database = pg_sys::GETSTRUCT(row).cast();
            let is_open = (*database).datallowconn && !(*database).datistemplate;
            if is_open && (*database).datconnlimit != BEING_DROPPED {
                found.push((*database).oid);
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(table, LOCK);
        pg_sys::PopActiveSnapshot();
    }
    found
}
