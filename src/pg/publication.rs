//! Publications for logical replication.

use pgrx::pg_sys;

use crate::pg::tx::Tx;

/// Whether changes of a table would be published, now that the caller has it locked.
pub fn publishes(_tx: &Tx, table: pg_sys::Oid) -> bool {
    // SAFETY: the setting is this server's; the relation is open while it is asked for its publications, which
    // PostgreSQL remembers until one of them changes.
    unsafe {
        if pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 {
            return false;
        }
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let mut description = pg_sys::PublicationDesc::default();
        pg_sys::RelationBuildPublicationDesc(relation, &mut description);
        pg_sys::RelationClose(relation);
        let actions = description.pubactions;
        actions.pubinsert || actions.pubupdate || actions.pubdelete || actions.pubtruncate
    }
}
