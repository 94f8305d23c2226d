//! Adds a column without rewriting the table.
//!
//! PostgreSQL keeps the value that older rows are read with in the catalogs (`atthasmissing` in `pg_attribute`), if it
//! is one constant. Everything that would make it write every row anew is refused.

use pgrx::pg_sys;

use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::pg::lock::TableLock;
use crate::pg::message;
use crate::pg::parse;
use crate::pg::settings::Temporarily;
use crate::pg::spi::{self, argument, quote, quote_literal};
use crate::pg::transaction::commit_after;
use crate::pg::value::{ColumnType, Constant};
use crate::relation::{Relation, require_alterable, require_owned, tree_oids};

/// A column to be added, found to need no rewrite.
pub struct Request {
    table: Relation,
    column: String,
    column_type: ColumnType,
    default: Option<Constant>,
}

impl Request {
    /// Checks the table and the type; `default` is asked for a value of that type. Nothing is touched.
    ///
    /// # Errors
    /// Those of [`require_alterable`], [`Error::NotAType`], [`Error::WouldRewrite`], PostgreSQL's own for an unknown
    /// type, and those of `default`.
    pub fn prove(
        table: pg_sys::Oid,
        column: String,
        type_text: &str,
        default: impl FnOnce(ColumnType) -> Result<Option<Constant>, Error>,
    ) -> Result<Self, Error> {
        let table = require_alterable(table)?;
        let would_rewrite = |why| would_rewrite(&table, &column, why);
        if let Some(why) = serial(type_text) {
            return Err(would_rewrite(why));
        }
        let column_type = parse::type_name(type_text).ok_or_else(|| Error::NotAType {
            text: type_text.into(),
        })?;
        // Before the default is read, which a constraint of the domain could refuse.
        if let Some(why) = constraints(column_type) {
            return Err(would_rewrite(why));
        }
        let request = Request {
            default: default(column_type)?,
            table,
            column,
            column_type,
        };
        request.require_no_rewrite()?;
        Ok(request)
    }

    fn require_no_rewrite(&self) -> Result<(), Error> {
        let volatile = || {
            let found = self.default.is_none() && self.column_type.default_is_volatile();
            found.then(|| format!("Type {} has a volatile default.", self.column_type.name()))
        };
        match constraints(self.column_type).or_else(volatile) {
            Some(why) => Err(would_rewrite(&self.table, &self.column, why)),
            None => Ok(()),
        }
    }
}

fn would_rewrite(table: &Relation, column: &str, why: String) -> Error {
    Error::WouldRewrite {
        table: table.name.clone(),
        column: column.into(),
        why,
    }
}

/// Why PostgreSQL would look at every row for a column of this type, if it would.
fn constraints(column_type: ColumnType) -> Option<String> {
    column_type
        .has_domain_constraints()
        .then(|| format!("Domain {} has constraints.", column_type.name()))
}

/// Why a column of this type could not be added, if it is one of those that are no types.
fn serial(text: &str) -> Option<String> {
    const SERIAL: [&str; 6] = [
        "serial",
        "serial2",
        "serial4",
        "serial8",
        "smallserial",
        "bigserial",
    ];
    SERIAL
        .contains(&text.trim().to_ascii_lowercase().as_str())
        .then(|| format!("Type {} gives every row a value of its own.", text.trim()))
}

/// Adds the column, to all tables below the named one as well.
///
/// # Errors
/// [`Error::ColumnExists`] if there is one of another type, [`Error::LockNotAvailable`], and PostgreSQL's own.
pub fn run(request: &Request) -> Result<(), Error> {
    let added = if commit_after(|| request.exists())? {
        false
    } else {
        add(request)?
    };
    if !added {
        let type_name = commit_after(|| Ok(request.column_type.name()))?;
        message::notice_with(
            format!(
                "column \"{}\" of table \"{}\" already exists, skipping",
                request.column, request.table.name
            ),
            Some(format!(
                "It is of type {type_name}.  Its default and its rows were left as they are."
            )),
            request
                .default
                .is_some()
                .then_some("safe_backfill fills rows that are null."),
        );
    }
    Ok(())
}

/// `false` if another session has added it in the meantime.
fn add(request: &Request) -> Result<bool, Error> {
    let tables = commit_after(|| Ok(tree_oids(request.table.oid)))?;
    let locks = Locks {
        table_name: &request.table.name,
        tables: &tables,
        lock: Some(TableLock::AccessExclusive),
        permit: require_owned,
    };
    ddl::run(&locks, || {
        let table = Relation::look_up(request.table.oid)?;
        if request.exists()? {
            return Ok(false);
        }
        // The domain may have got a constraint while the table was waited for.
        request.require_no_rewrite()?;
        let _reading = Temporarily::array_nulls();
        spi::execute(&request.statement(&table), &[]);
        Ok(true)
    })
}

impl Request {
    fn statement(&self, table: &Relation) -> String {
        let (name, column) = (table.quoted(), quote(&self.column));
        let type_name = self.column_type.qualified_name();
        let default = match &self.default {
            Some(value) => format!(" DEFAULT {}::{type_name}", quote_literal(&value.to_text())),
            None => String::new(),
        };
        format!("ALTER TABLE {name} ADD COLUMN {column} {type_name}{default}")
    }

    /// Whether there is a column of that name and type.
    fn exists(&self) -> Result<bool, Error> {
        const COLUMN: &str = "
            SELECT attnum, atttypid, atttypmod FROM pg_attribute
            WHERE attrelid = $1 AND attname = $2::name AND NOT attisdropped";
        let rows = spi::catalog(
            COLUMN,
            &[argument(self.table.oid), argument(self.column.as_str())],
        );
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        let number: i16 = row.get(1).unwrap_or(0);
        if number < 1 {
            return Err(Error::SystemColumnName {
                column: self.column.clone(),
            });
        }
        let (Some(oid), Some(modifier)) = (row.get(2), row.get(3)) else {
            return Ok(false);
        };
        let existing = ColumnType { oid, modifier };
        if existing == self.column_type {
            return Ok(true);
        }
        Err(Error::ColumnExists {
            table: self.table.name.clone(),
            column: self.column.clone(),
            existing: existing.name(),
            wanted: self.column_type.name(),
        })
    }
}
