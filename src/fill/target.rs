//! A column proven fillable, and the tables that hold its rows.

use std::collections::HashMap;

use pgrx::pg_sys;

use crate::catalog::attribute::Attribute;
use crate::catalog::relation::Relation;
use crate::catalog::tree;
use crate::error::Error;
use crate::pg::spi::quote;
use crate::pg::tx::Tx;
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
    /// The column has a default; without one, new rows get NULL unless they say otherwise.
    pub has_default: bool,
    /// The table is temporary, so that no other process can fill it.
    pub is_temporary: bool,
    /// The column is NOT NULL already, and that is known of every row.
    pub is_not_null: bool,
    /// The tables that have rows: the table itself, its partitions, its children.
    pub leaves: Vec<pg_sys::Oid>,
}

const FACTS: &str = "
    SELECT has_table_privilege(c.oid, 'SELECT') AND has_column_privilege(c.oid, a.attnum, 'UPDATE'),
           row_security_active(c.oid),
           EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2' AND r.ev_enabled <> 'D'),
           c.oid
    FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2::name AND NOT a.attisdropped
    WHERE c.oid = ANY ($1)";

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

/// Statement-level UPDATE triggers that would fire for the column, on tables that have others below them.
///
/// Of generated columns all are taken to depend on it.
const STATEMENT_TRIGGERS: &str = "
    SELECT c.relname::text, t.tgname::text
    FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgrelid = ANY ($1)
    AND NOT t.tgisinternal AND t.tgtype & 1 = 0 AND t.tgtype & 16 = 16
    AND t.tgenabled IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
    AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = t.tgrelid)
    AND (cardinality(t.tgattr::int2[]) = 0
         OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr::int2[])
                    AND (a.attname = $2::name OR a.attgenerated <> '')))
    ORDER BY c.relname, t.tgname LIMIT 1";

/// What the catalogs say of one table and the column of that name.
struct Facts {
    relation: Relation,
    attribute: Option<Attribute>,
    permitted: bool,
    row_security: bool,
    update_rule: bool,
}

impl Facts {
    fn look_up(tx: &Tx, table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let found = Self::look_up_all(tx, &[table], column).pop();
        found.ok_or(Error::NoTable {
            oid: table.to_u32(),
        })
    }

    /// With a few queries for all tables: a tree may have thousands. Tables that do not exist are left out.
    fn look_up_all(tx: &Tx, tables: &[pg_sys::Oid], column: &str) -> Vec<Self> {
        let mut attributes = Attribute::find_all(tx, tables, column);
        let rows = tx.catalog(FACTS, &[&tables.to_vec(), &column]);
        let facts = rows.iter().filter_map(|row| {
            let truth = |number| row.get::<bool>(number).unwrap_or(false);
            Some((row.get(4)?, (truth(1), truth(2), truth(3))))
        });
        let mut facts: HashMap<pg_sys::Oid, _> = facts.collect();
        let of = |relation: Relation| {
            let (permitted, row_security, update_rule) = facts.remove(&relation.oid)?;
            Some(Facts {
                attribute: attributes.remove(&relation.oid),
                relation,
                permitted,
                row_security,
                update_rule,
            })
        };
        Relation::look_up_all(tx, tables)
            .into_iter()
            .filter_map(of)
            .collect()
    }

    /// Fails unless this is a table whose column of that name can be updated by the current user.
    fn require_fillable(&self, column: &str) -> Result<&Attribute, Error> {
        self.relation.require_table()?;
        self.require_heap()?;
        let table = || self.relation.name.clone();
        let attribute = self.attribute.as_ref().ok_or_else(|| Error::NoColumn {
            table: table(),
            column: column.into(),
            qualified: self.relation.quoted(),
        })?;
        self.require_not_computed(attribute, column)?;
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

    fn require_heap(&self) -> Result<(), Error> {
        match &self.relation.access_method {
            Some(method) if method != "heap" && self.relation.kind == "r" => {
                Err(Error::AccessMethod {
                    name: self.relation.name.clone(),
                    method: method.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Fails for a column that PostgreSQL fills by itself.
    fn require_not_computed(&self, attribute: &Attribute, column: &str) -> Result<(), Error> {
        if attribute.number < 1 {
            return Err(Error::SystemColumn {
                column: column.into(),
            });
        }
        let kind = match () {
            () if attribute.is_generated => "a generated column",
            () if attribute.is_identity => "an identity column",
            () => return Ok(()),
        };
        Err(Error::ComputedColumn {
            table: self.relation.name.clone(),
            column: column.into(),
            kind,
        })
    }
}

impl Target {
    /// Looks at the table, the column and every leaf, and finds them fit to be filled, or says why not.
    ///
    /// # Errors
    /// Every [`Error`] that speaks of a table, a column or a privilege.
    pub fn prove(tx: &Tx, table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let facts = Facts::look_up(tx, table, column)?;
        let attribute = *facts.require_fillable(column)?;
        let mut is_not_null = attribute.is_not_null;
        let in_partition_key = tx.catalog_value(IN_PARTITION_KEY, &[&table, &column]);
        if in_partition_key.unwrap_or(false) {
            return Err(Error::PartitionKey {
                table: facts.relation.name.clone(),
                column: column.into(),
            });
        }
        require_no_statement_trigger(tx, table, column)?;
        let leaves = tree::leaves(tx, table);
        let others: Vec<_> = leaves
            .iter()
            .copied()
            .filter(|&leaf| leaf != table)
            .collect();
        for leaf in Facts::look_up_all(tx, &others, column) {
            if leaf.relation.kind == "f" {
                return Err(Error::ForeignLeaf {
                    table: facts.relation.name.clone(),
                    leaf: leaf.relation.name,
                });
            }
            is_not_null &= leaf.require_fillable(column)?.is_not_null;
        }
        Ok(Target {
            table,
            column: column.into(),
            number: attribute.number,
            column_type: attribute.column_type,
            has_default: attribute.has_default,
            is_temporary: facts.relation.is_temporary,
            is_not_null,
            leaves,
            schema: facts.relation.schema,
            table_name: facts.relation.name,
        })
    }

    /// The tables that hold its rows now.
    ///
    /// # Errors
    /// Those of [`Target::prove`], and [`Error::TableDropped`].
    pub fn leaves_now(&self, tx: &Tx) -> Result<Vec<pg_sys::Oid>, Error> {
        match Target::prove(tx, self.table, &self.column) {
            Ok(now) => Ok(now.leaves),
            Err(Error::NoTable { .. }) => Err(Error::TableDropped {
                table: self.table_name.clone(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Fails if background workers cannot fill the table.
    ///
    /// # Errors
    /// [`Error::TemporaryTable`].
    pub fn require_shared(&self) -> Result<(), Error> {
        if self.is_temporary {
            return Err(Error::TemporaryTable {
                name: self.table_name.clone(),
            });
        }
        Ok(())
    }

    /// The table as SQL names it, with its schema.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table_name))
    }
}

/// Fails if an UPDATE of `table` would fire a trigger that UPDATEs of the tables below it do not.
fn require_no_statement_trigger(tx: &Tx, table: pg_sys::Oid, column: &str) -> Result<(), Error> {
    let rows = tx.catalog(STATEMENT_TRIGGERS, &[&tree::oids(tx, table), &column]);
    match rows.first().map(|row| (row.get(1), row.get(2))) {
        Some((Some(table), Some(trigger))) => Err(Error::StatementTrigger { table, trigger }),
        _ => Ok(()),
    }
}
