//! Gives rows that lack the column its value, through the catalogs.
//!
//! A row that was written before `ALTER TABLE ADD COLUMN` does not have the column. PostgreSQL reads it as NULL, or as the
//! value that `pg_attribute` keeps for such rows, if it does: that is how ADD COLUMN with a default need not write them.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::catalog::attribute::Attribute;
use crate::catalog::dependents::Obstacles;
use crate::catalog::relation::{Relation, require_owned};
use crate::catalog::tree;
use crate::ddl::{self, Locks};
use crate::error::{Change, Error};
use crate::fill::instant;
use crate::fill::request::Request;
use crate::fill::target::Target;
use crate::job::method::Method;
use crate::messages;
use crate::pg::lock::TableLock;
use crate::pg::missing;
use crate::pg::tx::Tx;
use crate::pg::value::Constant;
use crate::run::driver::Driver;

/// What became of the rows of one leaf that lack the column.
enum Absent {
    /// They have the value now; the statement began at this time.
    Set(Instant),
    /// They had this value before, as an array of one element.
    Had(String),
    /// The leaf does not belong to the table any more.
    Gone,
}

/// Has rows that lack the column be read with the value, leaf by leaf, if the request asks for that. Rows that are NULL are
/// left.
///
/// Leaves that were done before are passed over.
///
/// # Errors
/// [`Error::LockNotAvailable`], [`Error::ColumnChanged`], and those of [`instant::require`], which should have been met
/// before the run began. All leaves before the error stay as they are.
pub fn fill(driver: &Driver, request: &Request) -> Result<(), Error> {
    let (Method::Instant, Some(constant)) = (request.method, request.value.constant()) else {
        return Ok(());
    };
    let target = &request.target;
    let plan = driver.transaction(|tx| {
        Ok::<_, Error>(Plan {
            request,
            array: missing::array_of(tx, &constant),
            constant: &constant,
            obstacles: Obstacles::prepare(tx),
        })
    })?;
    let (mut tables, mut longest, mut other) = (0, Duration::ZERO, None);
    for &leaf in &target.leaves {
        match plan.fill_leaf(driver, leaf)? {
            Absent::Set(began) => {
                tables += 1;
                longest = longest.max(began.elapsed());
            }
            Absent::Had(value) if value != plan.array => other = other.or(Some(value)),
            Absent::Had(_) | Absent::Gone => {}
        }
    }
    let (table, column) = (&target.table_name, &target.column);
    if let Some(value) = other {
        messages::say_had_value(table, column, &value);
    }
    if tables > 0 {
        messages::say_instant(table, column, &target.quoted(), tables, longest);
    }
    Ok(())
}

/// What is done to each leaf.
struct Plan<'a> {
    request: &'a Request,
    constant: &'a Constant,
    /// The value as an array of one element.
    array: String,
    obstacles: Obstacles,
}

impl Plan<'_> {
    fn fill_leaf(&self, driver: &Driver, leaf: pg_sys::Oid) -> Result<Absent, Error> {
        let target = &self.request.target;
        let before = driver.transaction(|tx| {
            let found = Relation::look_up_all(tx, &[leaf]).pop();
            let had = missing::find(tx, leaf, &target.column);
            Ok::<_, Error>(found.map(|relation| (relation.name, had)))
        })?;
        let name = match before {
            None => return Ok(Absent::Gone),
            Some((_, Some(had))) => return Ok(Absent::Had(had)),
            Some((name, None)) => name,
        };
        let locks = Locks {
            table_name: &name,
            tables: &[leaf],
            lock: Some(TableLock::AccessExclusive),
            permit: require_owned,
        };
        ddl::run(driver, &locks, |tx| self.set(tx, leaf))
    }

    /// Sets the value, under the lock. What was found before may have changed, and is looked at again.
    fn set(&self, tx: &Tx, leaf: pg_sys::Oid) -> Result<Absent, Error> {
        let began = Instant::now();
        let Request { target, value, .. } = self.request;
        if !tree::contains(tx, target.table, leaf) {
            return Ok(Absent::Gone);
        }
        let Some(attribute) = Attribute::find(tx, leaf, &target.column) else {
            // The sweep tells what has become of the column, or of the table.
            return Ok(Absent::Gone);
        };
        let is_another = leaf == target.table && attribute.number != target.number;
        if is_another || attribute.column_type != self.constant.column_type() {
            return Err(changed(target));
        }
        if let Some(had) = missing::find(tx, leaf, &target.column) {
            return Ok(Absent::Had(had));
        }
        instant::require_for(tx, &self.obstacles, target, value, &[leaf])?;
        missing::set(tx, leaf, &target.column, &self.array);
        // The value went through its text once more.
        match missing::find(tx, leaf, &target.column) {
            Some(now) if now == self.array => Ok(Absent::Set(began)),
            _ => Err(Error::NotKept {
                column: target.column.clone(),
            }),
        }
    }
}

fn changed(target: &Target) -> Error {
    Error::ColumnChanged {
        table: target.table_name.clone(),
        column: target.column.clone(),
        change: Change::Altered,
    }
}
