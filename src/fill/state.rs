//! What a leaf table's run remembers from window to window: of its sweep, and of its look.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use planner::claims::CLAIMS_PER_SHARE;
use planner::extent::Extent;
use planner::flight::Flight;
use planner::pace::Pace;
use planner::phase::Seen;
use planner::recycling::Recycling;
use planner::window::{Tid, WINDOW};

use crate::fill::batch::Filled;
use crate::fill::passes::InFlight;
use crate::fill::survey::Survey;
use crate::job::part::Position;
use crate::pg::ring::Ring;
use crate::pg::settings as server_settings;

/// How many windows a process has in flight beside other processes of its run, whose batches hold the horizon back for as
/// long as they take.
const WINDOWS_BESIDE_OTHERS: u32 = CLAIMS_PER_SHARE;
/// One part in so many of shared buffers may be in flight; the indexes need some, too, and so do others.
const SHARE_OF_BUFFERS: u32 = 2;
/// More windows than this are not in flight, however much memory there is: 3 GB, of which about 24 MB are remembered.
const MOST_IN_FLIGHT: u32 = 192;

/// What a sweep remembers from window to window.
pub struct Sweeping {
    /// The first block that this run sweeps.
    pub(super) began_at: u32,
    /// When it began, later by the time for which it was paused or waited for others.
    pub(super) since: Instant,
    /// How many blocks the window has that was passed over since it was last decided what to do next; 0 if none was.
    pub(super) passed: u32,
    /// The windows that are being swept, in the order in which their next passes are due.
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) flight: Flight,
    /// Since when it waits for the horizon, if it does.
    pub(super) waits_since: Option<Instant>,
    /// The process whose ANALYZE of the table was waited for in vain.
    pub(super) slow_analyze: Option<i32>,
    pub(super) recycling: Recycling,
    /// Rows of the window before this one were written, and are NULL still.
    pub(super) refusing: bool,
    /// The window before this one, whose free space is recorded once its dead versions can be pruned.
    pub(super) last_window: Option<Range<u32>>,
    pub(super) ring: Ring,
    pub(super) survey: Survey,
}

/// How many blocks the windows of each of `of` processes may have that are in flight.
pub fn most_in_flight(of: u32) -> u32 {
    let least = if of > 1 { WINDOWS_BESIDE_OTHERS } else { 1 };
    let most = server_settings::shared_buffers() / SHARE_OF_BUFFERS / of;
    most.clamp(least * WINDOW, MOST_IN_FLIGHT * WINDOW)
}

impl Sweeping {
    /// A sweep by one of `of` processes.
    pub fn new(of: u32) -> Self {
        Sweeping {
            began_at: 0,
            since: Instant::now(),
            passed: 0,
            in_flight: VecDeque::new(),
            flight: Flight::new(most_in_flight(of)),
            waits_since: None,
            slow_analyze: None,
            recycling: Recycling::default(),
            refusing: false,
            last_window: None,
            ring: Ring::for_sweeping(),
            survey: Survey::default(),
        }
    }
}

/// A look over all blocks of a leaf table.
pub struct Look {
    pub(super) seen: Seen,
    pub(super) pace: Pace,
    pub(super) extent: Extent,
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
            extent: Extent::default(),
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
