//! Rows that would not have to be written.

use planner::sampling::Estimate;

use crate::catalog::dependents::Obstacles;
use crate::catalog::relation::require_owned;
use crate::error::Error;
use crate::fill::instant;
use crate::job::recipe::Recipe;
use crate::messages::amounts::{agreeing, approximately};
use crate::pg::spi::quote_literal;
use crate::pg::tx::Tx;
use crate::plan::finding::{Finding, Verdict};
use crate::plan::refusals::Proven;

const TOPIC: &str = "instant";

/// How many of the `rows` to be filled were written before the column was added, and so do not have it; and whether the method
/// `instant` could spare writing them, found out by the code that refuses it.
pub fn finding(tx: &Tx, proven: &Proven, rows: Estimate, lacking: Estimate) -> Finding {
    if rows.rows == 0.0 {
        return Finding::note(TOPIC, "no row to fill was found");
    }
    if lacking.rows == 0.0 {
        return Finding::note(
            TOPIC,
            "no row to fill that was read lacks the column physically: each has an explicit NULL",
        );
    }
    let lacking = format!(
        "{} {}, having been written before it was added ({:.0} % of those to fill)",
        approximately(lacking),
        agreeing(lacking.rows.round() as usize, "lack the column physically"),
        100.0 * lacking.rows / rows.rows
    );
    if takes_one_value_for_each(proven) {
        let why = "; method instant has one value for all of them, and no expression";
        return Finding::note(TOPIC, lacking + why);
    }
    match refusal(tx, proven) {
        None => Finding::of(
            Verdict::Note,
            TOPIC,
            lacking + " and need not be written",
            format!("Give them the value at once: {}", statement(proven)),
        ),
        Some(error) => {
            let failure = error.as_failure();
            let why = failure.detail.unwrap_or(failure.message);
            Finding {
                advice: failure.hint,
                ..Finding::note(
                    TOPIC,
                    format!("{lacking}; method instant would be refused: {why}"),
                )
            }
        }
    }
}

fn takes_one_value_for_each(proven: &Proven) -> bool {
    let value = proven.value.as_ref();
    value.is_some_and(|value| value.constant().is_none() && !value.is_unknown())
}

fn refusal(tx: &Tx, proven: &Proven) -> Option<Error> {
    let target = &proven.target;
    match &proven.value {
        Some(value) => instant::require(tx, target, value).err(),
        None => require_owned(tx, &target.leaves).err().or_else(|| {
            let obstacles = Obstacles::prepare(tx);
            obstacles.find(tx, &target.leaves, &target.column)
        }),
    }
}

fn statement(proven: &Proven) -> String {
    let value = proven.value.as_ref().map(|value| &value.recipe);
    let value = match value {
        Some(Recipe::Constant(text)) => quote_literal(text),
        _ => "...".into(),
    };
    format!(
        "CALL safe_backfill({}, {}, {value}, method => 'instant');",
        quote_literal(&proven.target.quoted()),
        quote_literal(&proven.target.column),
    )
}
