//! The phases after the first: the blocks of a leaf table are looked at, window by window, for rows that are NULL still.
//!
//! Each block is read once, as it is at that time. If an UPDATE moves a NULL row from a block that was not read yet to
//! one that was, this look misses the row; the validation in `safe_set_not_null` misses nothing.

use std::ops::Range;

use planner::phase::Event;
use planner::window::{Sweep, Tid, Window};

use crate::fill::leaf::{Halt, Leaf};
use crate::fill::probe::{self, Probed};
use crate::job::part::Position;
use crate::run::throttle::Work;
use crate::settings;

/// Blocks of a window: 16 MB.
const WINDOW: u32 = 2048;
/// The largest number of locked rows that is remembered. The next look finds the others.
const MOST_HELD: usize = 100_000;

impl Leaf<'_> {
    /// Looks at the next window, and fills what it finds there, if that is wanted.
    pub(super) fn look_at_window(&mut self, fill: bool) -> Result<Event, Halt> {
        let position = self.recorder.position();
        let (first, mut end) = (position.next_block, position.end_block);
        if first >= end {
            end = self.extend_look(end)?;
        }
        if first >= end {
            return Ok(Event::Looked {
                seen: self.look.seen,
                held: self.held.len(),
            });
        }
        let end = first.saturating_add(WINDOW).min(end);
        let mut found = self.probe_window(first..end)?;
        found.sort_unstable();
        self.look.seen.add(&found);
        if fill && !found.is_empty() {
            self.fill_found(&found)?;
        }
        let time_left = self.report.blocks_done(end);
        self.recorder.advance(
            Position {
                next_block: end,
                blocks_done: end,
                rows_found: self.look.seen.due,
                rows_without_value: self.look.seen.without_value,
                ..self.recorder.position()
            },
            time_left,
        );
        self.store_window()?;
        Ok(Event::WindowEnded)
    }

    /// Extends the look to blocks that were added to the table since it began. Returns the block where it ends.
    fn extend_look(&mut self, end: u32) -> Result<u32, Halt> {
        // Not if updated rows stayed NULL: their new versions may be in those blocks, and would be updated again and
        // again.
        if self.look.seen.refused > 0 {
            return Ok(end);
        }
        let blocks = self.on_table(|_, _, table| Ok(table.blocks()))?;
        let end = self.look.extent.extend(end, blocks);
        self.recorder.extend(end);
        Ok(end)
    }

    /// The rows of a window that are to be filled. Pages on which a row was changed in between are read again.
    fn probe_window(&mut self, blocks: Range<u32>) -> Result<Vec<Tid>, Halt> {
        let mut window = Window::new(blocks, Sweep::OnePass);
        let mut found = vec![];
        loop {
            loop {
                let probed = self.probe(&mut window)?;
                found.extend(probed.due);
                self.look.seen.without_value += probed.without_value;
                if probed.pass_ended {
                    break;
                }
            }
            if !window.next_pass() {
                break;
            }
        }
        // Rows that were changed again and again before they could be checked. They count as found, so that another
        // look follows.
        self.look.seen.due += window.left() as u64;
        Ok(found)
    }

    fn probe(&mut self, window: &mut Window) -> Result<Probed, Halt> {
        self.admit(Work::Looking)?;
        let time = settings::max_batch_time();
        let lock = settings::row_lock_timeout();
        let probed = self.on_table(|leaf, tx, table| {
            let context = leaf
                .table
                .context(tx, table, &leaf.look.ring, &leaf.sweeping.survey);
            let probed = probe::probe(&context, window, &mut leaf.look.pace, time, lock);
            leaf.record(tx)?;
            Ok(probed)
        })?;
        if let Some(message) = &probed.locked {
            self.require_patience(message.clone(), None)?;
        } else {
            self.patience.renew();
        }
        Ok(probed)
    }

    /// Fills rows that were found, and remembers those that others hold.
    fn fill_found(&mut self, rows: &[Tid]) -> Result<(), Halt> {
        let mut window = Window::of_rows(rows);
        loop {
            loop {
                let filled = self.batch(&mut window)?;
                self.look.filled(&filled);
                if filled.pass_ended {
                    break;
                }
            }
            if !window.next_pass() {
                break;
            }
        }
        let busy = window.into_busy();
        let room = MOST_HELD - self.held.len();
        self.look.forgot_held |= busy.len() > room;
        self.held.extend(busy.into_iter().take(room));
        Ok(())
    }
}
