//! What a leaf table's run remembers from window to window: of its sweep, and of its look.

use std::collections::VecDeque;
use std::ops::Range;

use pgrx::pg_sys;
use planner::claims::CLAIMS_PER_SHARE;
use planner::pace::Pace;
use planner::phase::Seen;
use planner::recycling::Recycling;
use planner::window::{FIRST_WINDOW, Tid};

use crate::fill::batch::Filled;
use crate::fill::passes::InFlight;
use crate::job::part::Position;
use crate::pg::ring::Ring;

/// How many windows a process has in flight beside other processes of its run.
///
/// Their batches hold the horizon back, each for as long as it takes. While a process passes over one window, the horizon
/// moves on for the others.
const WINDOWS_BESIDE_OTHERS: usize = CLAIMS_PER_SHARE as usize;

/// What a sweep remembers from window to window.
pub struct Sweeping {
    /// The first block that this run sweeps.
    pub(super) began_at: u32,
    pub(super) window_size: u32,
    /// The windows that are being swept, in the order in which their next passes are due.
    pub(super) in_flight: VecDeque<InFlight>,
    /// How many there may be.
    pub(super) most_in_flight: usize,
    /// The horizon was behind this transaction when the run last gave up waiting for it.
    pub(super) stuck_at: Option<pg_sys::TransactionId>,
    pub(super) recycling: Recycling,
    /// Rows of the window before this one were written, and are NULL still.
    pub(super) refusing: bool,
    /// The window before this one, whose free space is recorded once its dead versions can be pruned.
    pub(super) last_window: Option<Range<u32>>,
    pub(super) ring: Ring,
}

impl Sweeping {
    /// A sweep by one of `of` processes.
    pub fn new(of: u32) -> Self {
        Sweeping {
            began_at: 0,
            window_size: FIRST_WINDOW,
            in_flight: VecDeque::new(),
            most_in_flight: if of > 1 { WINDOWS_BESIDE_OTHERS } else { 1 },
            stuck_at: None,
            recycling: Recycling::default(),
            refusing: false,
            last_window: None,
            ring: Ring::for_sweeping(),
        }
    }
}

/// A look over all blocks of a leaf table.
pub struct Look {
    pub(super) seen: Seen,
    pub(super) pace: Pace,
    pub(super) extensions: u32,
    pub(super) forgot_held: bool,
    pub(super) ring: Ring,
}

impl Default for Look {
    fn default() -> Self {
        Self::resumed(Position::default())
    }
}

impl Look {
    /// A look that has come to this position already.
    pub fn resumed(position: Position) -> Self {
        let seen = Seen {
            due: position.rows_found,
            without_value: position.rows_without_value,
            ..Seen::default()
        };
        Look {
            seen,
            pace: Pace::default(),
            extensions: 0,
            forgot_held: false,
            ring: Ring::for_reading(),
        }
    }

    /// Tells that rows which it has found were filled.
    pub fn filled(&mut self, filled: &Filled) {
        self.seen.filled += filled.counts.rows;
        self.seen.refused += filled.refused;
    }

    /// How many rows others hold, if all of them are known.
    pub fn held_rows(&self, held: &[Tid]) -> Option<u64> {
        (!self.forgot_held).then_some(held.len() as u64)
    }
}
