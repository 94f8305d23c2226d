//! Who holds the xmin horizon back now.

use planner::forecast::Horizon;

use crate::catalog::holders::{self, Holder};
use crate::pg::server;
use crate::pg::tx::Tx;
use crate::plan::finding::{Finding, Verdict};
use crate::plan::refusals::Proven;

const TOPIC: &str = "xmin horizon";
/// So many are named.
const MOST: i64 = 5;

/// Those who hold it, the oldest first; `None` where that cannot be seen.
pub fn of(tx: &Tx, proven: &Proven) -> Option<Vec<Holder>> {
    let (owner, tables) = (proven.home.owner, &proven.target.leaves);
    (!server::is_standby()).then(|| holders::all_of_horizon(tx, owner, tables, MOST))
}

/// How dead row versions will come to be removable: one of these holders may keep them while the table is filled.
pub fn horizon(holders: Option<&[Holder]>) -> Horizon {
    let mut holders = holders.unwrap_or_default().iter();
    match holders.any(|holder| holder.is_lasting) {
        true => Horizon::Held,
        false => Horizon::Moves,
    }
}

/// The holders, one by one.
pub fn findings(holders: Option<Vec<Holder>>) -> Vec<Finding> {
    let Some(holders) = holders else {
        return vec![Finding::note(
            TOPIC,
            "cannot be seen on a standby: ask on the primary server",
        )];
    };
    if holders.is_empty() {
        return vec![Finding::ok(TOPIC, "nobody holds it back")];
    }
    let finding = |holder: Holder| Finding {
        topic: TOPIC,
        verdict: match holder.is_lasting {
            true => Verdict::Warning,
            false => Verdict::Note,
        },
        finding: format!("held back by {}", holder.description),
        advice: Some(holder.hint),
    };
    holders.into_iter().map(finding).collect()
}
