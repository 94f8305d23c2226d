//! Who holds locks, or the xmin horizon, described for a person.

use pgrx::pg_sys;

use crate::messages;
use crate::pg::role::acting_as;
use crate::pg::spi::Row;
use crate::pg::tx::Tx;

/// Who holds the xmin horizon back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// In words, with figures of this moment.
    pub description: String,
    /// What to do about it.
    pub hint: String,
    /// It is a standby that streams.
    pub is_standby: bool,
    /// It is not about to go by itself, for all that is known.
    pub is_lasting: bool,
    /// What tells it from another one.
    pub identity: String,
}

/// Who holds the xmin horizon of `table` back, if anybody does.
///
/// Runs with the rights of `role`, the extension's owner: PostgreSQL shows other roles only their own snapshots.
pub fn of_horizon(tx: &Tx, role: pg_sys::Oid, table: pg_sys::Oid) -> Option<Holder> {
    all_of_horizon(tx, role, &[table], 1).pop()
}

/// At most so many of those who hold the xmin horizon of one of these tables back, the oldest first; otherwise as
/// [`of_horizon`].
pub fn all_of_horizon(
    tx: &Tx,
    role: pg_sys::Oid,
    tables: &[pg_sys::Oid],
    most: i64,
) -> Vec<Holder> {
    let rows = acting_as(tx, role, || tx.execute(HORIZON, &[&tables.to_vec(), &most]));
    rows.iter().filter_map(|row| Holder::of(&row)).collect()
}

impl Holder {
    fn of(row: &Row<'_>) -> Option<Self> {
        let (kind, name): (String, Option<String>) = (row.get(2)?, row.get(3));
        let is_standby = kind == "standby";
        Some(Holder {
            description: row.get(1)?,
            hint: messages::hint_on_holder(&kind, name.as_deref()),
            is_standby,
            is_lasting: !is_standby && row.get(4).unwrap_or(true),
            identity: format!("{kind} {}", name.unwrap_or_default()),
        })
    }
}

/// Who holds locks on rows of `table`, the oldest transactions first: sessions and prepared transactions.
pub fn of_rows(tx: &Tx, table: pg_sys::Oid) -> Option<String> {
    tx.catalog_value(ROWS, &[&table])
}

/// Who has locked one of the tables, the oldest first: sessions and prepared transactions.
///
/// With `only_strong`, locks that let others write do not count; and locks of any other table do, if they let nobody read
/// it: the statement may have waited for such a table, whose name is not known.
pub fn of_tables(tx: &Tx, tables: &[pg_sys::Oid], only_strong: bool) -> Option<String> {
    tx.catalog_value(TABLES, &[&tables.to_vec(), &only_strong])
}

/// The process that holds the lock of a run on this column, if one does.
pub fn of_column(tx: &Tx, table: pg_sys::Oid, number: i16) -> Option<i32> {
    tx.catalog_value(COLUMN, &[&table, &number])
}

const COLUMN: &str = "
    SELECT pid FROM pg_locks
    WHERE locktype = 'object' AND classid = 'pg_class'::regclass AND objid = $1 AND objsubid = $2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const TABLES: &str = "
    SELECT string_agg(description, '; ' ORDER BY began)
    FROM (
        SELECT DISTINCT
            CASE WHEN l.pid IS NULL THEN format('prepared transaction \"%s\" of %s', p.gid, p.prepared)
                 ELSE format('process %s (%s), whose transaction began %s ago, query: %s', l.pid,
                             CASE WHEN a.usename IS NULL THEN a.backend_type
                                  ELSE format('application \"%s\", user \"%s\"', a.application_name, a.usename) END,
                             coalesce(date_trunc('second', clock_timestamp() - a.xact_start)::text, 'some time'),
                             rtrim(regexp_replace(left(a.query, 80), '\\s+', ' ', 'g'), '; '))
            END AS description,
            coalesce(a.xact_start, p.prepared) AS began
        FROM pg_locks l
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
             AND x.virtualtransaction = l.virtualtransaction
        LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
        WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.relation = ANY ($1)
             AND (NOT $2 OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
             OR $2 AND l.mode = 'AccessExclusiveLock' AND l.relation >= 16384)
        ORDER BY began LIMIT 5) holder";

