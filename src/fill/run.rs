//! A run, from the first window of the first leaf table to the last message.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use pgrx::pg_sys;

use crate::ddl;
use crate::error::Error;
use crate::fill::context::Run;
use crate::fill::leaf::Leaf;
use crate::fill::outcome::Leftover;
use crate::fill::progress::Report;
use crate::fill::request::Request;
use crate::fill::target::Target;
use crate::job::store::Job;
use crate::messages::{self, Sizes};
use crate::pg::tx::Tx;
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
    driver.with_last_words(
        || with_helpers(driver, request, &job),
        |tx, failure| job.fail(tx, failure),
    )
}

/// Runs the job, with helpers if more than one process is to work on it.
fn with_helpers(driver: &Driver, request: &Request, job: &Rc<Job>) -> Result<(), Error> {
    let of = request.workers.unsigned_abs();
    let helpers = match of {
        1 => None,
        _ => {
            let id = job.patiently(driver, |tx| job.begin(tx))?;
            job.has_begun(id);
            Some(Rc::new(RefCell::new(Helpers::start(driver, id, of)?)))
        }
    };
    if let Some(helpers) = &helpers {
        driver.is_supervised_by(Some(Rc::new(Leading {
            job: Rc::clone(job) as Rc<dyn Supervision>,
            helpers: Rc::clone(helpers),
        })));
    }
    let alone = || Rc::new(Membership::alone());
    let membership = helpers
        .as_ref()
        .map_or_else(alone, |helpers| helpers.borrow().membership());
    let run = Run {
        driver,
        request,
        throttle: RefCell::new(Throttle::new(job.owner(), of)),
        job: Rc::clone(job),
        membership,
    };
    run.all(helpers.as_deref())
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
    fn all(&self, helpers: Option<&RefCell<Helpers>>) -> Result<(), Error> {
        let target = &self.request.target;
        let before = self.sizes(&target.leaves)?;
        let blocks = before.heap.unsigned_abs() / u64::from(pg_sys::BLCKSZ);
        let mut report = Report::new(&target.table_name, blocks);
        let leaves = self.fill_tree(&mut report, helpers)?;
        self.job.finish(self.driver)?;
        let after = self.sizes(&leaves)?;
        report.say_summary(before, after);
        Ok(())
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
                Visit::Done(leftover) => leftovers.extend(leftover),
                Visit::Busy(error) => {
                    busy.push_back(leaf);
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

    /// The size of an index is asked for while its table is locked.
    fn sizes(&self, leaves: &[pg_sys::Oid]) -> Result<Sizes, Error> {
        let Target {
            table_name, table, ..
        } = &self.request.target;
        ddl::read(self.driver, table_name, *table, |tx| {
            Ok(sizes_now(tx, leaves))
        })
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

fn sizes_now(tx: &Tx, leaves: &[pg_sys::Oid]) -> Sizes {
    const SIZES: &str = "
        SELECT sum(pg_relation_size(oid))::bigint, sum(pg_indexes_size(oid))::bigint
        FROM unnest($1) AS oid";
    let rows = tx.catalog(SIZES, &[&leaves.to_vec()]);
    let size = |number| rows.first().and_then(|row| row.get(number)).unwrap_or(0);
    Sizes {
        heap: size(1),
        indexes: size(2),
    }
}
