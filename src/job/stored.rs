//! What is stored of earlier runs of a job.

use std::collections::HashMap;

use pgrx::pg_sys;

use crate::catalog::session_settings;
use crate::error::Error;
use crate::job::assignment::Assignment;
use crate::job::home::Home;
use crate::job::method::Method;
use crate::job::part::{Activity, Position};
use crate::job::recipe::Recipe;
use crate::pg::spi::Row;
use crate::pg::tx::Tx;
use crate::pg::{role, server, usage};

/// A leaf table that was verified before is looked at again.
pub fn finished() -> Position {
    Position {
        activity: Activity::Verifying,
        ..Position::default()
    }
}

/// The number of the job that fills the same with the same, if it is not finished.
///
/// # Errors
/// [`Error::ExtensionDropped`], [`Error::StoredJob`].
pub fn find_unfinished(tx: &Tx, home: &Home, what: &Assignment) -> Result<Option<i64>, Error> {
    const UNFINISHED: &str = "
        SELECT job_id, value::text FROM @job
        WHERE system_identifier = $1 AND table_name = $2 AND column_number = $3
        AND filter IS NOT DISTINCT FROM $4 AND state IN ('running', 'paused', 'cancelled', 'failed')
        ORDER BY job_id DESC";
    let cluster = server::system_identifier();
    let rows = home.execute(
        tx,
        UNFINISHED,
        &[&cluster, &what.root, &what.number, &what.filter],
    )?;
    for row in rows.iter() {
        let stored: String = row.get(2).unwrap_or_default();
        if serde_json::from_str::<Recipe>(&stored)? == what.recipe {
            return Ok(row.get(1));
        }
    }
    Ok(None)
}

/// How far job `id` has come with each of its leaf tables.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn positions(tx: &Tx, home: &Home, id: i64) -> Result<HashMap<pg_sys::Oid, Position>, Error> {
    const PARTS: &str = "
        SELECT table_name::oid, state, file_node, next_block, end_block, rows_found, rows_without_value
        FROM @part
        WHERE system_identifier = $1 AND job_id = $2";
    let rows = home.execute(tx, PARTS, &[&server::system_identifier(), &id])?;
    Ok(rows.iter().filter_map(position).collect())
}

fn position(row: Row<'_>) -> Option<(pg_sys::Oid, Position)> {
    let block = |number| {
        let block: Option<i64> = row.get(number);
        block.and_then(|block| block.try_into().ok()).unwrap_or(0)
    };
    let state: String = row.get(2)?;
    let stored = |activity| Position {
        activity,
        file_node: row.get(3),
        next_block: block(4),
        blocks_done: block(4),
        end_block: block(5),
        rows_found: row.get::<i64>(6).unwrap_or(0).unsigned_abs(),
        rows_without_value: row.get::<i64>(7).unwrap_or(0).unsigned_abs(),
    };
    let position = match state.as_str() {
        "pending" | "filling" => stored(Activity::Filling),
        "verifying" => stored(Activity::Verifying),
        _ => finished(),
    };
    Some((row.get(1)?, position))
}

/// A background job, as its worker finds it.
pub struct Stored {
    /// The table that was named.
    pub table: pg_sys::Oid,
    /// The column.
    pub column: String,
    /// Its number in that table.
    pub number: i16,
    /// What goes into it.
    pub recipe: Recipe,
    /// The condition that a row must meet to be filled.
    pub filter: Option<String>,
    /// How rows get their value.
    pub method: Method,
    /// Most rows of a batch.
    pub batch_size: i32,
    /// How many processes work on it.
    pub workers: i32,
    /// The settings of the session that has started it, which decide how its SQL is read.
    pub settings: Vec<(String, String)>,
}

/// Takes a job for this process, which is its background worker; `None` if it is not to be worked on any more.
///
/// # Errors
/// [`Error::ExtensionDropped`], [`Error::StoredJob`].
pub fn take(tx: &Tx, home: &Home, id: i64) -> Result<Option<Stored>, Error> {
    const TAKE: &str = "
        UPDATE @job SET pid = $3
        WHERE system_identifier = $1 AND job_id = $2 AND state IN ('running', 'paused')
        RETURNING table_name::oid, column_name::text, value::text, filter, batch_size, workers, settings::text,
               column_number, method";
    let (cluster, pid) = (server::system_identifier(), usage::pid());
    let rows = home.execute(tx, TAKE, &[&cluster, &id, &pid])?;
    rows.first().map(stored).transpose()
}

/// Reads a job, whoever works on it; `None` if it is gone.
///
/// # Errors
/// [`Error::ExtensionDropped`], [`Error::StoredJob`].
pub fn read(tx: &Tx, home: &Home, id: i64) -> Result<Option<Stored>, Error> {
    const READ: &str = "
        SELECT table_name::oid, column_name::text, value::text, filter, batch_size, workers, settings::text,
               column_number, method
        FROM @job WHERE system_identifier = $1 AND job_id = $2";
    let rows = home.execute(tx, READ, &[&server::system_identifier(), &id])?;
    rows.first().map(stored).transpose()
}

fn stored(row: Row<'_>) -> Result<Stored, Error> {
    let text = |number| row.get::<String>(number).unwrap_or_default();
    Ok(Stored {
        table: row.get(1).unwrap_or(pg_sys::InvalidOid),
        column: text(2),
        number: row.get(8).unwrap_or_default(),
        recipe: serde_json::from_str(&text(3))?,
        filter: row.get(4),
        method: Method::named(&text(9)).unwrap_or(Method::Batch),
        batch_size: row.get(5).unwrap_or(1),
        workers: row.get(6).unwrap_or(1),
        settings: session_settings::parse(&text(7))?,
    })
}

/// Has job `id` be worked on by a background worker that is yet to begin, with the settings of this session.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn hand_over(tx: &Tx, home: &Home, id: i64, what: &Assignment) -> Result<(), Error> {
    const HAND_OVER: &str = "
        UPDATE @job
        SET state = 'running', background = true, pid = NULL, error = NULL, finished_at = NULL, waits_for = NULL,
            waits_since = NULL, role = $3::regrole, batch_size = $5, workers = $6, started_at = clock_timestamp(),
            settings = $4::jsonb, method = $7
        WHERE system_identifier = $1 AND job_id = $2";
    let cluster = server::system_identifier();
    let (settings, role) = (session_settings::of_sql(tx)?, role::current_user());
    home.execute(
        tx,
        HAND_OVER,
        &[
            &cluster,
            &id,
            &role,
            &settings,
            &what.batch_size,
            &what.workers,
            &what.method.name(),
        ],
    )
    .map(drop)
}

/// The background jobs of this database that a crash or a shutdown of the server has interrupted: number and role.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn interrupted(tx: &Tx, home: &Home) -> Result<Vec<(i64, pg_sys::Oid)>, Error> {
    const INTERRUPTED: &str = "
        SELECT job_id, role::oid FROM @job
        WHERE system_identifier = $1 AND background AND state IN ('running', 'paused')
        ORDER BY job_id";
    let rows = home.execute(tx, INTERRUPTED, &[&server::system_identifier()])?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((row.get(1)?, row.get(2)?)))
        .collect())
}
