//! Rows that would not have to be rewritten.

use planner::sampling::Estimate;

use crate::messages::amounts::approximately;
use crate::plan::finding::Finding;

/// How many of the `rows` to be filled were written before the column was added, and so do not have it.
///
/// This is the place for what else decides whether they need no rewriting.
pub fn finding(rows: Estimate, lacking: Estimate) -> Finding {
    let finding = match () {
        () if rows.rows == 0.0 => "no row to fill was found".into(),
        () if lacking.rows == 0.0 => {
            "no row to fill that was read lacks the column physically: each has an explicit NULL"
                .into()
        }
        () => format!(
            "{} lack the column physically: they were written before it was added ({:.0} % of those to fill)",
            approximately(lacking),
            100.0 * lacking.rows / rows.rows
        ),
    };
    Finding::note("instant", finding)
}
