//! A column proven fillable, and the tables that hold its rows.

use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::spi::{self, Row, argument};
use crate::pg::value::ColumnType;

/// A table and one of its columns, found fit to be filled by the current user.
#[derive(Debug, Clone)]
pub struct Target {
    /// The table that the caller named.
    pub table: pg_sys::Oid,
    /// Its name without the schema, by which an expression may refer to it on every leaf.
    pub table_name: String,
    /// The name of the column, in the table and in each leaf.
    pub column: String,
    /// Its schema.
    pub schema: String,
    /// The number of the column in the table.
    pub number: i16,
    /// The type of the column.
    pub column_type: ColumnType,
    /// New rows get NULL unless they say otherwise.
    pub defaults_to_null: bool,
    /// The column is NOT NULL already, and that is known of every row.
    pub is_not_null: bool,
    /// The tables that have rows: the table itself, its partitions, its children.
    pub leaves: Vec<pg_sys::Oid>,
}

const FACTS: &str = "
    SELECT c.relkind::text, c.relname::text, am.amname::text, n.nspname::text,
           c.oid < 16384 OR n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast'),
           c.relpersistence = 't' AND c.relnamespace <> pg_my_temp_schema(),
           has_table_privilege(c.oid, 'SELECT') AND has_column_privilege(c.oid, a.attnum, 'UPDATE'),
           row_security_active(c.oid),
           EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2' AND r.ev_enabled <> 'D'),
           a.attnum, a.atttypid, a.atttypmod, a.attgenerated::text, a.attidentity::text,
           a.attnotnull, a.atthasdef OR t.typdefault IS NOT NULL
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_am am ON am.oid = c.relam
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2::name AND NOT a.attisdropped
    LEFT JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.oid = $1";

const LEAVES: &str = "
    WITH RECURSIVE tree AS (
        SELECT $1::oid AS oid
        UNION
        SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
        WHERE NOT i.inhdetachpending)
    SELECT c.oid FROM tree JOIN pg_class c USING (oid)
    WHERE c.relkind <> 'p'
    ORDER BY c.oid";

const IN_PARTITION_KEY: &str = "
    SELECT EXISTS (
        SELECT FROM pg_partitioned_table p
        JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attname = $2::name
        WHERE p.partrelid IN (SELECT relid FROM pg_partition_tree($1)
                              UNION SELECT relid FROM pg_partition_ancestors($1))
        AND (a.attnum = ANY (p.partattrs::int2[])
             OR EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass
                        AND d.objid = p.partrelid AND d.objsubid = a.attnum
                        AND d.refclassid = d.classid AND d.refobjid = p.partrelid AND d.refobjsubid = 0)))";

const NOT_NULL_IS_VALID: &str = "
    SELECT NOT EXISTS (SELECT FROM pg_constraint
                       WHERE conrelid = $1 AND contype = 'n' AND NOT convalidated AND $2 = ANY (conkey))";

/// What the catalogs say of one table and the column of that name.
struct Facts {
    kind: String,
    name: String,
    schema: String,
    attribute: Option<Attribute>,
    access_method: Option<String>,
    of_other_session: bool,
    permitted: bool,
    row_security: bool,
    update_rule: bool,
    system: bool,
}

struct Attribute {
    number: i16,
    column_type: ColumnType,
    generated: bool,
    identity: bool,
    not_null: bool,
    has_default: bool,
}

impl Facts {
    fn look_up(table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let rows = spi::catalog(FACTS, &[argument(table), argument(column)]);
        let row = rows.first().ok_or(Error::NoTable {
            oid: table.to_u32(),
        })?;
        let text = |number| row.get::<String>(number).unwrap_or_default();
        let truth = |number| row.get::<bool>(number).unwrap_or(false);
        Ok(Facts {
            kind: text(1),
            name: text(2),
            access_method: row.get(3),
            schema: text(4),
            system: truth(5),
            of_other_session: truth(6),
            permitted: truth(7),
            row_security: truth(8),
            update_rule: truth(9),
            attribute: Attribute::from_row(row),
        })
    }

    /// Fails unless this is a table whose column of that name can be updated by the current user.
    fn require_fillable(&self, column: &str) -> Result<&Attribute, Error> {
        self.require_table()?;
        let table = || self.name.clone();
        let attribute = self.attribute.as_ref().ok_or_else(|| Error::NoColumn {
            table: table(),
            column: column.into(),
        })?;
        attribute.require_fillable(&self.name, column)?;
        match () {
            () if !self.permitted => Err(Error::Permission {
                table: table(),
                column: column.into(),
            }),
            () if self.row_security => Err(Error::RowSecurity { table: table() }),
            () if self.update_rule => Err(Error::UpdateRule { name: table() }),
            () => Ok(attribute),
        }
    }

