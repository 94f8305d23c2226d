//! A run, from the first window of the first leaf to the last message.

use std::collections::VecDeque;
use std::time::Duration;

use pgrx::pg_sys;

use crate::ddl;
use crate::error::{Error, counted};
use crate::filling::Filling;
use crate::job::Job;
use crate::leaf::Leaf;
use crate::outturn::Leftover;
use crate::pg::spi::{self, argument};
use crate::pg::{message, usage};
use crate::prepared::Plan;
use crate::progress::{Report, Sizes};
use crate::statements::LeafStatements;
use crate::target::Target;

/// How often all leaves of a tree are looked at before the run ends, though rows were to be filled every time.
const MOST_LOOKS: u32 = 5;

/// How often a leaf is tried that another run is working on.
const BUSY_POLL: Duration = Duration::from_millis(200);

/// Batches are at least one row and at most this.
pub const LARGEST_BATCH: i32 = 1_000_000;

/// Everything a run needs, proven and parsed.
pub struct Request {
    /// The table and column.
    pub target: Target,
    /// What goes into the column.
    pub filling: Filling,
    /// Most rows of a batch.
    pub batch_size: i32,
}

impl Request {
    /// Checks the batch size and that the filling fits the table, before anything is touched.
    ///
    /// # Errors
    /// [`Error::BatchSize`], and PostgreSQL's own for SQL that does not fit.
    pub fn new(target: Target, filling: Filling, batch_size: i32) -> Result<Self, Error> {
        require_batch_size(batch_size)?;
        LeafStatements::try_on(&target, &filling);
        Ok(Request {
            target,
            filling,
            batch_size,
        })
    }
}

fn require_batch_size(given: i32) -> Result<(), Error> {
    let (least, most) = (1, LARGEST_BATCH);
    if (least..=most).contains(&given) {
        Ok(())
    } else {
        Err(Error::BatchSize { given, least, most })
    }
}

/// Fills every leaf of the target, commits each batch, and says how it went.
///
/// # Errors
/// Those of [`Leaf::fill`]. All batches before the error stay committed.
pub fn run(request: &Request) -> Result<(), Error> {
    let target = &request.target;
    if target.is_not_null {
        message::notice(
            format!(
                "column \"{}\" of table \"{}\" is already NOT NULL, skipping",
                target.column, target.table_name
            ),
            None,
        );
        return Ok(());
    }
    say_default(target);
    let job = Job::open(target, &request.filling, request.batch_size)?;
    let before = sizes(target, &target.leaves)?;
    let blocks = before.heap.unsigned_abs() / u64::from(pg_sys::BLCKSZ);
    let mut report = Report::new(&target.table_name, blocks);
    let plan = Plan {
        target,
        filling: &request.filling,
        batch_size: request.batch_size.unsigned_abs() as usize,
        job: &job,
    };
    let leaves = fill_leaves(request, &plan, &mut report)?;
    let after = sizes(target, &leaves)?;
    report.say_summary(before, after);
    Ok(())
}

