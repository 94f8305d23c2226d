//! One statement that needs locks on tables, under a short lock timeout, retried.
//!
//! A statement that waits for an ACCESS EXCLUSIVE lock makes everyone who comes later wait behind it. So it waits for a
//! short time only; then it leaves the queue, lets everyone through, and tries again later.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::backoff;

use crate::error::Error;
use crate::pg::lock::{TableLock, lock_table, try_lock_table};
use crate::pg::spi::{self, argument};
use crate::pg::transaction::{Attempt, attempt, commit_after};
use crate::pg::{message, settings as pg_settings, usage};
use crate::settings;

/// The tables that a statement works on.
pub struct Locks<'a> {
    /// The name that messages give.
    pub table_name: &'a str,
    /// The tables.
    pub tables: &'a [pg_sys::Oid],
    /// How strongly all of them are locked; `None` if the statement only reads, and takes what locks it needs itself.
    pub lock: Option<TableLock>,
    /// Asked before each attempt: whether the current user may lock the tables.
    pub permit: fn(&[pg_sys::Oid]) -> Result<(), Error>,
}

/// Runs `work`, which reads the catalogs or prepares statements, in a transaction of its own, as [`run`] does.
///
/// Some of PostgreSQL's functions lock the tables that they are asked about, and preparing a statement locks the tables
/// in it.
///
/// # Errors
/// [`Error::LockNotAvailable`], and those of `work`.
pub fn read<T>(
    table_name: &str,
    table: pg_sys::Oid,
    work: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let locks = Locks {
        table_name,
        tables: &[table],
        lock: None,
        permit: |_| Ok(()),
    };
    run(&locks, work)
}

/// Runs `statement` with the locks, in a transaction of its own, as often as it takes to get them.
///
/// `statement` may be run several times; all but the last are undone. It can hold its locks only as long as it runs.
/// What it relies on may have changed since the caller looked, for the locks may have come late: it looks again.
///
/// # Errors
/// [`Error::LockNotAvailable`] when `lock_retry_limit` is reached, and those of `permit` and `statement`.
pub fn run<T>(
    locks: &Locks<'_>,
    mut statement: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut retries = 0;
    loop {
        pg_settings::reload_if_asked();
        let limit = settings::lock_retry_limit();
        let holders = match try_for_a_while(locks, &mut statement)? {
            Ok(result) => return Ok(result),
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
        say_retry(locks, retries, limit, pause, holders);
        usage::rest(pause);
    }
}

/// Who kept a statement from its locks, as far as they are to be found.
type Holders = Option<String>;

/// How the wait for all locks went.
enum Taken<T> {
    /// They were to be had, and the statement has run.
    All(T),
    /// This table was not, and nothing is locked any more.
    Busy(pg_sys::Oid),
}

/// One attempt: all locks, within one lock timeout.
///
/// Of several tables only one is ever waited for, while nothing else is locked. The others have to be free then.
fn try_for_a_while<T>(
    locks: &Locks<'_>,
    statement: &mut impl FnMut() -> Result<T, Error>,
) -> Result<Result<T, Holders>, Error> {
    let (began, limit) = (Instant::now(), settings::lock_timeout());
    let mut first = locks.tables.first().copied();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let attempted = commit_after(|| {
            (locks.permit)(locks.tables)?;
            match attempt(|| take_and_run(locks, first, left, statement)) {
                Attempt::Done(result) => result.map(Ok),
                Attempt::Locked(_) => Ok(Err(holders(locks))),
            }
        })?;
        match attempted {
            Ok(Taken::All(result)) => return Ok(Ok(result)),
            Ok(Taken::Busy(table)) if began.elapsed() < limit => first = Some(table),
            Ok(Taken::Busy(_)) => return Ok(Err(commit_after(|| Ok(holders(locks)))?)),
            Err(holders) => return Ok(Err(holders)),
        }
    }
}

fn take_and_run<T>(
    locks: &Locks<'_>,
    first: Option<pg_sys::Oid>,
    left: Duration,
    statement: &mut impl FnMut() -> Result<T, Error>,
) -> Result<Taken<T>, Error> {
    // Others that wait for what is locked here must not look for a deadlock while something else is waited for.
    let second_wait = pg_settings::deadlock_timeout() / 2;
    // Otherwise autovacuum, which gives way only to someone who has waited for this long, would outlast every attempt.
    pg_settings::set_local_deadlock_timeout(pg_settings::deadlock_timeout().min(left / 2));
    pg_settings::set_local_lock_timeout(left);
    let began = Instant::now();
    if let (Some(lock), Some(first)) = (locks.lock, first) {
        lock_table(first, lock);
        let mut others = locks.tables.iter().filter(|&&table| table != first);
        if let Some(&busy) = others.find(|&&table| !try_lock_table(table, lock)) {
            return Ok(Taken::Busy(busy));
        }
    }
    let left = left.saturating_sub(began.elapsed());
    pg_settings::set_local_lock_timeout(left.min(second_wait));
    statement().map(Taken::All)
}

fn say_retry(locks: &Locks<'_>, retry: u32, limit: u32, pause: Duration, holders: Holders) {
    message::notice_with(
        format!(
            "could not lock table \"{}\" within {} ms, retry {retry} of {limit} in {} ms",
            locks.table_name,
            settings::lock_timeout().as_millis(),
            pause.as_millis()
        ),
        holders.map(|holders| format!("Locks are held by {holders}.")),
        None,
    );
}

/// A random number from 0 to 1, from the seed that Rust's hash maps are given.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

/// Sessions and prepared transactions with a conflicting lock on one of the tables, the oldest first.
///
/// What a statement reads besides is not known: if it does, those come in who let nobody read some table.
fn holders(locks: &Locks<'_>) -> Holders {
    const HOLDERS: &str = "
        SELECT string_agg(description, '; ' ORDER BY began)
        FROM (
            SELECT DISTINCT
                CASE WHEN l.pid IS NULL THEN format('prepared transaction \"%s\" of %s', p.gid, p.prepared)
                     ELSE format('process %s (application \"%s\", user \"%s\"), whose transaction began %s ago, query: %s',
                                 l.pid, a.application_name, a.usename,
                                 coalesce(date_trunc('second', clock_timestamp() - a.xact_start)::text, 'some time'),
                                 regexp_replace(left(a.query, 80), '\\s+', ' ', 'g'))
                END AS description,
                coalesce(a.xact_start, p.prepared) AS began
            FROM pg_locks l
            LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
                 AND x.virtualtransaction = l.virtualtransaction
            LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
            WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (l.relation = ANY ($1)
                 AND (NOT $2 OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
                 OR $2 AND l.mode = 'AccessExclusiveLock' AND l.relation >= 16384)
            ORDER BY began LIMIT 5) holder";
    let only_strong = locks.lock != Some(TableLock::AccessExclusive);
    spi::catalog(
        HOLDERS,
        &[argument(locks.tables.to_vec()), argument(only_strong)],
    )
    .first()
    .and_then(|row| row.get(1))
}