    fn require_table(&self) -> Result<(), Error> {
        let name = self.name.clone();
        let kind = match self.kind.as_str() {
            "r" | "p" => None,
            "v" => Some("a view"),
            "m" => Some("a materialized view"),
            "f" => Some("a foreign table"),
            "S" => Some("a sequence"),
            "i" | "I" => Some("an index"),
            "t" => Some("a TOAST table"),
            "c" => Some("a composite type"),
            _ => Some("something else"),
        };
        match kind {
            Some(kind) => Err(Error::NotATable { name, kind }),
            None if self.system => Err(Error::SystemCatalog { name }),
            None if self.of_other_session => Err(Error::OtherSessionsTable { name }),
            None => match &self.access_method {
                Some(method) if method != "heap" && self.kind == "r" => Err(Error::AccessMethod {
                    name,
                    method: method.clone(),
                }),
                _ => Ok(()),
            },
        }
    }
}

impl Attribute {
    fn from_row(row: Row<'_>) -> Option<Self> {
        let flag = |number| {
            row.get::<String>(number)
                .is_some_and(|text| !text.is_empty())
        };
        Some(Attribute {
            number: row.get(10)?,
            column_type: ColumnType {
                oid: row.get(11)?,
                modifier: row.get(12)?,
            },
            generated: flag(13),
            identity: flag(14),
            not_null: row.get(15)?,
            has_default: row.get(16)?,
        })
    }

    /// Whether no row of `table` alone can be NULL in it; since PostgreSQL 18 a NOT NULL can be not valid yet.
    fn is_not_null(&self, table: pg_sys::Oid) -> bool {
        self.not_null && exists(NOT_NULL_IS_VALID, table, argument(self.number))
    }

    fn require_fillable(&self, table: &str, column: &str) -> Result<(), Error> {
        if self.number < 1 {
            return Err(Error::SystemColumn {
                column: column.into(),
            });
        }
        let kind = match () {
            () if self.generated => "a generated column",
            () if self.identity => "an identity column",
            () => return Ok(()),
        };
        Err(Error::ComputedColumn {
            table: table.into(),
            column: column.into(),
            kind,
        })
    }
}

impl Target {
    /// Looks at the table, the column and every leaf, and finds them fit to be filled, or says why not.
    ///
    /// Must be called within an SPI connection; nothing is changed.
    ///
    /// # Errors
    /// Every [`Error`] that speaks of a table, a column or a privilege.
    pub fn prove(table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let facts = Facts::look_up(table, column)?;
        let attribute = facts.require_fillable(column)?;
        let (number, column_type) = (attribute.number, attribute.column_type);
        let has_default = attribute.has_default;
        let mut is_not_null = attribute.is_not_null(table);
        if exists(IN_PARTITION_KEY, table, argument(column)) {
            return Err(Error::PartitionKey {
                table: facts.name.clone(),
                column: column.into(),
            });
        }
        let leaves = leaves(table);
        for &oid in leaves.iter().filter(|&&leaf| leaf != table) {
            let leaf = Facts::look_up(oid, column)?;
            if leaf.kind == "f" {
                return Err(Error::ForeignLeaf {
                    table: facts.name.clone(),
                    leaf: leaf.name,
                });
            }
            is_not_null &= leaf.require_fillable(column)?.is_not_null(oid);
        }
        Ok(Target {
            table,
            column: column.into(),
            number,
            column_type,
            defaults_to_null: !has_default,
            is_not_null,
            leaves,
            schema: facts.schema,
            table_name: facts.name,
        })
    }
}

impl Target {
    /// The error for a value of type `from`, which does not become the column's type by assignment.
    pub fn value_type(&self, from: pg_sys::Oid) -> Error {
        let from = ColumnType {
            oid: from,
            modifier: -1,
        };
        Error::ValueType {
            column: self.column.clone(),
            column_type: self.column_type.name(),
            value_type: from.name(),
        }
    }
}

/// The tables below `table` that have rows, itself included if it can have any.
fn leaves(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    spi::catalog(LEAVES, &[argument(table)])
        .iter()
        .filter_map(|row| row.get(1))
        .collect()
}

fn exists(sql: &str, table: pg_sys::Oid, second: spi::Argument) -> bool {
    spi::catalog(sql, &[argument(table), second])
        .first()
        .and_then(|row| row.get(1))
        .unwrap_or(false)
}
