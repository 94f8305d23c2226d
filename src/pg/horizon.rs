//! The xmin horizon: which dead row versions may be pruned.

use pgrx::pg_sys;

use crate::pg::heap::Table;

/// Whether the row versions of `table` that transaction `id` made dead can be pruned now.
///
/// Every snapshot, prepared transaction, replication slot and standby with feedback counts, as in
/// `ComputeXidHorizons` of PostgreSQL's `procarray.c`.
pub fn has_passed(table: &Table<'_>, id: pg_sys::TransactionId) -> bool {
    // SAFETY: the relation is open for as long as `table` lives.
    unsafe {
        let oldest = pg_sys::GetOldestNonRemovableTransactionId(table.relation());
        pg_sys::TransactionIdPrecedes(id, oldest)
    }
}
