//! What a backfill would do and cost, without doing it.
//!
//! Whether it would be refused is found out by the code that refuses it; what it costs, by the planner that sweeps tables,
//! over pages that are sampled (`planner::forecast`).

mod costs;
mod finding;
mod holders;
mod indexes;
mod instant;
mod participants;
mod refusals;
mod sample;
mod settings;

use pgrx::pg_sys;

use crate::error::Error;
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::pg::tx::{Attempt, Tx};
use crate::settings as own_settings;

pub use finding::{Finding, Verdict};

/// Reads what the column would be filled with.
pub type ReadValue<'a> = dyn Fn(&Tx, &Target) -> Result<Option<Value>, Error> + 'a;

/// What is asked.
pub struct Question<'a> {
    /// The table.
    pub table: pg_sys::Oid,
    /// The name of its column.
    pub column: &'a str,
    /// Most rows of a batch.
    pub batch_size: i32,
    /// Reads what the column would be filled with, if that is given.
    pub value: &'a ReadValue<'a>,
}

/// Everything that is to be known before a backfill, in the order in which it is read.
///
/// Nothing is written, and no lock is kept.
///
/// # Errors
/// [`Error::NoTable`], and PostgreSQL's own for a cancellation.
pub fn plan(tx: &Tx, question: &Question<'_>) -> Result<Vec<Finding>, Error> {
    let planned = tx.undone(|| {
        tx.set_lock_timeout(own_settings::lock_timeout());
        find(tx, question)
    });
    planned.map_err(Error::OfHelper)?
}

fn find(tx: &Tx, question: &Question<'_>) -> Result<Vec<Finding>, Error> {
    let (proven, mut findings) = refusals::prove(tx, question)?;
    let Some(proven) = proven else {
        return Ok(findings);
    };
    let target = &proven.target;
    if target.is_not_null {
        findings.push(Finding::ok(
            "need",
            format!(
                "column \"{}\" is NOT NULL already: there is nothing to fill",
                target.column
            ),
        ));
        return Ok(findings);
    }
    let holders = holders::of(tx, &proven);
    let horizon = holders::horizon(holders.as_deref());
    match tx.attempt(|| costs::find(tx, &proven, horizon)) {
        Attempt::Done(costs) => findings.extend(costs?),
        Attempt::Locked(message) => findings.push(Finding::of(
            Verdict::Warning,
            "rows to fill",
            format!("could not read the table: {message}"),
            "Ask again when nobody has it locked; a backfill would wait for that, too.",
        )),
    }
    findings.extend(participants::find(tx, target)?);
    findings.extend(holders::findings(holders));
    Ok(findings)
}
