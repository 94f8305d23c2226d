//! What was made from a column, or is told of its changes.
//!
//! A row that lacks a column (it was written before the column was added) can get a value through the catalogs, without
//! being written. That is right only if nothing else would have had to follow the change.

use pgrx::pg_sys;

use crate::error::{Error, InstantReason};
use crate::pg::settings::Temporarily;
use crate::pg::spi::{Row, Statement};
use crate::pg::tx::Tx;

/// Looks for what is in the way. Planned once: that takes longer than to look, and a table may be locked meanwhile.
pub struct Obstacles(Statement);

impl Obstacles {
    /// Prepares and plans the query.
    pub fn prepare(tx: &Tx) -> Self {
        let _path = Temporarily::catalog_only(tx);
        let types = [pg_sys::OIDARRAYOID, pg_sys::TEXTOID];
        let obstacles = Obstacles(Statement::prepare(tx, OBSTACLES, &types));
        obstacles.find(tx, &[], "");
        obstacles
    }

    /// What would be wrong if rows of one of these tables got a value in this column without being written; `None` if
    /// nothing would. Tables that have a value for rows that lack the column already are passed over. Reads the catalogs
    /// alone.
    pub fn find(&self, tx: &Tx, tables: &[pg_sys::Oid], column: &str) -> Option<Error> {
        let _path = Temporarily::catalog_only(tx);
        let rows = self.0.execute(tx, &[&tables.to_vec(), &column]);
        rows.first().and_then(|row| found(row, column))
    }
}

fn found(row: Row<'_>, column: &str) -> Option<Error> {
    let (table, kind): (String, String) = (row.get(2)?, row.get(3)?);
    let name: String = row.get(4).unwrap_or_default();
    let part: Option<String> = row.get(5);
    let why = match kind.as_str() {
        "access method" => {
            let (name, method) = (table, name);
            return Some(Error::AccessMethod { name, method });
        }
        "row security" => return Some(Error::RowSecurity { table }),
        "rule" => return Some(Error::UpdateRule { name: table }),
        "partition key" => {
            let (table, column) = (name, column.into());
            return Some(Error::PartitionKey { table, column });
        }
        "trigger" => InstantReason::Trigger(name),
        "index" => InstantReason::Index(name),
        "constraint" => InstantReason::Constraint(name),
        "generated column" => InstantReason::GeneratedColumn(name),
        "statistics" => InstantReason::Statistics(name),
        "policy" => InstantReason::Policy {
            policy: name,
            table: part.unwrap_or_default(),
        },
        "materialized view" => InstantReason::MaterializedView(name),
        "row type" => InstantReason::RowType {
            relation: name,
            column: part,
        },
        "publication" => InstantReason::Publication(name),
        _ => InstantReason::Slot(name),
    };
    Some(Error::Instant {
        table,
        column: column.into(),
        why,
    })
}

