//! Adds a column without rewriting the table.
//!
//! PostgreSQL keeps the value that older rows are read with in the catalogs (`atthasmissing` in `pg_attribute`), if it
//! is one constant. Everything that would make it rewrite the table is refused.

use pgrx::pg_sys;

use crate::catalog::attribute::Attribute;
use crate::catalog::relation::{Relation, require_alterable, require_owned};
use crate::catalog::tree;
use crate::ddl::{self, Locks};
use crate::error::{Error, RewriteReason};
use crate::job::step::Step;
use crate::messages;
use crate::pg::lock::TableLock;
use crate::pg::parse;
use crate::pg::settings::Temporarily;
use crate::pg::spi::{quote, quote_literal};
use crate::pg::tx::Tx;
use crate::pg::value::{ColumnType, Constant};
use crate::run::driver::Driver;

/// A column to be added, found to need no rewrite.
pub struct Request {
    table: Relation,
    column: String,
    column_type: ColumnType,
    default: Option<Constant>,
}

impl Request {
    /// Checks the table and the type, and has `default` make a value of that type. Changes nothing.
    ///
    /// # Errors
    /// Those of [`require_alterable`], [`Error::NotAType`], [`Error::WouldRewrite`], PostgreSQL's own for an unknown
    /// type, and those of `default`.
    pub fn prove(
        tx: &Tx,
        table: pg_sys::Oid,
        column: String,
        type_text: &str,
        default: impl FnOnce(&Tx, ColumnType) -> Result<Option<Constant>, Error>,
    ) -> Result<Self, Error> {
        let table = require_alterable(tx, table)?;
        let would_rewrite = |why| would_rewrite(&table, &column, why);
        if let Some(why) = serial(type_text) {
            return Err(would_rewrite(why));
        }
        let column_type = parse::type_name(tx, type_text).ok_or_else(|| Error::NotAType {
            text: type_text.into(),
        })?;
        // First this: otherwise a constraint of the domain could refuse the default with another error.
        if let Some(why) = constraints(tx, column_type) {
            return Err(would_rewrite(why));
        }
        let request = Request {
            default: default(tx, column_type)?,
            table,
            column,
            column_type,
        };
        request.require_no_rewrite(tx)?;
        Ok(request)
    }

    fn require_no_rewrite(&self, tx: &Tx) -> Result<(), Error> {
        let volatile = || {
            let found = self.default.is_none() && self.column_type.default_is_volatile(tx);
            found.then(|| RewriteReason::VolatileDefault(self.column_type.name(tx)))
        };
        match constraints(tx, self.column_type).or_else(volatile) {
            Some(why) => Err(would_rewrite(&self.table, &self.column, why)),
            None => Ok(()),
        }
    }
}

fn would_rewrite(table: &Relation, column: &str, why: RewriteReason) -> Error {
    Error::WouldRewrite {
        table: table.name.clone(),
        column: column.into(),
        why,
    }
}

/// Why PostgreSQL would have to check every row for a column of this type, if it would.
fn constraints(tx: &Tx, column_type: ColumnType) -> Option<RewriteReason> {
    column_type
        .has_domain_constraints(tx)
        .then(|| RewriteReason::DomainConstraints(column_type.name(tx)))
}

/// Why a column of this type could not be added, if it is `serial` or a variant, which are not real types.
fn serial(text: &str) -> Option<RewriteReason> {
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
        .then(|| RewriteReason::Serial(text.trim().into()))
}

/// Adds the column, to all tables below the named one as well.
///
/// # Errors
/// [`Error::ColumnExists`] if there is one of another type, [`Error::LockNotAvailable`], and PostgreSQL's own.
pub fn run(driver: &Driver, request: &Request) -> Result<(), Error> {
    let exists = driver.transaction(|tx| request.exists(tx))?;
    if !exists {
        let (table, column) = (request.table.oid, &request.column);
        let add = || add(driver, request);
        if Step::run(driver, "safe_add_column", table, column, add)? {
            return Ok(());
        }
    }
    let type_name = driver.transaction(|tx| Ok::<_, Error>(request.column_type.name(tx)))?;
    let has_default = request.default.is_some();
    messages::say_column_exists(
        &request.table.name,
        &request.column,
        &type_name,
        has_default,
    );
    Ok(())
}

/// `false` if another session has added it in the meantime.
fn add(driver: &Driver, request: &Request) -> Result<bool, Error> {
    let tables = driver.transaction(|tx| Ok::<_, Error>(tree::oids(tx, request.table.oid)))?;
    let locks = Locks {
        table_name: &request.table.name,
        tables: &tables,
        lock: Some(TableLock::AccessExclusive),
        permit: require_owned,
    };
    ddl::run(driver, &locks, |tx| {
        let table = Relation::look_up(tx, request.table.oid)?;
        if request.exists(tx)? {
            return Ok(false);
        }
        // The domain may have got a constraint while this waited for the table.
        request.require_no_rewrite(tx)?;
        let _reading = Temporarily::array_nulls(tx);
        tx.execute(&request.statement(tx, &table), &[]);
        Ok(true)
    })
}

impl Request {
    fn statement(&self, tx: &Tx, table: &Relation) -> String {
        let (name, column) = (table.quoted(), quote(&self.column));
        let type_name = self.column_type.qualified_name(tx);
        let default = match &self.default {
            Some(value) => format!(
                " DEFAULT {}::{type_name}",
                quote_literal(&value.to_text(tx))
            ),
            None => String::new(),
        };
        format!("ALTER TABLE {name} ADD COLUMN {column} {type_name}{default}")
    }

    /// Whether there is a column of that name and type.
    fn exists(&self, tx: &Tx) -> Result<bool, Error> {
        let Some(existing) = Attribute::find(tx, self.table.oid, &self.column) else {
            return Ok(false);
        };
        if existing.number < 1 {
            return Err(Error::SystemColumnName {
                column: self.column.clone(),
            });
        }
        if existing.column_type == self.column_type {
            return Ok(true);
        }
        Err(Error::ColumnExists {
            table: self.table.name.clone(),
            column: self.column.clone(),
            existing: existing.column_type.name(tx),
            wanted: self.column_type.name(tx),
        })
    }
}
