//! A quick scan for NULLs in a column, before anything is touched.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::catalog::relation::Relation;
use crate::error::Error;
use crate::pg::spi::quote;
use crate::pg::tx::{Attempt, Tx};
use crate::run::driver::Driver;
use crate::run::gate;
use crate::settings;

/// Blocks that are read at a time.
const STRETCH: u32 = 256;
/// Longer than this is not looked: the validation will find what is left.
const PATIENCE: Duration = Duration::from_secs(1);
/// More NULLs than this are not counted.
const ENOUGH: u64 = 1000;

/// What the scan of one or several tables has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows whose column is NULL.
    pub nulls: u64,
    /// There may be more: the tables were not read to the end.
    pub maybe_more: bool,
    /// Blocks that were read.
    pub blocks: u64,
    /// How long that took.
    pub time: Duration,
}

/// Counts the table's rows whose column is NULL, from its end: a backfill comes to those rows last, and new ones go there.
///
/// Adds to what was found in other tables. Each stretch of blocks is read in a transaction of its own. The scan ends when
/// the table is locked, when many NULLs were found, or after a second.
///
/// # Errors
/// PostgreSQL's own.
pub fn scan(
    driver: &Driver,
    table: &Relation,
    column: &str,
    found: &mut Found,
) -> Result<(), Error> {
    let began = Instant::now();
    let before = found.time;
    let Some(blocks) = unless_locked(driver, |tx| table.blocks(tx))? else {
        found.maybe_more = true;
        return Ok(());
    };
    for stretch in stretches(blocks) {
        gate::pass(driver)?;
        let enough = found.nulls >= ENOUGH || found.time >= PATIENCE;
        let nulls = match enough {
            true => None,
            false => unless_locked(driver, |tx| count(tx, table, column, &stretch))?,
        };
        let Some(nulls) = nulls else {
            found.maybe_more = true;
            break;
        };
        found.blocks += u64::from(stretch.end - stretch.start);
        found.nulls += nulls;
        found.time = before + began.elapsed();
    }
    Ok(())
}

/// `None` if a lock was not to be had within the lock timeout.
fn unless_locked<T>(driver: &Driver, work: impl FnOnce(&Tx) -> T) -> Result<Option<T>, Error> {
    driver.transaction(|tx| {
        tx.set_lock_timeout(settings::lock_timeout());
        Ok(match tx.attempt(|| work(tx)) {
            Attempt::Done(result) => Some(result),
            Attempt::Locked(_) => None,
        })
    })
}

/// Pure: the blocks of a table in stretches, the last stretch first.
fn stretches(blocks: u32) -> impl Iterator<Item = Range<u32>> {
    (0..blocks)
        .step_by(STRETCH as usize)
        .map(move |start| start..start.saturating_add(STRETCH).min(blocks))
        .rev()
}

/// The name of the column stands alone: after a dot, PostgreSQL would take it for a function if the column is gone.
///
/// `IS NOT DISTINCT FROM NULL` is what NOT NULL means also for composite types, of which `IS NULL` asks something else.
fn count(tx: &Tx, table: &Relation, column: &str, blocks: &Range<u32>) -> u64 {
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM ONLY {} AS t \
         WHERE t.ctid OPERATOR(pg_catalog.>=) '({},0)' AND t.ctid OPERATOR(pg_catalog.<) '({},0)' \
         AND {} IS NOT DISTINCT FROM NULL",
        table.quoted(),
        blocks.start,
        blocks.end,
        quote(column)
    );
    let rows = tx.execute(&sql, &[]);
    let count: Option<i64> = rows.first().and_then(|row| row.get(1));
    count.unwrap_or(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_block_is_looked_at_once(blocks in 0u32..100_000) {
            let mut seen: Vec<u32> = stretches(blocks).flatten().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..blocks).collect::<Vec<_>>());
        }
    }
}
