//! How a background worker takes up the job that it was started for.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::catalog::holders;
use crate::catalog::relation::Relation;
use crate::error::Error;
use crate::job::column_lock;
use crate::job::home::Home;
use crate::job::stored::{self, Stored};
use crate::pg::lock::ColumnLock;
use crate::pg::server;
use crate::pg::tx::Tx;
use crate::run::driver::Driver;
use crate::run::gate;

/// How long another process may take to let go of the column, which it does when it has seen that it is to end.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A job that is to be worked on.
struct Open {
    table: pg_sys::Oid,
    column: String,
    number: i16,
    pid: Option<i32>,
}

/// What comes of an attempt.
enum Attempt {
    Taken(ColumnLock, Box<Stored>),
    /// The job is not to be worked on any more, or another process does.
    Over,
    /// The column is locked by another process.
    Held(Error),
}

/// Locks the column, then takes the job for this process; `None` if it is not to be worked on any more, or another process
/// works on it.
///
/// Each call of `safe_backfill_resume` before the worker has begun starts another one; the column's lock decides.
///
/// # Errors
/// [`Error::AlreadyRunning`], [`Error::ExtensionDropped`], [`Error::StoredJob`].
pub fn take_up(
    driver: &Driver,
    home: &Home,
    id: i64,
) -> Result<Option<(ColumnLock, Stored)>, Error> {
    let began = Instant::now();
    loop {
        match attempt(driver, home, id)? {
            Attempt::Taken(lock, stored) => return Ok(Some((lock, *stored))),
            Attempt::Over => return Ok(None),
            Attempt::Held(error) if began.elapsed() >= PATIENCE => return Err(error),
            Attempt::Held(_) => gate::rest(driver, POLL)?,
        }
    }
}

fn attempt(driver: &Driver, home: &Home, id: i64) -> Result<Attempt, Error> {
    let Some(job) = home.patiently(driver, |tx| find(tx, home, id))? else {
        return Ok(Attempt::Over);
    };
    let locked = driver.transaction(|tx| {
        let lock = ColumnLock::try_acquire(tx, job.table, job.number);
        lock.map_or_else(|| in_the_way(tx, &job).map(Err), |lock| Ok(Ok(lock)))
    })?;
    match locked {
        Ok(lock) => {
            let taken = home.patiently(driver, |tx| stored::take(tx, home, id))?;
            Ok(taken.map_or(Attempt::Over, |stored| {
                Attempt::Taken(lock, Box::new(stored))
            }))
        }
        Err(Some(error)) => Ok(Attempt::Held(error)),
        Err(None) => Ok(Attempt::Over),
    }
}

fn find(tx: &Tx, home: &Home, id: i64) -> Result<Option<Open>, Error> {
    const FIND: &str = "
        SELECT table_name::oid, column_name::text, column_number, pid FROM @job
        WHERE system_identifier = $1 AND job_id = $2 AND state IN ('running', 'paused')";
    let rows = home.execute(tx, FIND, &[&server::system_identifier(), &id])?;
    Ok(rows.first().and_then(|row| {
        Some(Open {
            table: row.get(1)?,
            column: row.get(2)?,
            number: row.get(3)?,
            pid: row.get(4),
        })
    }))
}

/// The error that names who has locked the column; `None` if that process works on this very job.
fn in_the_way(tx: &Tx, job: &Open) -> Result<Option<Error>, Error> {
    let holder = holders::of_column(tx, job.table, job.number);
    if holder.is_some() && holder == job.pid {
        return Ok(None);
    }
    let table = Relation::look_up(tx, job.table)?.name;
    Ok(Some(column_lock::already_running(
        tx,
        &table,
        &job.column,
        holder,
    )))
}
