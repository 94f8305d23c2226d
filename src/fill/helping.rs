//! What a helper process does for a run: it sweeps blocks, and nothing else.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use pgrx::pg_sys;

use crate::error::Error;
use crate::fill::context::Run;
use crate::fill::leaf::{Halt, Leaf};
use crate::fill::progress::Report;
use crate::fill::request::Request;
use crate::job::store::Job;
use crate::run::driver::Driver;
use crate::run::gate;
use crate::run::helpers::Helping;
use crate::run::membership::Membership;
use crate::run::supervision::Supervision;
use crate::run::throttle::Throttle;

/// How often a process that has nothing to do looks for blocks.
const IDLE_POLL: Duration = Duration::from_millis(5);

/// Sweeps blocks of the leaf table that the leader is at, until the leader ends the team.
///
/// # Errors
/// Those of [`Leaf::complete`], but for [`Error::TableDropped`] of a partition, which the leader finds out itself.
pub fn run(
    driver: &Driver,
    request: &Request,
    job: Rc<Job>,
    membership: &Rc<Membership>,
) -> Result<(), Error> {
    driver.is_supervised_by(Some(Rc::new(Helping {
        job: Rc::clone(&job) as Rc<dyn Supervision>,
        membership: Rc::clone(membership),
    })));
    let run = Run {
        driver,
        request,
        throttle: RefCell::new(Throttle::new(job.owner(), membership.of())),
        job,
        membership: Rc::clone(membership),
    };
    match run.help() {
        Err(Error::TeamIsOver) => Ok(()),
        ended => ended,
    }
}

impl Run<'_> {
    fn help(&self) -> Result<(), Error> {
        let mut report = Report::silent();
        while !self.membership.team().is_over() {
            if let Some(stint) = self.membership.team().open() {
                self.help_with(&mut report, stint)?;
            }
            gate::rest(self.driver, IDLE_POLL)?;
        }
        Ok(())
    }

    /// Sweeps blocks of one leaf table, as long as there are any.
    fn help_with(&self, report: &mut Report, stint: planner::team::Stint) -> Result<(), Error> {
        let table = pg_sys::Oid::from(stint.table);
        gate::pass(self.driver)?;
        let swept = Leaf::join(self, report, stint).and_then(|leaf| match leaf {
            Some(mut leaf) => leaf.sweep_claims(),
            None => Ok(()),
        });
        match swept {
            Ok(()) => Ok(()),
            // The leader begins again with the new file.
            Err(Halt::Rewritten) => {
                self.membership.release();
                Ok(())
            }
            Err(Halt::Failed(Error::TableDropped { .. })) if table != self.request.target.table => {
                self.membership.release();
                Ok(())
            }
            Err(Halt::Failed(error)) => Err(error),
        }
    }
}
