//! Changes of a table's definition, under a lock that is waited for patiently.

use crate::catalog::relation::{Relation, require_owned};
use crate::catalog::tree;
use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::pg::lock::TableLock;
use crate::pg::spi::quote;
use crate::pg::tx::Tx;
use crate::run::driver::Driver;

/// How far a statement reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One table.
    Alone,
    /// All tables below it as well.
    Tree,
}

/// Runs `work`, which changes the definition of the tables. It gets the table as looked up under the lock.
///
/// # Errors
/// [`Error::LockNotAvailable`], [`Error::NotOwner`], and those of `work`.
pub fn alter<T>(
    driver: &Driver,
    relation: &Relation,
    reach: Reach,
    work: impl Fn(&Tx, &Relation) -> Result<T, Error>,
) -> Result<T, Error> {
    alter_with(driver, relation, reach, TableLock::AccessExclusive, work)
}

/// [`alter`] with another lock.
///
/// # Errors
/// Those of [`alter`].
pub fn alter_with<T>(
    driver: &Driver,
    relation: &Relation,
    reach: Reach,
    lock: TableLock,
    work: impl Fn(&Tx, &Relation) -> Result<T, Error>,
) -> Result<T, Error> {
    let tables = match reach {
        Reach::Alone => vec![relation.oid],
        Reach::Tree => driver.transaction(|tx| Ok::<_, Error>(tree::oids(tx, relation.oid)))?,
    };
    let locks = Locks {
        table_name: &relation.name,
        tables: &tables,
        lock: Some(lock),
        permit: require_owned,
    };
    ddl::run(driver, &locks, |tx| {
        work(tx, &Relation::look_up(tx, relation.oid)?)
    })
}

/// Drops a constraint; `only` is "ONLY " for one that the tables below do not have.
pub fn drop_constraint(tx: &Tx, table: &Relation, constraint: &str, only: &str) {
    let (name, constraint) = (table.quoted(), quote(constraint));
    let sql = format!("ALTER TABLE {only}{name} DROP CONSTRAINT IF EXISTS {constraint}");
    tx.execute(&sql, &[]);
}
