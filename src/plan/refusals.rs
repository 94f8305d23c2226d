//! Everything for which a backfill would be refused, found out by the same code.

use std::cell::RefCell;

use crate::catalog::holders;
use crate::catalog::relation::Relation;
use crate::error::Error;
use crate::fill::request::require_batch_size;
use crate::fill::statements::LeafStatements;
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::job::column_lock;
use crate::job::home::Home;
use crate::pg::failure::Failure;
use crate::pg::server;
use crate::pg::tx::{Attempt, Tx};
use crate::plan::Question;
use crate::plan::finding::{Finding, Verdict};
use crate::run::driver::require_writable;

const TOPIC: &str = "safe_backfill";

/// What was found fit to be filled.
pub struct Proven {
    /// The table and column.
    pub target: Target,
    /// What goes into the column, if that is known.
    pub value: Option<Value>,
    /// Most rows of a batch.
    pub batch_size: i32,
    /// Where jobs are stored.
    pub home: Home,
}

/// Proves all that a CALL proves before it begins. Without the target, or with a value that does not fit, nothing more can
/// be found out.
///
/// # Errors
/// [`Error::NoTable`], [`Error::NotInstalled`].
pub fn prove(tx: &Tx, question: &Question<'_>) -> Result<(Option<Proven>, Vec<Finding>), Error> {
    let home = Home::find(tx)?;
    Relation::look_up(tx, question.table)?;
    let mut findings = vec![];
    findings.extend(
        require_writable(TOPIC)
            .err()
            .map(|error| of_session(&error)),
    );
    findings.extend(
        require_batch_size(question.batch_size)
            .err()
            .map(|error| refused(&error)),
    );
    findings.extend(
        home.require_unpublished(tx)
            .err()
            .map(|error| refused(&error)),
    );
    let target = match Target::prove(tx, question.table, question.column) {
        Ok(target) => target,
        Err(error) => {
            findings.push(refused(&error));
            return Ok((None, findings));
        }
    };
    if let Some(pid) = holders::of_column(tx, target.table, target.number) {
        let (table, column) = (&target.table_name, &target.column);
        findings.push(refused(&column_lock::already_running(
            tx,
            table,
            column,
            Some(pid),
        )));
    }
    let value = match tx.attempt(|| prove_value(tx, question, &target)) {
        Attempt::Done(Ok(value)) => {
            if findings
                .iter()
                .all(|finding| finding.verdict < Verdict::Blocker)
            {
                findings.push(not_refused(value.as_ref()));
            }
            value
        }
        Attempt::Done(Err(failure)) => {
            findings.push(of_failure(failure));
            return Ok((None, findings));
        }
        Attempt::Locked(message) => {
            findings.push(untried(tx, &target, &message));
            None
        }
    };
    let proven = Proven {
        target,
        value,
        batch_size: question.batch_size,
        home,
    };
    Ok((Some(proven), findings))
}

fn not_refused(value: Option<&Value>) -> Finding {
    Finding::ok(
        TOPIC,
        match value {
            Some(value) if !value.is_unknown() => "would not be refused",
            _ => "would not be refused; no value was given to be tried",
        },
    )
}

fn untried(tx: &Tx, target: &Target, message: &str) -> Finding {
    let holders = holders::of_tables(tx, &target.leaves, true);
    Finding::of(
        Verdict::Warning,
        TOPIC,
        match holders {
            Some(holders) => {
                format!("the value could not be tried: {message}; the table is locked by {holders}")
            }
            None => format!("the value could not be tried: {message}"),
        },
        "Ask again when nobody has it locked; a backfill would wait for that, too.",
    )
}

/// Reads the value, and has PostgreSQL parse the UPDATE with it.
fn prove_value(
    tx: &Tx,
    question: &Question<'_>,
    target: &Target,
) -> Result<Option<Value>, Failure> {
    let refusal = RefCell::new(None);
    let attempted = tx.attempt_if(
        |failure| !failure.is_passing(),
        || {
            let value = (question.value)(tx, target);
            let value = value.inspect_err(|error| *refusal.borrow_mut() = Some(error.as_failure()));
            // A standby does not give the lock that parsing an UPDATE takes.
            if let Ok(Some(value)) = &value
                && !server::is_standby()
            {
                LeafStatements::try_on(tx, target, value);
            }
            value.ok().flatten()
        },
    );
    match refusal.into_inner() {
        Some(failure) => Err(failure),
        None => attempted,
    }
}

fn refused(error: &Error) -> Finding {
    of_failure(error.as_failure())
}

/// What another session would not be refused for.
fn of_session(error: &Error) -> Finding {
    Finding {
        verdict: match error {
            Error::ReadOnly { .. } => Verdict::Warning,
            _ => Verdict::Blocker,
        },
        ..refused(error)
    }
}

/// What a backfill would end with.
pub fn of_failure(failure: Failure) -> Finding {
    Finding {
        topic: TOPIC,
        verdict: Verdict::Blocker,
        finding: match failure.detail {
            Some(detail) => format!("{}: {detail}", failure.message),
            None => failure.message,
        },
        advice: failure.hint,
    }
}
