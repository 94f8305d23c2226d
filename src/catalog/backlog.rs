//! Who is behind with the WAL: standbys, replication slots, the archiver; and who works on the same table.

use pgrx::pg_sys;

use crate::pg::role::acting_as;
use crate::pg::tx::Tx;

/// A standby that replays WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// The process that sends WAL to it.
    pub pid: i32,
    /// Its application name.
    pub name: String,
}

/// WAL that is kept for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name of the slot.
    pub slot: String,
    /// Whether anybody reads it.
    pub active: bool,
    /// Bytes.
    pub bytes: u64,
}

/// WAL that is to be archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archiving {
    /// Bytes, in whole segments.
    pub bytes: u64,
    /// The last attempt has failed.
    pub failing: bool,
}

/// The standbys that are connected, but for those of these names; asked with the rights of `role`, the extension's
/// owner, since PostgreSQL hides them from ordinary roles.
pub fn standbys(tx: &Tx, role: pg_sys::Oid, ignored: &[String]) -> Vec<Standby> {
    // Subscribers are left out: what they lag behind is seen in their slots.
    const STANDBYS: &str = "
        SELECT r.pid, coalesce(r.application_name, '')
        FROM pg_stat_replication r
        WHERE r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL
        AND r.application_name <> ALL ($1)
        AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')";
    let rows = acting_as(tx, role, || tx.execute(STANDBYS, &[&ignored.to_vec()]));
    rows.iter()
        .filter_map(|row| {
            Some(Standby {
                pid: row.get(1)?,
                name: row.get(2)?,
            })
        })
        .collect()
}

/// The slot for which most WAL is kept, of those that no standby streams from.
pub fn slot(tx: &Tx, role: pg_sys::Oid) -> Option<Kept> {
    const SLOT: &str = "
        SELECT slot_name::text, active, bytes FROM (
            SELECT slot_name, active,
                   pg_wal_lsn_diff(pg_current_wal_lsn(), CASE WHEN slot_type = 'logical' AND active
                                                              THEN confirmed_flush_lsn ELSE restart_lsn END)::bigint AS bytes
            FROM pg_replication_slots
            WHERE (slot_type = 'logical' OR NOT active) AND wal_status IS DISTINCT FROM 'lost') slot
        WHERE bytes > 0 ORDER BY bytes DESC LIMIT 1";
    let rows = acting_as(tx, role, || tx.execute(SLOT, &[]));
    let row = rows.first()?;
    Some(Kept {
        slot: row.get(1)?,
        active: row.get(2)?,
        bytes: row.get::<i64>(3)?.unsigned_abs(),
    })
}

/// What waits to be archived; `None` if nothing is archived.
pub fn archiving(tx: &Tx, role: pg_sys::Oid) -> Option<Archiving> {
    const ARCHIVING: &str = "
        SELECT (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')
               * (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
               coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL)
        FROM pg_stat_archiver
        WHERE current_setting('archive_mode') <> 'off'";
    let rows = acting_as(tx, role, || tx.execute(ARCHIVING, &[]));
    let row = rows.first()?;
    Some(Archiving {
        bytes: row.get::<i64>(1)?.unsigned_abs(),
        failing: row.get(2)?,
    })
}

/// How large `pg_wal` is, in bytes.
pub fn pg_wal_size(tx: &Tx, role: pg_sys::Oid) -> Option<u64> {
    const SIZE: &str = "SELECT sum(size)::bigint FROM pg_ls_waldir()";
    let rows = acting_as(tx, role, || tx.execute(SIZE, &[]));
    rows.first()?.get::<i64>(1).map(i64::unsigned_abs)
}

/// The process of autovacuum that works on the table, or on its TOAST table.
pub fn autovacuum(tx: &Tx, role: pg_sys::Oid, table: pg_sys::Oid) -> Option<i32> {
    // Found by its lock: pg_stat_progress_vacuum does not show an ANALYZE.
    const AUTOVACUUM: &str = "
        SELECT a.pid FROM pg_stat_activity a
        JOIN pg_locks l ON l.pid = a.pid
        WHERE a.backend_type = 'autovacuum worker' AND l.locktype = 'relation' AND l.granted
        AND l.mode = 'ShareUpdateExclusiveLock'
        AND l.relation IN (SELECT c.oid FROM pg_class c WHERE c.oid = $1
                           UNION SELECT c.reltoastrelid FROM pg_class c WHERE c.oid = $1)
        LIMIT 1";
    let rows = acting_as(tx, role, || tx.execute(AUTOVACUUM, &[&table]));
    rows.first()?.get(1)
}

/// The process that analyzes the table.
pub fn analyzing(tx: &Tx, role: pg_sys::Oid, table: pg_sys::Oid) -> Option<i32> {
    const ANALYZING: &str = "
        SELECT pid FROM pg_stat_progress_analyze
        WHERE relid = $1 AND datname = current_database() LIMIT 1";
    let rows = acting_as(tx, role, || tx.execute(ANALYZING, &[&table]));
    rows.first()?.get(1)
}
