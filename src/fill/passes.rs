//! The passes over windows.
//!
//! Between two passes over a window the horizon has to move. While it does, there may be another window to pass over.

use std::ops::Range;
use std::time::Instant;

use pgrx::pg_sys;
use planner::window::{Sweep, Window};

use crate::fill::batch::Filled;
use crate::fill::leaf::{Halt, Leaf};
use crate::pg::usage;

/// A window that is being swept.
pub struct InFlight {
    blocks: Range<u32>,
    pub(super) window: Window,
    /// The last transaction of the first part of its last pass.
    pub(super) first_id: Option<pg_sys::TransactionId>,
    /// The last transaction of its last pass.
    pub(super) last_id: Option<pg_sys::TransactionId>,
    /// When that pass ended.
    pub(super) ended: Instant,
}

impl InFlight {
    /// A window over these blocks that no pass has been over.
    pub fn new(blocks: Range<u32>, sweep: Sweep) -> Self {
        InFlight {
            window: Window::new(blocks.clone(), sweep),
            blocks,
            first_id: None,
            last_id: None,
            ended: Instant::now(),
        }
    }

    /// How many blocks it has.
    pub fn size(&self) -> u32 {
        self.blocks.end - self.blocks.start
    }

    /// How many blocks' worth of it is done.
    fn blocks_done(&self) -> f64 {
        self.window.done() * f64::from(self.size())
    }
}

impl Leaf<'_> {
    /// One pass over a window. If rows are left, it will be due again, or comes again at once where nothing has to be pruned
    /// before.
    pub(super) fn pass(&mut self, mut in_flight: InFlight) -> Result<(), Halt> {
        self.sweeping.passed = in_flight.size();
        loop {
            self.pass_once(&mut in_flight)?;
            let is_recycled = in_flight.window.is_recycled();
            if !in_flight.window.next_pass() {
                return self.has_swept(in_flight.blocks);
            }
            if is_recycled {
                in_flight.ended = Instant::now();
                self.sweeping.in_flight.push_back(in_flight);
                return Ok(());
            }
        }
    }

    fn pass_once(&mut self, in_flight: &mut InFlight) -> Result<(), Halt> {
        let others = self.blocks_in_flight();
        in_flight.first_id = None;
        loop {
            let filled = self.batch(&mut in_flight.window)?;
            self.note_blocks(others + in_flight.blocks_done());
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

    /// How many blocks' worth of the windows in flight is done.
    fn blocks_in_flight(&self) -> f64 {
        let in_flight = self.sweeping.in_flight.iter();
        in_flight.map(InFlight::blocks_done).sum()
    }

    /// Tells that all passes over these blocks have ended.
    fn has_swept(&mut self, blocks: Range<u32>) -> Result<(), Halt> {
        self.note_blocks(self.blocks_in_flight());
        let in_flight = self.sweeping.in_flight.iter();
        let next = in_flight.map(|window| window.blocks.start).min();
        let membership = &self.run.membership;
        let claims = &membership.team().claims;
        if let Some(round) = self.round {
            claims.done(round, membership.worker(), &blocks, next);
        }
        if membership.leads() {
            self.note_position();
        }
        self.end_window()?;
        self.sweeping.last_window = Some(blocks);
        Ok(())
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
