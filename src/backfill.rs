//! A run, from the first window of the first leaf to the last message.

use pgrx::pg_sys;

use crate::error::Error;
use crate::filling::Filling;
use crate::job::{End, Job};
use crate::leaf::Leaf;
use crate::outturn::Leftover;
use crate::pg::message;
use crate::pg::spi::{self, argument};
use crate::pg::transaction::commit_after;
use crate::prepared::Plan;
use crate::progress::{Report, Sizes};
use crate::target::Target;

/// How often all leaves of a tree are looked at before the run ends, though rows were to be filled every time.
const MOST_LOOKS: u32 = 5;

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
        filling.try_on(&target)?;
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
                "column \"{}\" of table \"{}\" is NOT NULL already; nothing to fill",
                target.column, target.table_name
            ),
            None,
        );
        return Ok(());
    }
    say_default(target);
    let (job, before) = commit_after(|| {
        let job = Job::open(target, &request.filling, request.batch_size)?;
        Ok((job, sizes(&target.leaves)))
    })?;
    let blocks = before.heap.unsigned_abs() / u64::from(pg_sys::BLCKSZ);
    let mut report = Report::new(&target.table_name, blocks);
    let plan = Plan {
        target,
        filling: &request.filling,
        batch_size: request.batch_size.unsigned_abs() as usize,
        job: &job,
    };
    let leaves = fill_leaves(request, &plan, &mut report)?;
    let after = commit_after(|| Ok(sizes(&leaves)))?;
    message::notice(report.summary(before, after), None);
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
        let mut leftovers = vec![];
        for &leaf in &leaves {
            leftovers.extend(fill_leaf(plan, report, leaf)?);
        }
        let now = commit_after(|| leaves_now(request, plan.job, &leaves))?;
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

fn warn_of_moving_rows(target: &Target, filled: u64) {
    message::warning(
        format!(
            "{filled} rows of table \"{}\" were NULL in column \"{}\" at the last look and had to be filled",
            target.table_name, target.column
        ),
        "New ones keep coming: set a default on the column, or have the application give a value, then call again.",
    );
}

fn fill_leaf(
    plan: &Plan<'_>,
    report: &mut Report,
    leaf: pg_sys::Oid,
) -> Result<Option<Leftover>, Error> {
    match Leaf::open(plan, report, leaf).and_then(Leaf::fill) {
        // A partition may go; what matters is the table that was named.
        Err(Error::TableDropped { .. }) if leaf != plan.target.table => commit_after(|| {
            plan.job.finish_leaf(leaf, End::Dropped);
            Ok(None)
        }),
        outturn => Ok(outturn?.leftover),
    }
}

/// The leaves that the target has now; those that are new to the job are added to it.
fn leaves_now(
    request: &Request,
    job: &Job,
    known: &[pg_sys::Oid],
) -> Result<Vec<pg_sys::Oid>, Error> {
    let target = &request.target;
    let now = Target::prove(target.table, &target.column).map_err(|error| match error {
        Error::NoTable { .. } => Error::TableDropped {
            table: target.table_name.clone(),
        },
        error => error,
    })?;
    for &leaf in now.leaves.iter().filter(|leaf| !known.contains(leaf)) {
        job.add_leaf(leaf, &now, &request.filling, request.batch_size)?;
    }
    Ok(now.leaves)
}

fn say_default(target: &Target) {
    if target.defaults_to_null {
        message::notice(
            format!(
                "column \"{}\" of table \"{}\" has no default: rows inserted without it are NULL again",
                target.column, target.table_name
            ),
            Some(
                "Give new rows a value first: ALTER TABLE ... ALTER COLUMN ... SET DEFAULT ... takes no time.",
            ),
        );
    }
}

fn sizes(leaves: &[pg_sys::Oid]) -> Sizes {
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
