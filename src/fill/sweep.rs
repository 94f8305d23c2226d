//! The first phase: the blocks of a leaf table are swept, in windows.

use std::ops::Range;
use std::time::{Duration, Instant};

use planner::claims::CLAIMS_PER_SHARE;
use planner::flight::{Next, Situation};
use planner::phase::Event;
use planner::window::{Sweep, WINDOW, Window};

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
            self.report.survey.add(&self.sweeping.survey);
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
    fn next_window(&mut self) -> Result<Option<InFlight>, Halt> {
        while let Some(next) = self.next()? {
            if next == Next::Wait {
                self.wait_for_horizon()?;
                continue;
            }
            self.has_waited_for_horizon()?;
            let sweep = self.heed_hazards()?;
            let window = match next {
                Next::Wait => None,
                Next::Pass => self.sweeping.in_flight.pop_front(),
                Next::Begin => self.begin_window(sweep),
                Next::FillAtOnce => self.fill_at_once()?,
                Next::GiveUp => self.give_up_window()?,
            };
            if let Some(mut window) = window {
                if self.sweeping.flight.is_late() {
                    window.window.make_more_room();
                }
                return Ok(Some(window));
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Next>, Halt> {
        let first = self.sweeping.in_flight.front();
        let (passes, ended) = first.map_or((0, Instant::now()), |first| {
            (first.window.passes_left(), first.ended)
        });
        let is_due = match first.and_then(|first| self.due_at(first)) {
            Some(id) => self.horizon_has_passed(id)?,
            None => true,
        };
        let (more, all) = self.share();
        let sweeping = &mut self.sweeping;
        let in_flight = sweeping.in_flight.iter().map(InFlight::size).sum();
        Ok(sweeping.flight.next(Situation {
            in_flight,
            passed: std::mem::take(&mut sweeping.passed),
            is_due,
            age: ended.elapsed(),
            passes,
            more,
            elapsed: sweeping.since.elapsed(),
            all,
            patience: settings::horizon_patience(),
        }))
    }

    /// How many blocks this process will claim yet, and how many in all: those few that cannot be shared evenly not counted.
    fn share(&self) -> (u32, u32) {
        let (membership, claims) = (&self.run.membership, &self.run.membership.team().claims);
        let unclaimed = self.round.map_or(0, |round| claims.unclaimed(round));
        let claimed_at_once = membership.of() * CLAIMS_PER_SHARE;
        let all = claims.blocks() / claimed_at_once * CLAIMS_PER_SHARE;
        (unclaimed.div_ceil(membership.of()), all.max(1))
    }

    /// A new window; `None` when all blocks have been claimed.
    fn begin_window(&mut self, sweep: Sweep) -> Option<InFlight> {
        let sweep = match self.recycles_next() {
            true => sweep,
            false => Sweep::OnePass,
        };
        let size = match sweep {
            Sweep::Recycle => WINDOW,
            // The rows of the next one find room in this one: the sooner, the less the table grows.
            Sweep::OnePass => WINDOW / 2,
        };
        let blocks = self.claim(size)?;
        Some(InFlight::new(blocks, sweep))
    }

    /// A new window to be filled in one pass, because the horizon is stuck.
    fn fill_at_once(&mut self) -> Result<Option<InFlight>, Halt> {
        if self.has_waited_for_analyze()? {
            return Ok(None);
        }
        let blocks = self.claim(WINDOW / 2);
        Ok(blocks.map(|blocks| InFlight::new(blocks, Sweep::OnePass)))
    }

    /// The window that is due next, the rest of which is to be filled in one pass, because the horizon is stuck.
    fn give_up_window(&mut self) -> Result<Option<InFlight>, Halt> {
        if self.has_waited_for_analyze()? {
            return Ok(None);
        }
        let mut window = self.sweeping.in_flight.pop_front();
        if let Some(window) = &mut window {
            window.window.give_up_recycling();
        }
        Ok(window)
    }

    fn claim(&mut self, size: u32) -> Option<Range<u32>> {
        self.patience.renew();
        let round = self.round?;
        self.run.membership.take(round, size)
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
            self.store_if_due()?;
        }
        self.collect();
        self.note_position();
        Ok(())
    }

    /// Sees to it that the statements are those for the triggers, constraints and indexes that there are now. Returns how a
    /// new window can be swept beside these.
    fn heed_hazards(&mut self) -> Result<Sweep, Halt> {
        let (sweep, hazards) = self.patiently(|leaf, tx, table| leaf.table.sweep_now(tx, table))?;
        if !self.table.is_for(hazards) {
            self.prepare_again()?;
        }
        Ok(sweep)
    }

    /// Whether a new window is recycled: not while rows refuse, or updates are not HOT.
    fn recycles_next(&mut self) -> bool {
        let refusing = std::mem::take(&mut self.sweeping.refusing);
        !refusing && self.sweeping.recycling.next_window()
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
            let context = leaf
                .table
                .context(tx, table, &leaf.sweeping.ring, &leaf.sweeping.survey);
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

    /// Stores the progress while the run waits, so that the view is not older than it is while the run works.
    pub(super) fn store_if_due(&mut self) -> Result<(), Halt> {
        if !self.recorder.is_due() {
            return Ok(());
        }
        self.note_position();
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
