//! A relation as the catalogs describe it: found to be a table that may be worked on, or refused.

use pgrx::pg_sys;

use crate::catalog::tree;
use crate::error::Error;
use crate::pg::spi::{Row, quote};
use crate::pg::tx::Tx;

/// What the catalogs say of one relation.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its schema.
    pub schema: String,
    /// Its own name.
    pub name: String,
    /// `relkind`.
    pub kind: String,
    /// Its access method, if it has one.
    pub access_method: Option<String>,
    /// It is temporary, of this session or another one.
    pub is_temporary: bool,
    owned: bool,
    of_other_session: bool,
    system: bool,
}

const RELATION: &str = "
    SELECT c.relkind::text, c.relname::text, n.nspname::text, am.amname::text,
           pg_has_role(c.relowner, 'USAGE'),
           c.relpersistence = 't' AND c.relnamespace <> pg_my_temp_schema(),
           c.oid < 16384 OR n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast'), c.oid,
           c.relpersistence = 't'
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_am am ON am.oid = c.relam
    WHERE c.oid = ANY ($1)";

impl Relation {
    /// Looks a relation up, in the catalogs alone: no lock on it is waited for.
    ///
    /// # Errors
    /// [`Error::NoTable`].
    pub fn look_up(tx: &Tx, oid: pg_sys::Oid) -> Result<Self, Error> {
        let found = Self::look_up_all(tx, &[oid]).pop();
        found.ok_or(Error::NoTable { oid: oid.to_u32() })
    }

    /// Looks up relations as [`Relation::look_up`] does, all with one query; those that do not exist are left out.
    pub fn look_up_all(tx: &Tx, oids: &[pg_sys::Oid]) -> Vec<Self> {
        let rows = tx.catalog(RELATION, &[&oids.to_vec()]);
        rows.iter().filter_map(|row| Self::of(&row)).collect()
    }

    fn of(row: &Row<'_>) -> Option<Self> {
        let text = |number| row.get::<String>(number).unwrap_or_default();
        let truth = |number| row.get::<bool>(number).unwrap_or(false);
        Some(Relation {
            oid: row.get(8)?,
            kind: text(1),
            name: text(2),
            schema: text(3),
            access_method: row.get(4),
            is_temporary: truth(9),
            owned: truth(5),
            of_other_session: truth(6),
            system: truth(7),
        })
    }

    /// How many blocks its main file has; waits for whoever has it locked exclusively.
    pub fn blocks(&self, tx: &Tx) -> u32 {
        const BLOCKS: &str =
            "SELECT pg_relation_size($1::regclass) / current_setting('block_size')::int8";
        let blocks: Option<i64> = tx.catalog_value(BLOCKS, &[&self.oid]);
        blocks
            .and_then(|blocks| blocks.try_into().ok())
            .unwrap_or(0)
    }

    /// Its name as SQL writes it, with its schema.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// Fails unless it is a table of a user's.
    ///
    /// # Errors
    /// [`Error::NotATable`], [`Error::SystemCatalog`], [`Error::OtherSessionsTable`].
    pub fn require_table(&self) -> Result<(), Error> {
        let name = self.name.clone();
        let kind = match self.kind.as_str() {
            "r" | "p" => None,
            "v" => Some("views"),
            "m" => Some("materialized views"),
            "f" => Some("foreign tables"),
            "S" => Some("sequences"),
            "i" | "I" => Some("indexes"),
            "t" => Some("TOAST tables"),
            "c" => Some("composite types"),
            _ => Some("this kind of relation"),
        };
        match kind {
            Some(kind) => Err(Error::NotATable { name, kind }),
            None if self.system => Err(Error::SystemCatalog { name }),
            None if self.of_other_session => Err(Error::OtherSessionsTable { name }),
            None => Ok(()),
        }
    }

    /// Fails unless the current user owns it, or is a member of the role that does.
    ///
    /// # Errors
    /// [`Error::NotOwner`].
    pub fn require_owner(&self) -> Result<(), Error> {
        if self.owned {
            Ok(())
        } else {
            Err(Error::NotOwner {
                table: self.name.clone(),
            })
        }
    }
}

/// Fails if one of these tables is not the current user's any more.
///
/// # Errors
/// [`Error::NotOwner`].
pub fn require_owned(tx: &Tx, tables: &[pg_sys::Oid]) -> Result<(), Error> {
    const FOREIGN: &str = "
        SELECT relname::text FROM pg_class
        WHERE oid = ANY ($1) AND NOT pg_has_role(relowner, 'USAGE') LIMIT 1";
    match tx.catalog_value(FOREIGN, &[&tables.to_vec()]) {
        Some(table) => Err(Error::NotOwner { table }),
        None => Ok(()),
    }
}

/// Looks up a table and all tables below it, and finds them fit to be altered by the current user.
///
/// Locks may be taken on them only after this: nobody may lock what is not theirs.
///
/// # Errors
/// Those of [`Relation::require_table`] and [`Relation::require_owner`], and [`Error::ForeignLeaf`].
pub fn require_alterable(tx: &Tx, table: pg_sys::Oid) -> Result<Relation, Error> {
    let root = Relation::look_up(tx, table)?;
    root.require_table()?;
    root.require_owner()?;
    let below: Vec<_> = tree::oids(tx, table).into_iter().skip(1).collect();
    for relation in Relation::look_up_all(tx, &below) {
        if relation.kind == "f" {
            return Err(Error::ForeignLeaf {
                table: root.name,
                leaf: relation.name,
            });
        }
        relation.require_table()?;
        relation.require_owner()?;
    }
    Ok(root)
}
