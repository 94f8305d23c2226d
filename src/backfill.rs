//! A run, from the first window of the first leaf to the last message.

use pgrx::pg_sys;

use crate::error::Error;
use crate::filling::Filling;
use crate::job::{self, End, Job};
use crate::leaf::{Leaf, Plan};
use crate::pg::lock::ColumnLock;
use crate::pg::message;
use crate::pg::spi::{self, argument};
use crate::pg::transaction::commit_after;
use crate::progress::{Report, Sizes};
use crate::target::{self, Target};

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

/// Takes the lock that keeps a second run off the column.
///
/// # Errors
/// [`Error::AlreadyRunning`].
pub fn lock(target: &Target) -> Result<ColumnLock, Error> {
    ColumnLock::try_acquire(target.table, target.number).ok_or_else(|| Error::AlreadyRunning {
        table: target.table_name.clone(),
        column: target.column.clone(),
        pid: job::running_pid(target.table, target.number),
    })
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

/// Fills leaf by leaf, those that are attached meanwhile too.
fn fill_leaves(
    request: &Request,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<Vec<pg_sys::Oid>, Error> {
    let mut done = vec![];
    let mut next = request.target.leaves.clone();
    while !next.is_empty() {
        for &leaf in &next {
            fill_leaf(plan, report, leaf)?;
        }
        done.append(&mut next);
        next = commit_after(|| attached_since(request, plan.job, &done))?;
    }
    Ok(done)
}

fn fill_leaf(plan: &Plan<'_>, report: &mut Report, leaf: pg_sys::Oid) -> Result<(), Error> {
    let opened = Leaf::open(plan, report, leaf);
    let end = opened.and_then(|opened| opened.map(Leaf::fill).transpose());
    match end {
        // A partition may go; what matters is the table that was named.
        Err(Error::TableDropped { .. }) if leaf != plan.target.table => commit_after(|| {
            plan.job.finish_leaf(leaf, End::Dropped);
            Ok(())
        }),
        end => end.map(drop),
    }
}

fn attached_since(
    request: &Request,
    job: &Job,
    done: &[pg_sys::Oid],
) -> Result<Vec<pg_sys::Oid>, Error> {
    let mut leaves = target::leaves(request.target.table);
    leaves.retain(|leaf| !done.contains(leaf));
    if leaves.is_empty() {
        return Ok(leaves);
    }
    let target = Target::prove(request.target.table, &request.target.column)?;
    for &leaf in &leaves {
        job.add_leaf(leaf, &target, &request.filling, request.batch_size)?;
    }
    Ok(leaves)
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
