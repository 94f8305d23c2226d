//! The first phase: the blocks of a leaf table are swept, in windows.

use std::ops::Range;
use std::time::{Duration, Instant};

use planner::phase::Event;
use planner::window::{Sweep, Window};

use crate::fill::batch::{self, Filled, Limits};
use crate::fill::leaf::{Halt, Leaf};
use crate::fill::passes::InFlight;
use crate::job::part::Position;
use crate::pg::{settings as server_settings, usage};
use crate::run::throttle::Work;
use crate::settings;

/// Longest wait for a lock while others are held: rather undo the statement, and leave the row for later.
const BATCH_LOCK_WAIT: Duration = Duration::from_millis(10);
/// One part in so many of `deadlock_timeout` a statement of several rows may take and still wait for one of them.
const SLOW_STATEMENT: u32 = 8;
/// How often it is looked whether the other processes are done.
const OTHERS_POLL: Duration = Duration::from_millis(2);
/// How long one transaction may record free space.
const RECORDING_TIME: Duration = Duration::from_millis(100);

impl Leaf<'_> {
    /// Passes over the window that is due. Rows that others hold are found again when the table is verified.
    pub(super) fn sweep(&mut self) -> Result<Event, Halt> {
        let Some(window) = self.next_window()? else {
            self.end_window()?;
            self.wait_for_others()?;
            self.store_window()?;
            return Ok(Event::Swept);
        };
        self.pass(window)?;
        Ok(Event::WindowEnded)
    }

    /// Sweeps blocks beside the process that leads, as long as there are any.
    pub(super) fn sweep_claims(&mut self) -> Result<(), Halt> {
        while let Some(window) = self.next_window()? {
            self.pass(window)?;
        }
        self.end_window()
    }

    /// The window to pass over next; `None` when all are swept.
    ///
    /// One whose dead row versions can be pruned, or else one that is new, or else the one to wait for.
    fn next_window(&mut self) -> Result<Option<InFlight>, Halt> {
        if let Some(window) = self.take_ready()? {
            return Ok(Some(window));
        }
        if self.sweeping.in_flight.len() < self.sweeping.most_in_flight
            && let Some((blocks, sweep)) = self.claim()?
        {
            return Ok(Some(InFlight::new(blocks, sweep)));
        }
        let Some(mut window) = self.sweeping.in_flight.pop_front() else {
            return Ok(None);
        };
        if !self.wait_for_horizon(&window)? {
            window.window.give_up_recycling();
        }
        Ok(Some(window))
    }

    fn take_ready(&mut self) -> Result<Option<InFlight>, Halt> {
        let Some(id) = self
            .sweeping
            .in_flight
            .front()
            .map(|window| self.due_at(window))
        else {
            return Ok(None);
        };
        let is_ready = match id {
            Some(id) => self.horizon_has_passed(id)?,
            None => true,
        };
        Ok(match is_ready {
            true => self.sweeping.in_flight.pop_front(),
            false => None,
        })
    }

    /// The blocks of a new window, and how to sweep them; `None` when all have been claimed.
    fn claim(&mut self) -> Result<Option<(Range<u32>, Sweep)>, Halt> {
        self.patience.renew();
        let membership = &self.run.membership;
        if membership.team().claims.open() != self.round {
            return Ok(None);
        }
        let sweep = self.next_sweep()?;
        let size = match sweep {
            Sweep::Recycle => self.sweeping.window_size,
            // The rows of the next one find room in this one: the sooner, the less the table grows.
            Sweep::OnePass => self.sweeping.window_size / 2,
        };
        let blocks = self.round.and_then(|round| membership.take(round, size));
        Ok(blocks.map(|blocks| (blocks, sweep)))
    }

    /// Tells where the run is: everything before is swept, by whichever process.
    pub(super) fn note_position(&mut self) {
        let claims = &self.run.membership.team().claims;
        let position = self.recorder.position();
        // Another process may be about to count a window as done that it has under way still.
        let blocks_done = self.sweeping.began_at + claims.blocks_done();
        let blocks_done = blocks_done.clamp(
            position.blocks_done,
            position.end_block.max(position.blocks_done),
        );
        let time_left = self.report.blocks_done(blocks_done);
        let next_block = claims.position().max(position.next_block);
        let position = Position {
            next_block,
            blocks_done,
            ..position
        };
        self.recorder.advance(position, time_left);
    }

    /// Waits until the other processes have swept what they have claimed.
    fn wait_for_others(&mut self) -> Result<(), Halt> {
        while !self.run.membership.others_are_idle() {
            self.admit(Work::Filling)?;
            usage::sleep(OTHERS_POLL);
            self.note_position();
            if self.recorder.is_due() {
                self.store_window()?;
            }
        }
        self.collect();
        self.note_position();
        Ok(())
    }

    /// How to sweep the next window: no recycling while the horizon is stuck, rows refuse, or updates are not HOT.
    fn next_sweep(&mut self) -> Result<Sweep, Halt> {
        if let Some(id) = self.sweeping.stuck_at {
            if self.horizon_has_passed(id)? {
                self.sweeping.stuck_at = None;
            } else {
                self.name_holder()?;
            }
        }
        let refusing = std::mem::take(&mut self.sweeping.refusing);
        let (sweep, hazards) = self.patiently(|leaf, tx, table| leaf.table.sweep_now(tx, table))?;
        if !self.table.is_for(hazards) {
            self.prepare_again()?;
        }
        let recycling =
            self.sweeping.stuck_at.is_none() && !refusing && self.sweeping.recycling.next_window();
        Ok(if recycling { sweep } else { Sweep::OnePass })
    }

    /// Fills one batch of the window's rows in a transaction of its own.
    pub(super) fn batch(&mut self, window: &mut Window) -> Result<Filled, Halt> {
        self.admit(Work::Filling)?;
        let limits = Limits {
            rows: self.run.request.batch_size.unsigned_abs() as usize,
            time: settings::max_batch_time(),
            lock: settings::row_lock_timeout().min(BATCH_LOCK_WAIT),
            slow: server_settings::deadlock_timeout() / SLOW_STATEMENT,
        };
        let filled = self.on_table(|leaf, tx, table| {
            let context = leaf.table.context(tx, table, &leaf.sweeping.ring);
            let (pace, yielding) = (&mut leaf.pace, &mut leaf.yielding);
            let team = leaf.run.membership.team();
            let filled = batch::fill(&context, window, pace, yielding, limits, team);
            leaf.recorder.add(&filled.counts);
            leaf.record(tx)?;
            Ok(filled)
        })?;
        self.count(&filled);
        if let Some(message) = &filled.locked {
            self.require_patience(message.clone(), None)?;
        }
        Ok(filled)
    }

    pub(super) fn count(&mut self, filled: &Filled) {
        if filled.counts.rows > 0 {
            self.patience.renew();
        }
        if filled.slow {
            self.table.was_slow();
        }
        self.report.batch(&filled.counts);
    }

    /// Records the free space of the window before the last, and stores that the last is done.
    pub(super) fn end_window(&mut self) -> Result<(), Halt> {
        if let Some(mut blocks) = self.sweeping.last_window.take() {
            while !blocks.is_empty() {
                blocks = self.on_table(|leaf, _, table| {
                    let deadline = Instant::now() + RECORDING_TIME;
                    let ring = &leaf.sweeping.ring;
                    Ok(table.record_free_space(blocks.clone(), deadline, ring))
                })?;
            }
        }
        self.store_window()
    }

    /// Stores the position if rows were filled since it was stored, or it is time to.
    pub(super) fn store_window(&mut self) -> Result<(), Halt> {
        if !self.recorder.has_filled() && !self.recorder.is_due() {
            return Ok(());
        }
        self.on_table(|leaf, tx, _| {
            tx.set_lock_timeout(server_settings::deadlock_timeout() / 2);
            Ok(leaf.recorder.store(tx)?)
        })
    }
}