/// Dependencies do not tell of a row that is used as a whole; it is a variable of number 0 in the stored tree, and so is
/// looked for there. A CHECK on the column alone is not among them: the value is tried on it.
///
/// The slots and publications of a server whose `wal_level` is not `logical` get nothing, and neither do those of a
/// table that is temporary or unlogged.
const OBSTACLES: &str = r"
    WITH RECURSIVE leaf AS (
        SELECT c.*, a.attnum, format(':varattno (0|%s) ', a.attnum) AS in_tree
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.oid = ANY ($1) AND a.attname = $2::name AND NOT a.attisdropped AND NOT a.atthasmissing),
    above AS (
        SELECT oid AS leaf, oid, attnum FROM leaf
        UNION
        SELECT b.leaf, i.inhparent, a.attnum
        FROM above b JOIN pg_inherits i ON i.inhrelid = b.oid
        LEFT JOIN pg_attribute a ON a.attrelid = i.inhparent AND a.attname = $2::name AND NOT a.attisdropped),
    views AS (
        SELECT b.leaf, r.ev_class AS oid
        FROM above b
        JOIN pg_class c ON c.oid = b.oid
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = b.oid
        JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_type = '1'
        WHERE d.refobjsubid = b.attnum OR r.ev_action::text ~ format(':varattno 0 :vartype %s ', c.reltype)
        UNION
        SELECT v.leaf, r.ev_class
        FROM views v
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid
        JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_type = '1' AND r.ev_class <> v.oid),
    types AS (
        SELECT oid AS leaf, reltype AS type FROM leaf
        UNION
        SELECT t.leaf, CASE WHEN d.classid = 'pg_type'::regclass THEN d.objid ELSE c.reltype END
        FROM types t
        JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = t.type
        LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('c', 'v', 'f')
        WHERE d.classid = 'pg_type'::regclass OR c.reltype <> 0),
    obstacle (priority, leaf, kind, name, part) AS (
        SELECT 1, l.oid, 'access method', m.amname, NULL::name
        FROM leaf l JOIN pg_am m ON m.oid = l.relam WHERE m.amname <> 'heap'
        UNION ALL
        SELECT 2, oid, 'row security', NULL, NULL FROM leaf WHERE row_security_active(oid)
        UNION ALL
        SELECT 3, l.oid, 'rule', r.rulename, NULL
        FROM leaf l JOIN pg_rewrite r ON r.ev_class = l.oid AND r.ev_type = '2' AND r.ev_enabled <> 'D'
        UNION ALL
        SELECT 4, b.leaf, 'partition key', c.relname, NULL
        FROM above b JOIN pg_partitioned_table p ON p.partrelid = b.oid JOIN pg_class c ON c.oid = b.oid
        WHERE b.attnum = ANY (p.partattrs::int2[]) OR p.partexprs::text ~ format(':varattno (0|%s) ', b.attnum)
        UNION ALL
        SELECT 5, l.oid, 'trigger', t.tgname, NULL
        FROM leaf l JOIN pg_trigger t ON t.tgrelid = l.oid
        WHERE NOT t.tgisinternal AND t.tgtype & 16 = 16
        AND t.tgenabled IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
        AND (cardinality(t.tgattr::int2[]) = 0 OR l.attnum = ANY (t.tgattr::int2[]))
        UNION ALL
        SELECT 6, l.oid, 'index', c.relname, NULL
        FROM leaf l JOIN pg_index i ON i.indrelid = l.oid JOIN pg_class c ON c.oid = i.indexrelid
        WHERE l.attnum = ANY (i.indkey::int2[]) OR i.indexprs::text ~ l.in_tree OR i.indpred::text ~ l.in_tree
        UNION ALL
        SELECT 7, l.oid, 'constraint', k.conname, NULL
        FROM leaf l JOIN pg_constraint k ON k.conrelid = l.oid
        WHERE k.contype IN ('c', 'f', 'x') AND k.conkey && ARRAY[0::int2, l.attnum]
        AND (k.contype <> 'c' OR k.conkey <> ARRAY[l.attnum])
        -- Since PostgreSQL 18 a constraint can be NOT ENFORCED.
        AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
        UNION ALL
        SELECT 8, l.oid, 'generated column', g.attname, NULL
        FROM leaf l JOIN pg_attribute g ON g.attrelid = l.oid AND g.attgenerated <> ''
        JOIN pg_attrdef f ON f.adrelid = l.oid AND f.adnum = g.attnum
        WHERE f.adbin::text ~ l.in_tree
        UNION ALL
        SELECT 9, b.leaf, 'statistics', s.stxname, NULL
        FROM above b JOIN pg_statistic_ext s ON s.stxrelid = b.oid
        WHERE b.attnum = ANY (s.stxkeys::int2[]) OR s.stxexprs::text ~ format(':varattno (0|%s) ', b.attnum)
        UNION ALL
        SELECT 10, b.leaf, 'policy', p.polname, t.relname
        FROM above b
        JOIN pg_class c ON c.oid = b.oid
        JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = b.oid
        JOIN pg_policy p ON p.oid = d.objid
        JOIN pg_class t ON t.oid = p.polrelid
        WHERE d.refobjsubid = b.attnum
        OR p.polqual::text ~ format(':varattno 0 :vartype %s ', c.reltype)
        OR p.polwithcheck::text ~ format(':varattno 0 :vartype %s ', c.reltype)
        UNION ALL
        SELECT 11, v.leaf, 'materialized view', c.relname, NULL
        FROM views v JOIN pg_class c ON c.oid = v.oid AND c.relkind = 'm'
        UNION ALL
        SELECT 12, t.leaf, 'row type', c.relname, a.attname
        FROM types t
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_type'::regclass AND d.refobjid = t.type
        JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'm', 'i', 'I', 't')
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid <> 0
        WHERE t.type <> 0
        UNION ALL
        SELECT 13, l.oid, 'publication', p.pubname, NULL
        FROM leaf l CROSS JOIN pg_publication p
        WHERE current_setting('wal_level') = 'logical' AND l.relpersistence = 'p' AND p.pubupdate
        AND (p.puballtables
             OR EXISTS (SELECT FROM above b JOIN pg_publication_rel r ON r.prrelid = b.oid
                        WHERE b.leaf = l.oid AND r.prpubid = p.oid)
             OR EXISTS (SELECT FROM above b JOIN pg_class c ON c.oid = b.oid
                        JOIN pg_publication_namespace n ON n.pnnspid = c.relnamespace
                        WHERE b.leaf = l.oid AND n.pnpubid = p.oid))
        UNION ALL
        SELECT 14, l.oid, 'slot', s.slot_name, NULL
        FROM leaf l CROSS JOIN pg_replication_slots s
        WHERE current_setting('wal_level') = 'logical' AND l.relpersistence = 'p'
        AND s.slot_type = 'logical' AND s.database = current_database() AND s.wal_status IS DISTINCT FROM 'lost')
    SELECT o.priority, c.relname::text, o.kind, o.name::text, o.part::text
    FROM obstacle o JOIN pg_class c ON c.oid = o.leaf
    ORDER BY o.priority, o.leaf, o.name LIMIT 1";
