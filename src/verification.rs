//! Looks at a whole leaf table, and at what is left there, until no row is left to be filled.

use planner::window::{Blocks, Tid};

use crate::job::End;
use crate::leaf::{Halt, Leaf};
use crate::outturn::{Cause, Leftover, Outturn};
use crate::pg::usage;
use crate::settings;

/// Rounds after the first sweep: each begins with a look at the whole table for rows that are NULL still.
const MOST_ROUNDS: u32 = 5;
/// Up to so many rows left over are looked up one by one; more are worth another sweep.
const STRAGGLERS: i64 = 10_000;

impl Leaf<'_> {
    /// Looks at the whole table with one snapshot, as often as needed, until no row is left to be filled.
    pub(crate) fn verify(&mut self) -> Result<Outturn, Halt> {
        self.hindered_since = None;
        let mut left_before = vec![];
        let mut round = 0;
        while round < MOST_ROUNDS {
            let (mut left, blocks) = self.unfilled()?;
            if left.is_empty() {
                return self.end(Cause::NullExpression);
            }
            left.sort_unstable();
            let (rows_before, refused_before) = (self.report.rows(), self.refused);
            let since = self.hindered_since;
            if let Some(message) = self.another_round(blocks_of(&left, blocks))? {
                // Rows that could be filled meanwhile are no reason to wait longer for the others.
                self.hindered_since = since.or(self.hindered_since);
                self.require_patience(message)?;
                usage::sleep(settings::row_lock_timeout());
                continue;
            }
            self.hindered_since = None;
            // Rows that are still where they were have been asked and refused; others were moved by an update
            // between the look and the sweep, or are new.
            let refused = self.refused > refused_before || left == left_before;
            if self.report.rows() == rows_before && refused {
                return self.end(Cause::Refused);
            }
            left_before = left;
            round += 1;
        }
        self.end(Cause::New)
    }

    /// Sweeps the blocks on which rows were left. If some of them are locked still, the message that says so.
    fn another_round(&mut self, blocks: Blocks) -> Result<Option<String>, Halt> {
        let busy = self.sweep(blocks, false)?;
        self.wait_for(&busy)
    }

    /// Places of rows that are to be filled yet, up to a limit, and the number of blocks that the table has now.
    fn unfilled(&mut self) -> Result<(Vec<Tid>, u32), Halt> {
        self.patiently(|leaf, table| {
            let left = leaf.prepared.statements.unfilled(STRAGGLERS);
            (left, table.blocks())
        })
    }

    /// How the leaf came out, with the number of rows that are NULL still.
    fn end(&mut self, cause: Cause) -> Result<Outturn, Halt> {
        let completed = Outturn {
            end: End::Completed,
            leftover: None,
        };
        if cause == Cause::NullExpression && !self.plan.filling.can_be_null() {
            return Ok(completed);
        }
        let rows = self.patiently(|leaf, _| leaf.prepared.statements.count_unfilled())?;
        if rows == 0 {
            return Ok(completed);
        }
        Ok(Outturn {
            end: End::Incomplete,
            leftover: Some(Leftover {
                table: self.prepared.name.name.clone(),
                column: self.prepared.column.name.clone(),
                rows,
                cause,
            }),
        })
    }
}

/// The blocks to sweep for these rows, which are sorted; if there may be more rows, all from the first one's on.
fn blocks_of(rows: &[Tid], end: u32) -> Blocks {
    let mut blocks: Vec<u32> = rows.iter().map(|tid| tid.block).collect();
    blocks.dedup();
    match blocks.first() {
        Some(&first) if rows.len() as i64 >= STRAGGLERS => Blocks::Range(first..end),
        _ => Blocks::List(blocks),
    }
}
