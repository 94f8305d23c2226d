//! A run, from the first window of the first leaf table to the last message.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use pgrx::pg_sys;

use crate::ddl;
use crate::error::Error;
use crate::fill::absent;
use crate::fill::context::Run;
use crate::fill::instant;
use crate::fill::leaf::Leaf;
use crate::fill::outcome::Leftover;
use crate::fill::progress::Report;
use crate::fill::request::Request;
use crate::fill::target::Target;
use crate::job::method::Method;
use crate::job::store::Job;
use crate::messages::{self, Reason, Sizes, Wait};
use crate::run::driver::Driver;
use crate::run::gate;
use crate::run::helpers::{Helpers, Leading};
use crate::run::membership::Membership;
use crate::run::supervision::Supervision;
use crate::run::throttle::Throttle;

/// How often all leaves of a tree are verified before the run ends, though rows were to be filled every time.
const MOST_ROUNDS: u32 = 5;

/// How often a leaf is tried that another run is working on.
const BUSY_POLL: Duration = Duration::from_millis(200);

/// Fills every leaf of the target, commits each batch, and says how it went. The job is looked for, unless its number is
/// known.
///
/// # Errors
/// Those of [`Leaf::complete`]. All batches before the error stay committed.
pub fn run(driver: &Driver, request: &Request, job: Option<i64>) -> Result<(), Error> {
    let target = &request.target;
    if target.is_not_null {
        messages::say_already_not_null(&target.table_name, &target.column);
        // A job in the background is there already.
        return match job {
            Some(_) => Job::open(driver, request.assignment(), job)?.finish(driver),
            None => Ok(()),
        };
    }
    if !target.has_default {
        say_no_default(request);
    }
    let job = Rc::new(Job::open(driver, request.assignment(), job)?);
    driver.is_supervised_by(Some(Rc::clone(&job) as Rc<dyn Supervision>));
    let helpers = OnceCell::new();
    driver.with_last_words(
        || {
            absent::fill(driver, request)?;
            let sizes = sizes(driver, target, &target.leaves)?;
            let blocks = sizes.iter().map(|(leaf, sizes)| (*leaf, sizes.blocks()));
            job.knows_blocks(blocks.collect());
            with_helpers(driver, request, &job, &helpers, sizes.into_values().sum())
        },
        |tx, failure| {
            if let Some(helpers) = helpers.get() {
                dismiss(helpers, &job);
            }
            job.fail(tx, failure)
        },
    )
}

/// The helpers of a run, once they are there.
type SharedHelpers = Rc<RefCell<Helpers>>;

/// Ends the helpers of a run that ends, and counts what they have done until then.
fn dismiss(helpers: &SharedHelpers, job: &Job) {
    if let Ok(mut helpers) = helpers.try_borrow_mut() {
        helpers.dismiss();
        let membership = helpers.membership();
        job.add_unstored(membership.team().table().into(), &membership);
    }
}

/// Runs the job, with helpers if more than one process is to work on it.
fn with_helpers(
    driver: &Driver,
    request: &Request,
    job: &Rc<Job>,
    team: &OnceCell<SharedHelpers>,
    before: Sizes,
) -> Result<(), Error> {
    let of = request.workers.unsigned_abs();
    if of > 1 {
        let id = job.patiently(driver, |tx| job.begin(tx))?;
        job.has_begun(id);
        let helpers = Helpers::start(driver, id, of)?;
        team.get_or_init(|| Rc::new(RefCell::new(helpers)));
    }
    let helpers = team.get();
    if let Some(helpers) = helpers {
        driver.is_supervised_by(Some(Rc::new(Leading {
            job: Rc::clone(job) as Rc<dyn Supervision>,
            helpers: Rc::clone(helpers),
        })));
    }
    let alone = || Rc::new(Membership::alone());
    let membership = helpers.map_or_else(alone, |helpers| helpers.borrow().membership());
    let run = Run {
        driver,
        request,
        throttle: RefCell::new(Throttle::new(job.owner(), of)),
        job: Rc::clone(job),
        membership,
    };
    run.all(before, helpers.map(Rc::as_ref))
}

/// What became of a leaf.
enum Visit {
    /// It is done, but for rows that are left.
    Done(Option<Leftover>),
    /// Another run is working on it.
    Busy(Error),
}

/// How far a leaf is taken.
#[derive(Clone, Copy)]
enum Goal {
    /// All its blocks are swept once.
    Swept,
    /// It is verified too.
    Verified,
}