/// Fills leaf by leaf, then looks at all of them again: rows can have moved from a leaf that was still to be filled to
/// one that was done, and partitions can have been attached.
fn fill_leaves(
    request: &Request,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<Vec<pg_sys::Oid>, Error> {
    let mut leaves = request.target.leaves.clone();
    let mut looks = 0;
    let leftovers = loop {
        looks += 1;
        let rows_before = report.rows();
        let leftovers = fill_each(plan, report, &leaves)?;
        let target = &request.target;
        let now = ddl::read(&target.table_name, target.table, || leaves_now(target))?;
        let is_one_table = now == [plan.target.table];
        let filled = report.rows() - rows_before;
        let settled = now == leaves && (is_one_table || filled == 0);
        leaves = now;
        if settled {
            break leftovers;
        }
        if looks == MOST_LOOKS {
            warn_of_moving_rows(plan.target, filled);
            break leftovers;
        }
    };
    leftovers.iter().for_each(Leftover::warn);
    Ok(leaves)
}

/// Fills each leaf once; those that another run is working on come last, when that has let go of them.
fn fill_each(
    plan: &Plan<'_>,
    report: &mut Report,
    leaves: &[pg_sys::Oid],
) -> Result<Vec<Leftover>, Error> {
    let mut leftovers = vec![];
    let mut busy = VecDeque::new();
    for &leaf in leaves {
        match fill_leaf(plan, report, leaf)? {
            Filled::Done(leftover) => leftovers.extend(leftover),
            Filled::Busy(_) => busy.push_back(leaf),
        }
    }
    let mut said = false;
    while let Some(leaf) = busy.pop_front() {
        match fill_leaf(plan, report, leaf)? {
            Filled::Done(leftover) => leftovers.extend(leftover),
            Filled::Busy(error) => {
                busy.push_back(leaf);
                if !said {
                    said = true;
                    say_waiting(&error);
                }
                usage::rest(BUSY_POLL);
            }
        }
    }
    Ok(leftovers)
}

fn say_waiting(error: &Error) {
    message::notice_with(
        format!("{error}; waiting for it to end"),
        error.detail(),
        None,
    );
}

fn warn_of_moving_rows(target: &Target, filled: u64) {
    let detail = format!(
        "At the last look {} had to be filled in column \"{}\".",
        counted(filled, "row"),
        target.column
    );
    message::warning_with(
        format!("rows of table \"{}\" kept becoming null", target.table_name),
        &detail,
        Some("Set a default on the column, or have the application give a value, then call again."),
    );
}

/// What became of a leaf.
enum Filled {
    /// It is done, but for rows that are left.
    Done(Option<Leftover>),
    /// Another run is working on it.
    Busy(Error),
}

fn fill_leaf(plan: &Plan<'_>, report: &mut Report, leaf: pg_sys::Oid) -> Result<Filled, Error> {
    let is_named = leaf == plan.target.table;
    match Leaf::open(plan, report, leaf).and_then(Leaf::fill) {
        // A partition may go; what matters is the table that was named.
        Err(Error::TableDropped { .. }) if !is_named => {
            plan.job.drop_leaf(leaf)?;
            Ok(Filled::Done(None))
        }
        Err(error @ Error::AlreadyRunning { .. }) if !is_named => Ok(Filled::Busy(error)),
        outturn => Ok(Filled::Done(outturn?.leftover)),
    }
}

/// The leaves that the target has now.
fn leaves_now(target: &Target) -> Result<Vec<pg_sys::Oid>, Error> {
    let now = Target::prove(target.table, &target.column).map_err(|error| match error {
        Error::NoTable { .. } => Error::TableDropped {
            table: target.table_name.clone(),
        },
        error => error,
    })?;
    Ok(now.leaves)
}

fn say_default(target: &Target) {
    if !target.defaults_to_null {
        return;
    }
    let (schema, table, column) = (
        spi::quote(&target.schema),
        spi::quote(&target.table_name),
        spi::quote(&target.column),
    );
    message::notice_with(
        format!(
            "column \"{}\" of table \"{}\" has no default",
            target.column, target.table_name
        ),
        Some("Rows inserted without a value for it are null again.".into()),
        Some(&format!(
            "Set one first, which takes no time: ALTER TABLE {schema}.{table} ALTER COLUMN {column} SET DEFAULT ...;"
        )),
    );
}

/// The size of an index is asked for while its table is locked.
fn sizes(target: &Target, leaves: &[pg_sys::Oid]) -> Result<Sizes, Error> {
    ddl::read(&target.table_name, target.table, || Ok(sizes_now(leaves)))
}

fn sizes_now(leaves: &[pg_sys::Oid]) -> Sizes {
    const SIZES: &str = "
        SELECT sum(pg_relation_size(oid))::bigint, sum(pg_indexes_size(oid))::bigint
        FROM unnest($1) AS oid";
    let rows = spi::catalog(SIZES, &[argument(leaves.to_vec())]);
    let size = |number| rows.first().and_then(|row| row.get(number)).unwrap_or(0);
    Sizes {
        heap: size(1),
        indexes: size(2),
    }
}
