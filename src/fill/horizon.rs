//! Waiting until dead row versions can be pruned.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::window::LARGEST_WINDOW;

use crate::catalog::{backlog, holders};
use crate::error::Error;
use crate::fill::leaf::{Halt, Leaf};
use crate::fill::passes::InFlight;
use crate::messages::{Reason, Wait};
use crate::pg::{horizon, usage};
use crate::run::gate;

/// How long one pass waits for the xmin horizon before it goes on without.
const HORIZON_PATIENCE: Duration = Duration::from_millis(100);
const HORIZON_POLL: Duration = Duration::from_millis(2);
/// How long it waits for an ANALYZE of the table, whose snapshot holds the horizon.
///
/// A sample is read in seconds. Autovacuum takes one whenever a tenth of the rows was updated: that many the run updates
/// itself.
const ANALYZE_PATIENCE: Duration = Duration::from_secs(10);
const ANALYZE_POLL: Duration = Duration::from_millis(50);

impl Leaf<'_> {
    /// The transaction that the horizon has to pass before the next pass over a window.
    ///
    /// Other processes of the run hold the horizon back all the time, though never for longer than a batch takes. Beside
    /// them it is enough if the beginning of the window can be pruned: by the time that the pass comes to the rest, that can
    /// be, too. But rows that move do so at the end of a pass, and most of them in the first.
    pub(super) fn due_at(&self, in_flight: &InFlight) -> Option<pg_sys::TransactionId> {
        let is_alone = self.run.membership.of() == 1;
        match in_flight.first_id {
            Some(id) if !is_alone && !in_flight.window.is_second_pass() => Some(id),
            _ => in_flight.last_id,
        }
    }

    /// Waits until what the last pass over the window left dead can be pruned; `false` if that takes too long.
    pub(super) fn wait_for_horizon(&mut self, in_flight: &InFlight) -> Result<bool, Halt> {
        let Some(id) = self.due_at(in_flight) else {
            return Ok(true);
        };
        if self.sweeping.stuck_at.is_some() {
            return self.horizon_has_passed(id);
        }
        let is_alone = self.run.membership.of() == 1;
        let began = Instant::now();
        while !self.horizon_has_passed(id)? {
            if began.elapsed() >= HORIZON_PATIENCE {
                if self.wait_for_analyze(id)? {
                    return Ok(true);
                }
                self.sweeping.stuck_at = Some(id);
                self.widen_window();
                self.name_holder()?;
                return Ok(false);
            }
            usage::sleep(HORIZON_POLL);
        }
        if is_alone && began.elapsed() > HORIZON_PATIENCE / 5 {
            self.widen_window();
        }
        Ok(true)
    }

    /// Waits for the horizon while an ANALYZE of the table is under way; `false` if that takes too long, or there is none.
    fn wait_for_analyze(&mut self, id: pg_sys::TransactionId) -> Result<bool, Halt> {
        let (driver, owner, table) = (self.run.driver, self.run.job.owner(), self.oid);
        let began = Instant::now();
        let mut told = false;
        let mut has_passed = false;
        while !has_passed && began.elapsed() < ANALYZE_PATIENCE {
            let analyzing =
                driver.transaction(|tx| Ok::<_, Error>(backlog::analyzing(tx, owner, table)))?;
            let Some(pid) = analyzing else {
                break;
            };
            if !std::mem::replace(&mut told, true) {
                driver.waits_for(&Wait::analyze(pid))?;
            }
            gate::rest(driver, ANALYZE_POLL)?;
            has_passed = self.horizon_has_passed(id)?;
        }
        driver.has_waited(|reason| reason == Reason::Analyze)?;
        Ok(has_passed || self.horizon_has_passed(id)?)
    }

    /// A longer window gives the horizon more time between two passes over the same page.
    fn widen_window(&mut self) {
        self.sweeping.window_size = (self.sweeping.window_size * 2).min(LARGEST_WINDOW);
    }

    pub(super) fn horizon_has_passed(&mut self, id: pg_sys::TransactionId) -> Result<bool, Halt> {
        self.on_table(|_, _, table| Ok(horizon::has_passed(table, id)))
    }

    /// Says once who keeps dead row versions alive.
    pub(super) fn name_holder(&mut self) -> Result<(), Error> {
        if self.report.holder_is_named() {
            return Ok(());
        }
        let (driver, owner) = (self.run.driver, self.run.job.owner());
        let holder = driver.transaction(|tx| Ok::<_, Error>(holders::of_horizon(tx, owner)))?;
        if let Some((holder, hint)) = holder {
            self.report.name_holder(&holder, &hint);
        }
        Ok(())
    }
}
