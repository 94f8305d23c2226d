//! Waiting until dead row versions can be pruned.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::catalog::holders::Holder;
use crate::catalog::{backlog, holders};
use crate::error::Error;
use crate::fill::leaf::{Halt, Leaf};
use crate::fill::passes::InFlight;
use crate::messages::{Reason, Wait};
use crate::pg::{horizon, usage};
use crate::run::gate;

/// A nap while the horizon is waited for is this part of the time that it is late, within limits.
const NAPS_PER_AGE: u32 = 10;
const SHORTEST_NAP: Duration = Duration::from_millis(2);
const LONGEST_NAP: Duration = Duration::from_millis(50);
/// A standby that sends feedback is expected to do so this often, before it is known how often it does.
const FEEDBACK: Duration = Duration::from_secs(1);
/// A wait is told when it takes longer than this, and again as often: somebody else may hold the horizon then.
const WORTH_TELLING: Duration = Duration::from_secs(1);
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

    /// Waits for a moment.
    pub(super) fn wait_for_horizon(&mut self) -> Result<(), Halt> {
        let Some(age) = self
            .sweeping
            .in_flight
            .front()
            .map(|first| first.ended.elapsed())
        else {
            return Ok(());
        };
        let since = *self.sweeping.waits_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= WORTH_TELLING {
            self.note_horizon()?;
        }
        self.store_if_due()?;
        usage::sleep((age / NAPS_PER_AGE).clamp(SHORTEST_NAP, LONGEST_NAP));
        Ok(())
    }

    /// Lets others see that the run does not wait for the horizon any more.
    pub(super) fn has_waited_for_horizon(&mut self) -> Result<(), Error> {
        self.sweeping.waits_since = None;
        let driver = self.run.driver;
        driver.has_waited(|reason| reason == Reason::Horizon)
    }

    /// Waits for the horizon while an ANALYZE of the table is under way. Returns whether the next window is due then;
    /// otherwise says who holds the horizon.
    pub(super) fn has_waited_for_analyze(&mut self) -> Result<bool, Halt> {
        let first = self.sweeping.in_flight.front();
        let id = first.and_then(|first| self.due_at(first));
        if let Some(id) = id
            && self.wait_for_analyze(id)?
        {
            return Ok(true);
        }
        Ok(self.name_holder()?)
    }

    /// Waits for the horizon while an ANALYZE of the table is under way; `false` if that takes too long, or there is none.
    fn wait_for_analyze(&mut self, id: pg_sys::TransactionId) -> Result<bool, Halt> {
        let (driver, owner, table) = (self.run.driver, self.run.job.owner(), self.oid);
        let began = Instant::now();
        let mut told = false;
        let mut has_passed = false;
        while !has_passed {
            let analyzing =
                driver.transaction(|tx| Ok::<_, Error>(backlog::analyzing(tx, owner, table)))?;
            let Some(pid) = analyzing.filter(|&pid| self.sweeping.slow_analyze != Some(pid)) else {
                break;
            };
            if began.elapsed() >= ANALYZE_PATIENCE {
                self.sweeping.slow_analyze = Some(pid);
                break;
            }
            if !std::mem::replace(&mut told, true) {
                driver.waits_for(&Wait::analyze(pid))?;
            }
            self.store_if_due()?;
            gate::rest(driver, ANALYZE_POLL)?;
            has_passed = self.horizon_has_passed(id)?;
        }
        driver.has_waited(|reason| reason == Reason::Analyze)?;
        Ok(has_passed || self.horizon_has_passed(id)?)
    }

    pub(super) fn horizon_has_passed(&mut self, id: pg_sys::TransactionId) -> Result<bool, Halt> {
        self.on_table(|_, _, table| Ok(horizon::has_passed(table, id)))
    }

    /// Lets others see that the run waits for the horizon, and for whom.
    fn note_horizon(&mut self) -> Result<(), Error> {
        let driver = self.run.driver;
        if driver.has_told(Reason::Horizon, WORTH_TELLING) {
            return Ok(());
        }
        let holder = self.holder()?.map(|holder| holder.description);
        driver.waits_for(&Wait::horizon(holder.as_deref()))
    }

    /// Says who keeps dead row versions alive, if somebody else did before. Whether it is a standby that may send its
    /// feedback soon; nothing is said then.
    fn name_holder(&mut self) -> Result<bool, Error> {
        let Some(holder) = self.holder()? else {
            return Ok(false);
        };
        let elapsed = self.sweeping.since.elapsed();
        if holder.is_standby && self.sweeping.flight.expects(FEEDBACK, elapsed) {
            return Ok(true);
        }
        self.report.name_holder(&holder);
        Ok(false)
    }

    fn holder(&self) -> Result<Option<Holder>, Error> {
        let (driver, owner, table) = (self.run.driver, self.run.job.owner(), self.oid);
        driver.transaction(|tx| Ok(holders::of_horizon(tx, owner, table)))
    }
}
