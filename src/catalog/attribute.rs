//! A column as `pg_attribute` describes it.

use std::collections::HashMap;

use pgrx::pg_sys;

use crate::pg::spi::Row;
use crate::pg::tx::Tx;
use crate::pg::value::ColumnType;

/// A column of a table, which has not been dropped.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// Its number; below 1 for a system column.
    pub number: i16,
    /// Its type.
    pub column_type: ColumnType,
    /// PostgreSQL computes it from others.
    pub is_generated: bool,
    /// PostgreSQL takes it from a sequence.
    pub is_identity: bool,
    /// It, or its type, has a default.
    pub has_default: bool,
    /// It is NOT NULL, and every row is known to be. Since PostgreSQL 18 a NOT NULL can be not valid yet.
    pub is_not_null: bool,
}

/// Whether column `a` is NOT NULL, and that is valid.
const IS_NOT_NULL: &str = "
    (a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint n
                                  WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND NOT n.convalidated
                                  AND a.attnum = ANY (n.conkey)))";

impl Attribute {
    /// Looks up the column of `table` that has this name.
    pub fn find(tx: &Tx, table: pg_sys::Oid, name: &str) -> Option<Self> {
        Self::find_all(tx, &[table], name).remove(&table)
    }

    /// Looks up the columns that have this name, by the tables that have one, all with one query.
    pub fn find_all(tx: &Tx, tables: &[pg_sys::Oid], name: &str) -> HashMap<pg_sys::Oid, Self> {
        let sql = format!(
            "SELECT a.attnum, a.atttypid, a.atttypmod, a.attgenerated <> '', a.attidentity <> '',
                    a.atthasdef OR t.typdefault IS NOT NULL, {IS_NOT_NULL}, a.attrelid
             FROM pg_attribute a LEFT JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = ANY ($1) AND a.attname = $2::name AND NOT a.attisdropped"
        );
        let rows = tx.catalog(&sql, &[&tables.to_vec(), &name]);
        rows.iter().filter_map(|row| Self::of(&row)).collect()
    }

    fn of(row: &Row<'_>) -> Option<(pg_sys::Oid, Self)> {
        let attribute = Attribute {
            number: row.get(1)?,
            column_type: ColumnType {
                oid: row.get(2)?,
                modifier: row.get(3)?,
            },
            is_generated: row.get(4)?,
            is_identity: row.get(5)?,
            has_default: row.get(6)?,
            is_not_null: row.get(7)?,
        };
        Some((row.get(8)?, attribute))
    }
}

/// Whether the column of this name is NOT NULL, and valid so, in each of the tables that have it.
pub fn is_not_null_in(tx: &Tx, tables: Vec<pg_sys::Oid>, name: &str) -> bool {
    let sql = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_attribute a
                            WHERE a.attrelid = ANY ($1) AND a.attname = $2::name AND NOT a.attisdropped
                            AND NOT {IS_NOT_NULL})"
    );
    tx.catalog_value(&sql, &[&tables, &name]).unwrap_or(false)
}