/// Everything that `ComputeXidHorizons` looks at, the oldest first. Of several that are as old, the one that the others depend
/// on is first: a transaction before the snapshots that see it as running, and these before standbys.
///
/// Short transactions only delay pruning. The snapshots of other databases do not count, nor do their transactions by
/// themselves; but whoever takes one as running goes back to it. VACUUM and logical decoding do not count. The `catalog_xmin`
/// of a slot counts for catalog tables only. A standby has its horizon in its slot if it has one, and otherwise in the
/// process that sends it WAL.
const HORIZON: &str = "
    WITH session AS (
        SELECT a.*, r.state AS replication, r.replay_lsn, coalesce(a.datname = current_database(), true) AS counts,
               CASE WHEN a.datname <> current_database() THEN format(', database \"%s\"', a.datname) END AS elsewhere
        FROM pg_stat_activity a LEFT JOIN pg_stat_replication r USING (pid)
        WHERE a.pid <> pg_backend_pid() AND a.pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum v)
        AND (r.state IN ('catchup', 'streaming') AND a.datname IS NOT NULL) IS NOT TRUE
    ), slot AS (
        SELECT s.slot_name, s.slot_type, s.active, s.active_pid, x.xmin AS horizon
        FROM pg_replication_slots s
        CROSS JOIN LATERAL (
            SELECT s.xmin
            UNION ALL
            SELECT s.catalog_xmin FROM pg_class c, pg_options_to_table(c.reloptions) o
            WHERE c.oid = ANY ($1) AND o.option_name = 'user_catalog_table' AND o.option_value::boolean
            AND current_setting('wal_level') = 'logical') x
        WHERE x.xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
    ), snapshot AS (
        SELECT backend_xmin AS xmin FROM session WHERE counts
        UNION ALL
        SELECT horizon FROM slot
    )
    SELECT description, kind, name, lasting FROM (
        SELECT age(x.id) AS age, CASE WHEN counts THEN x.rank ELSE 3 END AS rank,
               format('process %s (%s%s), whose transaction began %s ago', pid,
                      CASE WHEN usename IS NULL THEN backend_type
                           ELSE format('application \"%s\", user \"%s\"', application_name, usename) END, elsewhere,
                      date_trunc('second', clock_timestamp() - xact_start)) AS description,
               'session' AS kind, format('%s %s', pid, xact_start) AS name,
               clock_timestamp() - xact_start > interval '1 second' AS lasting
        FROM session CROSS JOIN LATERAL (
            SELECT v.rank, v.id FROM (VALUES (1, backend_xid), (2, backend_xmin)) v (rank, id)
            WHERE v.id IS NOT NULL AND (counts OR v.rank = 1 AND v.id IN (SELECT xmin FROM snapshot))
            ORDER BY age(v.id) DESC, v.rank LIMIT 1) x
        WHERE backend_type <> 'walsender' AND clock_timestamp() - xact_start > interval '200 milliseconds'
        UNION ALL
        SELECT age(transaction), CASE database WHEN current_database() THEN 1 ELSE 3 END,
               format('prepared transaction \"%s\" of %s%s', gid, prepared,
                      CASE WHEN database <> current_database() THEN format(' in database \"%s\"', database) END),
               'prepared transaction', gid, NULL
        FROM pg_prepared_xacts
        WHERE database = current_database() OR transaction IN (SELECT xmin FROM snapshot)
        UNION ALL
        SELECT age(horizon), 4,
               format('replication slot \"%s\"%s', slot_name, CASE WHEN NOT active THEN ', which nobody reads' END),
               CASE WHEN active THEN 'active slot' ELSE 'slot' END, slot_name::text, NULL
        FROM slot WHERE slot_type = 'logical' OR NOT active
        UNION ALL
        SELECT age(x.xmin), 5,
               CASE WHEN is_standby
                    THEN format('standby \"%s\" (process %s), which sends feedback and has %s of WAL to replay',
                                application_name, pid,
                                pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)))
                    ELSE format('replication client \"%s\" (process %s)', application_name, pid) END,
               CASE WHEN is_standby THEN 'standby' ELSE 'client' END,
               coalesce(slot_name, pid::text), NULL
        FROM session
        LEFT JOIN slot ON active_pid = pid AND slot_type = 'physical'
        CROSS JOIN LATERAL (VALUES (CASE WHEN counts THEN backend_xmin END), (horizon)) x (xmin)
        CROSS JOIN LATERAL (SELECT coalesce(replication IN ('catchup', 'streaming'), false) AND replay_lsn IS NOT NULL) y (is_standby)
        WHERE x.xmin IS NOT NULL AND backend_type = 'walsender'
        UNION ALL
        SELECT setting::integer, 6, format('the setting \"%s\", which is %s transactions', name, setting), 'setting', name, NULL
        FROM pg_settings WHERE name = 'vacuum_defer_cleanup_age' AND setting <> '0') holder
    ORDER BY age DESC, rank LIMIT $2";

/// Transactions that have locked the table and have written something: each holds the lock on its own transaction ID. One of
/// them may hold the rows.
const ROWS: &str = "
    SELECT string_agg(description, ', ' ORDER BY began)
    FROM (
        SELECT DISTINCT
            CASE WHEN l.pid IS NULL THEN format('prepared transaction \"%s\"', p.gid)
                 ELSE format('process %s (application \"%s\")', l.pid, a.application_name) END AS description,
            coalesce(a.xact_start, p.prepared) AS began
        FROM pg_locks l
        JOIN pg_locks x ON x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
             AND x.virtualtransaction = l.virtualtransaction
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = x.transactionid
        WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.mode IN ('RowShareLock', 'RowExclusiveLock')
        ORDER BY began LIMIT 5) holder";
