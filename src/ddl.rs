//! One statement that needs locks on tables, under a short lock timeout, retried.
//!
//! A statement that waits for an ACCESS EXCLUSIVE lock makes everyone who comes later wait behind it. So it waits for a
//! short time only; then it leaves the queue, lets everyone through, and tries again later.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::backoff;

use crate::catalog::holders;
use crate::error::Error;
use crate::messages::{self, Wait};
use crate::pg::lock::TableLock;
use crate::pg::settings as server_settings;
use crate::pg::tx::{Attempt, Tx};
use crate::run::driver::Driver;
use crate::run::gate;
use crate::run::supervision::Doing;
use crate::settings;

/// The tables that a statement works on, and how it locks them.
pub struct Locks<'a> {
    /// The name that messages give.
    pub table_name: &'a str,
    /// The tables.
    pub tables: &'a [pg_sys::Oid],
    /// How strongly all of them are locked; `None` if the statement only reads, and takes what locks it needs itself.
    pub lock: Option<TableLock>,
    /// Asked before each attempt: whether the current user may lock the tables.
    pub permit: fn(&Tx, &[pg_sys::Oid]) -> Result<(), Error>,
}

/// Runs `work`, which reads the catalogs or prepares statements, in a transaction of its own, as [`run`] does.
///
/// Some of PostgreSQL's functions lock the tables that they are asked about, and preparing a statement locks the tables
/// in it.
///
/// # Errors
/// [`Error::LockNotAvailable`], and those of `work`.
pub fn read<T>(
    driver: &Driver,
    table_name: &str,
    table: pg_sys::Oid,
    work: impl FnMut(&Tx) -> Result<T, Error>,
) -> Result<T, Error> {
    let locks = Locks {
        table_name,
        tables: &[table],
        lock: None,
        permit: |_, _| Ok(()),
    };
    run(driver, &locks, work)
}

/// Runs `statement` with the locks, in a transaction of its own, as often as it takes to get them.
///
/// `statement` may be run several times; all but the last are undone. It can hold its locks only as long as it runs.
/// What it relies on may have changed since the caller looked, for the locks may have come late: it looks again.
///
/// # Errors
/// [`Error::LockNotAvailable`] when `lock_retry_limit` is reached, and those of `permit` and `statement`.
pub fn run<T>(
    driver: &Driver,
    locks: &Locks<'_>,
    mut statement: impl FnMut(&Tx) -> Result<T, Error>,
) -> Result<T, Error> {
    let began = Instant::now();
    let mut retries = 0;
    loop {
        gate::pass(driver)?;
        let limit = settings::lock_retry_limit();
        let holders = match try_for_a_while(driver, locks, &mut statement)? {
            Ok(result) => {
                if retries > 0 {
                    driver.note(Doing::Work)?;
                }
                return Ok(result);
            }
            Err(holders) => holders,
        };
        if retries >= limit {
            return Err(Error::LockNotAvailable {
                table: locks.table_name.into(),
                attempts: retries + 1,
                holders,
            });
        }
        let pause = backoff::pause(retries, chance());
        retries += 1;
        let wait = Wait::table_lock(locks.table_name, holders.as_deref()).to_string();
        driver.note(Doing::WaitFor(&wait, began.elapsed()))?;
        messages::say_retry(locks.table_name, retries, limit, pause, holders);
        gate::rest(driver, pause)?;
        driver.note(Doing::TryAgain)?;
    }
}

/// Who kept a statement from its locks, as far as that can be found.
type Holders = Option<String>;

/// What one attempt to take all locks came to.
enum Locked<T> {
    /// All were acquired, and the statement has run.
    All(T),
    /// This table is locked by others. All locks taken so far are released.
    Busy(pg_sys::Oid),
}

/// One attempt: all locks, within one lock timeout.
///
/// Waits for one table at a time, holding no other lock. If another one is locked, it releases everything and waits for
/// that one first.
fn try_for_a_while<T>(
    driver: &Driver,
    locks: &Locks<'_>,
    statement: &mut impl FnMut(&Tx) -> Result<T, Error>,
) -> Result<Result<T, Holders>, Error> {
    let (began, limit) = (Instant::now(), settings::lock_timeout());
    let mut first = locks.tables.first().copied();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let attempted = driver.transaction(|tx| {
            (locks.permit)(tx, locks.tables)?;
            match tx.attempt(|| take_and_run(tx, locks, first, left, statement)) {
                Attempt::Done(result) => result.map(Ok),
                Attempt::Locked(_) => Ok(Err(locks.holders(tx))),
            }
        })?;
        match attempted {
            Ok(Locked::All(result)) => return Ok(Ok(result)),
            Ok(Locked::Busy(table)) if began.elapsed() < limit => first = Some(table),
            Ok(Locked::Busy(_)) => {
                let holders = driver.transaction(|tx| Ok::<_, Error>(locks.holders(tx)))?;
                return Ok(Err(holders));
            }
            Err(holders) => return Ok(Err(holders)),
        }
    }
}

fn take_and_run<T>(
    tx: &Tx,
    locks: &Locks<'_>,
    first: Option<pg_sys::Oid>,
    left: Duration,
    statement: &mut impl FnMut(&Tx) -> Result<T, Error>,
) -> Result<Locked<T>, Error> {
    // Others who wait for the locks held here must not start looking for a deadlock while this waits for another one.
    let second_wait = server_settings::deadlock_timeout() / 2;
    // Autovacuum gives way only to those who have waited for deadlock_timeout. Without this, it would outlast every attempt.
    tx.set_deadlock_timeout(server_settings::deadlock_timeout().min(left / 2));
    tx.set_lock_timeout(left);
    let began = Instant::now();
    if let (Some(lock), Some(first)) = (locks.lock, first) {
        tx.lock_table(first, lock);
        let mut others = locks.tables.iter().filter(|&&table| table != first);
        if let Some(&busy) = others.find(|&&table| !tx.try_lock_table(table, lock)) {
            return Ok(Locked::Busy(busy));
        }
    }
    let left = left.saturating_sub(began.elapsed());
    tx.set_lock_timeout(left.min(second_wait));
    statement(tx).map(Locked::All)
}

/// A random number from 0 to 1, from the seed that Rust's hash maps are given.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

impl Locks<'_> {
    /// Who has a conflicting lock on one of the tables.
    fn holders(&self, tx: &Tx) -> Holders {
        let only_strong = self.lock != Some(TableLock::AccessExclusive);
        holders::of_tables(tx, self.tables, only_strong)
    }
}