impl Run<'_> {
    /// Fills all leaves, which had these sizes before, and says how it went.
    fn all(&self, before: Sizes, helpers: Option<&RefCell<Helpers>>) -> Result<(), Error> {
        let target = &self.request.target;
        let blocks = before.blocks().unsigned_abs();
        let mut report = Report::new(&target.table_name, blocks);
        let leaves = self.fill_tree(&mut report, helpers)?;
        self.job.finish(self.driver)?;
        let after = sizes(self.driver, target, &leaves)?;
        let absent = self.absent(&report)?;
        report.say_summary(before, after.into_values().sum(), absent);
        Ok(())
    }

    /// The share of the rows that lacked the column, if it was most of them, and they could have got the value without
    /// being written.
    fn absent(&self, report: &Report) -> Result<Option<f64>, Error> {
        let Request {
            method,
            target,
            value,
            ..
        } = self.request;
        let share = report.survey.mostly_absent();
        if share.is_none() || *method == Method::Instant || value.constant().is_none() {
            return Ok(None);
        }
        let allowed = self
            .driver
            .transaction(|tx| Ok::<_, Error>(instant::require(tx, target, value).is_ok()))?;
        Ok(share.filter(|_| allowed))
    }

    /// Fills all leaves, then verifies them: meanwhile rows can move to a leaf that was done, and partitions can be
    /// attached.
    fn fill_tree(
        &self,
        report: &mut Report,
        helpers: Option<&RefCell<Helpers>>,
    ) -> Result<Vec<pg_sys::Oid>, Error> {
        let target = &self.request.target;
        let is_one_table = |leaves: &[pg_sys::Oid]| leaves == [target.table];
        let mut leaves = target.leaves.clone();
        if !is_one_table(&leaves) || helpers.is_some() {
            self.fill_each(report, &leaves, Goal::Swept)?;
        }
        // The rest is mostly reading.
        if let Some(helpers) = helpers {
            helpers.borrow_mut().dismiss();
            self.throttle.borrow_mut().is_alone();
        }
        let mut rounds = 0;
        let leftovers = loop {
            rounds += 1;
            let rows_before = report.rows();
            let leftovers = self.fill_each(report, &leaves, Goal::Verified)?;
            let now = ddl::read(self.driver, &target.table_name, target.table, |tx| {
                target.leaves_now(tx)
            })?;
            let filled = report.rows() - rows_before;
            let settled = now == leaves && (is_one_table(&now) || filled == 0);
            leaves = now;
            if settled {
                break leftovers;
            }
            if rounds == MOST_ROUNDS {
                messages::warn_of_moving_rows(&target.table_name, &target.column, filled);
                break leftovers;
            }
        };
        leftovers.iter().for_each(Leftover::warn);
        Ok(leaves)
    }

    /// Takes each leaf to the goal; those that another run is working on come last, when that has let go of them.
    fn fill_each(
        &self,
        report: &mut Report,
        leaves: &[pg_sys::Oid],
        goal: Goal,
    ) -> Result<Vec<Leftover>, Error> {
        let mut leftovers = vec![];
        let mut busy = VecDeque::new();
        for &leaf in leaves {
            match self.fill_leaf(report, leaf, goal)? {
                Visit::Done(leftover) => leftovers.extend(leftover),
                Visit::Busy(_) => busy.push_back(leaf),
            }
        }
        let mut said = false;
        while let Some(leaf) = busy.pop_front() {
            match self.fill_leaf(report, leaf, goal)? {
                Visit::Done(leftover) => {
                    self.driver.has_waited(|reason| reason == Reason::Run)?;
                    leftovers.extend(leftover);
                }
                Visit::Busy(error) => {
                    busy.push_back(leaf);
                    self.driver.waits_for(&Wait::run(&error.to_string()))?;
                    if !said {
                        said = true;
                        messages::say_waiting_for_run(
                            &error.to_string(),
                            error.detail().as_deref(),
                        );
                    }
                    gate::rest(self.driver, BUSY_POLL)?;
                }
            }
        }
        Ok(leftovers)
    }

    fn fill_leaf(
        &self,
        report: &mut Report,
        leaf: pg_sys::Oid,
        goal: Goal,
    ) -> Result<Visit, Error> {
        let is_named = leaf == self.request.target.table;
        let opened = Leaf::open(self, report, leaf);
        let leftover = opened.and_then(|opened| match goal {
            Goal::Swept => opened.fill_once().map(|()| None),
            Goal::Verified => opened.complete(),
        });
        match leftover {
            // A partition may go; what matters is the table that was named.
            Err(Error::TableDropped { .. }) if !is_named => {
                self.job.drop_part(self.driver, leaf)?;
                Ok(Visit::Done(None))
            }
            Err(error @ Error::AlreadyRunning { .. }) if !is_named => Ok(Visit::Busy(error)),
            leftover => Ok(Visit::Done(leftover?)),
        }
    }
}

/// With the value as the default, if every row gets the same.
fn say_no_default(request: &Request) {
    let target = &request.target;
    let default = request.value.constant_text();
    messages::say_no_default(
        &target.table_name,
        &target.column,
        &target.quoted(),
        default,
    );
}

/// The sizes of these tables now, one by one.
fn sizes(
    driver: &Driver,
    target: &Target,
    leaves: &[pg_sys::Oid],
) -> Result<HashMap<pg_sys::Oid, Sizes>, Error> {
    // While an index is asked for its size, its table is locked.
    const SIZES: &str = "
        SELECT oid, pg_relation_size(oid), pg_indexes_size(oid) FROM unnest($1) AS oid";
    ddl::read(driver, &target.table_name, target.table, |tx| {
        let rows = tx.catalog(SIZES, &[&leaves.to_vec()]);
        let of = rows.iter().filter_map(|row| {
            let (heap, indexes) = (row.get(2)?, row.get(3)?);
            Some((row.get(1)?, Sizes { heap, indexes }))
        });
        Ok(of.collect())
    })
}
