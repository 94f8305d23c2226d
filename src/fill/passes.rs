//! The passes over the windows of the blocks that a process has claimed.
//!
//! Between two passes over a window the horizon has to move. Beside other processes, whose batches hold it back, a process
//! has several windows under way: while it passes over one of them, the horizon moves on for the others.

use std::collections::VecDeque;
use std::ops::Range;

use pgrx::pg_sys;
use planner::window::{Sweep, Window};

use crate::fill::batch::Filled;
use crate::fill::leaf::{Halt, Leaf};
use crate::pg::usage;

/// How many windows a process has under way beside other processes of its run.
const WINDOWS_BESIDE_OTHERS: u32 = 2;

/// A window that is being swept.
pub struct InFlight {
    pub(super) window: Window,
    /// The last transaction of the first part of its last pass.
    pub(super) first_id: Option<pg_sys::TransactionId>,
    /// The last transaction of its last pass.
    pub(super) last_id: Option<pg_sys::TransactionId>,
}

impl InFlight {
    fn new(blocks: Range<u32>, sweep: Sweep) -> Self {
        InFlight {
            window: Window::new(blocks, sweep),
            first_id: None,
            last_id: None,
        }
    }

    /// How many blocks' worth of it is done.
    fn blocks_done(&self) -> f64 {
        self.window.done() * self.window.blocks() as f64
    }
}

impl Leaf<'_> {
    /// Sweeps these blocks, in as many passes as it takes.
    pub(super) fn sweep_blocks(
        &mut self,
        (blocks, sweep): &(Range<u32>, Sweep),
    ) -> Result<(), Halt> {
        let windows = match (sweep, self.run.membership.of()) {
            (Sweep::OnePass, _) | (_, 1) => 1,
            (Sweep::Recycle, _) => WINDOWS_BESIDE_OTHERS,
        };
        let mut in_flight: VecDeque<InFlight> = split(blocks, windows)
            .map(|blocks| InFlight::new(blocks, *sweep))
            .collect();
        let mut blocks_done = 0;
        while let Some(mut next) = in_flight.pop_front() {
            self.pass(&mut next, &in_flight, blocks_done)?;
            if next.window.next_pass() {
                in_flight.push_back(next);
            } else {
                blocks_done += next.window.blocks();
            }
        }
        let membership = &self.run.membership;
        let claims = &membership.team().claims;
        claims.done(membership.worker(), blocks);
        Ok(())
    }

    /// One pass over a window, while `others` are under way, too.
    fn pass(
        &mut self,
        in_flight: &mut InFlight,
        others: &VecDeque<InFlight>,
        blocks_done: usize,
    ) -> Result<(), Halt> {
        if !in_flight.window.is_first_pass() && !self.wait_for_horizon(in_flight)? {
            in_flight.window.give_up_recycling();
        }
        let elsewhere = blocks_done as f64 + others.iter().map(InFlight::blocks_done).sum::<f64>();
        in_flight.first_id = None;
        loop {
            let filled = self.batch(&mut in_flight.window)?;
            self.note_blocks(elsewhere + in_flight.blocks_done());
            self.sweeping.refusing |= filled.refused > 0;
            in_flight.last_id = filled.id.or(in_flight.last_id);
            if in_flight.window.is_at_beginning() {
                in_flight.first_id = filled.id.or(in_flight.first_id);
            }
            if filled.refused > 0 || !self.recycling_pays(&in_flight.window, &filled) {
                in_flight.window.give_up_recycling();
            }
            if filled.pass_ended {
                return Ok(());
            }
        }
    }

    /// Judged by the updates that found room which the first pass has made.
    fn recycling_pays(&mut self, window: &Window, filled: &Filled) -> bool {
        let counts = &filled.counts;
        !window.has_made_room()
            || !usage::counts_updates()
            || self.sweeping.recycling.pays(counts.rows, counts.hot)
    }

    /// Tells how many blocks' worth of what this process has claimed is done.
    fn note_blocks(&mut self, blocks: f64) {
        let membership = &self.run.membership;
        let claims = &membership.team().claims;
        claims.note(membership.worker(), blocks as u32);
        if membership.leads() {
            self.note_position();
        }
    }
}

/// Divides blocks into so many ranges, or fewer if there are not enough of them.
fn split(blocks: &Range<u32>, parts: u32) -> impl Iterator<Item = Range<u32>> {
    let (first, end) = (blocks.start, blocks.end);
    let size = (end - first).div_ceil(parts.max(1)).max(1);
    (first..end)
        .step_by(size as usize)
        .map(move |start| start..start.saturating_add(size).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_block_is_in_one_part(start in 0u32..1000, length in 0u32..10_000, parts in 1u32..5) {
            let blocks = start..start + length;
            let split: Vec<Range<u32>> = split(&blocks, parts).collect();
            prop_assert!(split.len() <= parts as usize);
            let all: Vec<u32> = split.into_iter().flatten().collect();
            prop_assert_eq!(all, blocks.collect::<Vec<_>>());
        }
    }
}
