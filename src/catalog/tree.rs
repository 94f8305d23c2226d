//! A table and all tables below it: partitions, or children by inheritance.

use pgrx::pg_sys;

use crate::pg::tx::Tx;

/// A member of a tree of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// It can have rows: anything but a partitioned table.
    pub has_rows: bool,
}

const TREE: &str = "
    WITH RECURSIVE tree AS (
        SELECT $1::oid AS oid, 0 AS depth
        UNION
        SELECT i.inhrelid, depth + 1 FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
        WHERE NOT i.inhdetachpending)
    SELECT c.oid, c.relkind <> 'p' FROM tree JOIN pg_class c USING (oid)
    GROUP BY c.oid, c.relkind
    ORDER BY max(depth), c.oid";

/// `table`, which comes first, and all tables below it, each after all its parents.
pub fn members(tx: &Tx, table: pg_sys::Oid) -> Vec<Member> {
    tx.catalog(TREE, &[&table])
        .iter()
        .filter_map(|row| {
            Some(Member {
                oid: row.get(1)?,
                has_rows: row.get(2)?,
            })
        })
        .collect()
}

/// The OIDs of [`members`], in their order.
pub fn oids(tx: &Tx, table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    members(tx, table).iter().map(|member| member.oid).collect()
}

const CONTAINS: &str = "
    WITH RECURSIVE above AS (
        SELECT $2::oid AS oid
        UNION
        SELECT i.inhparent FROM pg_inherits i JOIN above ON i.inhrelid = above.oid
        WHERE NOT i.inhdetachpending)
    SELECT EXISTS (SELECT FROM above WHERE oid = $1)";

/// Whether `member` is `table` or one of the tables below it.
pub fn contains(tx: &Tx, table: pg_sys::Oid, member: pg_sys::Oid) -> bool {
    tx.catalog_value(CONTAINS, &[&table, &member])
        .unwrap_or(false)
}

/// The tables below `table` that have rows, itself included if it can have any, in the order of their OIDs.
pub fn leaves(tx: &Tx, table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut leaves: Vec<_> = members(tx, table)
        .iter()
        .filter(|member| member.has_rows)
        .map(|member| member.oid)
        .collect();
    leaves.sort_unstable_by_key(|oid| oid.to_u32());
    leaves
}
