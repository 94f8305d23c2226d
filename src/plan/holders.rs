//! Who holds the xmin horizon back now.

use crate::catalog::holders::{self, Holder};
use crate::pg::server;
use crate::pg::tx::Tx;
use crate::plan::finding::{Finding, Verdict};
use crate::plan::refusals::Proven;

const TOPIC: &str = "xmin horizon";
/// So many are named.
const MOST: i64 = 5;

/// Whether somebody holds it for so long that dead row versions cannot be removed while the table is filled.
pub fn is_held(tx: &Tx, proven: &Proven) -> bool {
    !server::is_standby() && of(tx, proven).iter().any(|holder| holder.is_lasting)
}

/// Those who hold it, one by one.
pub fn findings(tx: &Tx, proven: &Proven) -> Vec<Finding> {
    if server::is_standby() {
        return vec![Finding::note(
            TOPIC,
            "cannot be seen on a standby: ask on the primary server",
        )];
    }
    let holders = of(tx, proven);
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

fn of(tx: &Tx, proven: &Proven) -> Vec<Holder> {
    holders::all_of_horizon(tx, proven.home.owner, &proven.target.leaves, MOST)
}
