//! The background workers that help the process which leads a run, and how each side is told of the other's end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::catalog::{login, session_settings};
use crate::error::Error;
use crate::pg::failure::Failure;
use crate::pg::segment::Segment;
use crate::pg::tx::Tx;
use crate::pg::worker::{self, Start, Worker};
use crate::pg::{role, usage};
use crate::run::driver::Driver;
use crate::run::membership::Membership;
use crate::run::supervision::{Doing, Order, Supervision};

/// The C function that a helper runs; it is in `worker.rs`.
const HELPER_MAIN: &str = "safe_backfill_helper_main";
/// A helper ends within a batch; one whose statement takes longer than this is terminated.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// How long it is waited for then, since what it has committed is to be counted.
const TERMINATION_PATIENCE: Duration = Duration::from_secs(5);
const END_POLL: Duration = Duration::from_millis(1);

/// The helpers of a run; they end with it.
pub struct Helpers {
    membership: Rc<Membership>,
    workers: Vec<Worker>,
}

impl Helpers {
    /// Starts all processes of the run of job `id` but this one, which leads `of` processes.
    ///
    /// # Errors
    /// [`Error::NoWorkerSlot`], [`Error::NoLogin`].
    pub fn start(driver: &Driver, id: i64, of: u32) -> Result<Self, Error> {
        driver.transaction(|tx| {
            let role = role::current_user();
            login::require(tx, role)?;
            let segment = Segment::create(tx, &session_settings::of_helpers(tx)?);
            let handle = segment.handle();
            let mut helpers = Helpers {
                membership: Rc::new(Membership::shared(segment, 0, of)),
                workers: vec![],
            };
            for number in 1..of {
                let start = Start {
                    role,
                    job: id,
                    segment: handle,
                    worker: number,
                    of,
                    ..Start::here()
                };
                let name = format!("pg_safe_backfill job {id} worker {number}");
                let started = worker::start(&name, HELPER_MAIN, start);
                helpers.workers.push(started.ok_or(Error::NoWorkerSlot)?);
            }
            Ok(helpers)
        })
    }

    /// The place of the leader.
    pub fn membership(&self) -> Rc<Membership> {
        Rc::clone(&self.membership)
    }

    /// What has ended one of them, if it was not this process.
    fn trouble(&self) -> Option<Error> {
        if let Some(failure) = self.membership.failure() {
            return Some(failure);
        }
        let mut numbered = self.workers.iter().zip(1..);
        let is_lost = numbered
            .any(|(worker, number)| worker.has_ended() && !self.membership.team().has_left(number));
        // It may have told why in between.
        is_lost.then(|| self.membership.failure().unwrap_or(Error::HelperLost))
    }

    /// Has them end, and waits for that. Raises no error, so that it can run on an error's way out.
    pub fn dismiss(&mut self) {
        self.membership.team().end();
        wait_until(END_PATIENCE, || self.workers.iter().all(Worker::has_ended));
        self.workers.drain(..).for_each(Worker::terminate);
        wait_until(TERMINATION_PATIENCE, || self.others_have_ended());
    }

    fn others_have_ended(&self) -> bool {
        let members = self.membership.team().members();
        let mut others = members.iter().filter(|(pid, _)| *pid != usage::pid());
        others.all(|(pid, _)| !worker::is_connected(*pid))
    }
}

fn wait_until(patience: Duration, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() && began.elapsed() < patience {
        std::thread::sleep(END_POLL);
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// The orders of a leader: those of its job, and to end when a helper has.
pub struct Leading {
    /// The job's.
    pub job: Rc<dyn Supervision>,
    /// The helpers.
    pub helpers: Rc<RefCell<Helpers>>,
}

impl Supervision for Leading {
    fn order(&self, tx: &Tx) -> Result<Option<Order>, Error> {
        match self.helpers.borrow().trouble() {
            Some(trouble) => Err(trouble),
            None => self.job.order(tx),
        }
    }

    fn note(&self, tx: &Tx, doing: Doing<'_>) -> Result<bool, Error> {
        self.job.note(tx, doing)
    }

    fn explain(&self, failure: &Failure) -> Option<Failure> {
        self.job.explain(failure)
    }

    fn say_paused(&self) {
        self.job.say_paused();
    }
}

/// The orders of a helper: to wait while its job is paused, and to end when the leader needs nobody any more.
pub struct Helping {
    /// The job's.
    pub job: Rc<dyn Supervision>,
    /// The place of the helper.
    pub membership: Rc<Membership>,
}

impl Supervision for Helping {
    fn order(&self, tx: &Tx) -> Result<Option<Order>, Error> {
        if self.membership.team().is_over() {
            return Err(Error::TeamIsOver);
        }
        match self.job.order(tx) {
            // The leader ends a cancelled job.
            Err(Error::Cancelled { .. }) => Ok(Some(Order::Pause)),
            order => order,
        }
    }

    fn note(&self, _tx: &Tx, _doing: Doing<'_>) -> Result<bool, Error> {
        Ok(true)
    }

    /// The leader waits for the same.
    fn tells(&self) -> bool {
        false
    }

    fn say_paused(&self) {}
}
