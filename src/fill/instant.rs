//! Whether rows that lack the column can get the value without being written.

use pgrx::pg_sys;

use crate::catalog::attribute::Attribute;
use crate::catalog::dependents::Obstacles;
use crate::catalog::relation::require_owned;
use crate::error::{Error, InstantReason};
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::pg::tx::Tx;

/// Largest value, in bytes. It lies in a row of `pg_attribute`, which must fit on one page of 8 kB together with the rest of
/// the row, and every session that uses the table keeps a copy.
const LARGEST_VALUE: usize = 1024;

/// Fails if the method cannot be used on one of the leaves of the target. Reads the catalogs alone, and takes no lock on a
/// table.
///
/// # Errors
/// [`Error::Instant`], [`Error::NotOwner`], [`Error::CheckViolation`], [`Error::AccessMethod`], [`Error::RowSecurity`],
/// [`Error::UpdateRule`], [`Error::PartitionKey`].
pub fn require(tx: &Tx, target: &Target, value: &Value) -> Result<(), Error> {
    let obstacles = Obstacles::prepare(tx);
    require_for(tx, &obstacles, target, value, &target.leaves)
}

/// As [`require`], for some leaves.
///
/// # Errors
/// Those of [`require`].
pub fn require_for(
    tx: &Tx,
    obstacles: &Obstacles,
    target: &Target,
    value: &Value,
    leaves: &[pg_sys::Oid],
) -> Result<(), Error> {
    require_owned(tx, leaves)?;
    if let Some(why) = of_value(tx, value) {
        return Err(Error::Instant {
            table: target.table_name.clone(),
            column: target.column.clone(),
            why,
        });
    }
    match obstacles.find(tx, leaves, &target.column) {
        Some(obstacle) => Err(obstacle),
        None => require_checks(tx, target, value, leaves),
    }
}

fn of_value(tx: &Tx, value: &Value) -> Option<InstantReason> {
    if value.filter.is_some() {
        return Some(InstantReason::Filter);
    }
    let bytes = value.constant()?.stored_bytes(tx);
    let most = LARGEST_VALUE;
    (bytes > most).then_some(InstantReason::LargeValue { bytes, most })
}

/// A leaf may have CHECKs of its own, and the table that was named may have got one since the CALL began.
fn require_checks(
    tx: &Tx,
    target: &Target,
    value: &Value,
    leaves: &[pg_sys::Oid],
) -> Result<(), Error> {
    for (leaf, attribute) in Attribute::find_all(tx, leaves, &target.column) {
        value.require_checks(tx, target, leaf, attribute.number)?;
    }
    Ok(())
}
