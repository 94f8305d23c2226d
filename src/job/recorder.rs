//! What has been done with a leaf table and is not stored yet.
//!
//! It is stored when the run begins or ends with the table, when a window was filled, and after a second, but not with
//! every batch: each write leaves a dead row version, which cannot be removed while an old snapshot is held. A batch
//! never waits for the job tables, since it has rows locked. What could not be stored is kept for the next time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::error::Error;
use crate::job::part::{Counts, End, Entry, Position};
use crate::job::store::Job;
use crate::pg::tx::{Attempt, Tx};
use crate::run::driver::Driver;
use crate::run::membership::Membership;

/// The numbers in the view are at most this old.
const INTERVAL: Duration = Duration::from_secs(1);

/// Stores the progress of one leaf table.
pub struct Recorder<'a> {
    job: &'a Job,
    membership: &'a Membership,
    leaf: pg_sys::Oid,
    position: Position,
    counts: Counts,
    /// What of that is committed.
    committed: Counts,
    /// What this process has done since it last committed.
    uncommitted: Counts,
    time_left: Option<Duration>,
    /// Nothing was stored by this CALL yet.
    begins: bool,
    /// The activity or the file differs from what is stored.
    changed: bool,
    /// How the leaf came out is stored.
    finished: Cell<bool>,
    stored_at: Instant,
}

impl<'a> Recorder<'a> {
    /// For a leaf that a run begins with, or goes on with, at `position`.
    pub fn new(
        job: &'a Job,
        membership: &'a Membership,
        leaf: pg_sys::Oid,
        position: Position,
    ) -> Self {
        let counts = job.take_unstored(leaf);
        Recorder {
            job,
            membership,
            leaf,
            position,
            counts,
            committed: counts,
            uncommitted: Counts::default(),
            time_left: None,
            begins: true,
            changed: true,
            finished: Cell::new(false),
            stored_at: Instant::now(),
        }
    }

    /// Where the run is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Records that the run begins with another activity, or begins again, at `position`.
    pub fn enter(&mut self, position: Position) {
        self.position = position;
        self.time_left = None;
        self.changed = true;
    }

    /// Tells that the run has come to `position`, and how long the rest will take.
    pub fn advance(&mut self, position: Position, time_left: Option<Duration>) {
        self.position = position;
        self.time_left = time_left;
    }

    /// Tells that the run was paused for so long, which does not count as time spent on the table.
    pub fn has_paused(&mut self, time: Duration) {
        self.stored_at += time;
    }

    /// Records that the table now has `end_block` blocks, all of which are to be done.
    pub fn extend(&mut self, end_block: u32) {
        self.position.end_block = end_block;
    }

    /// Tells what a batch did.
    pub fn add(&mut self, counts: &Counts) {
        self.counts.add(counts);
        self.uncommitted.add(counts);
    }

    /// Tells what batches of other processes did, which were committed.
    pub fn add_committed(&mut self, counts: &Counts) {
        self.counts.add(counts);
        self.committed.add(counts);
    }

    /// Records that all batches so far are committed.
    pub fn is_committed(&mut self) {
        let done = std::mem::take(&mut self.uncommitted);
        let team = self.membership.team();
        team.add(self.membership.worker(), &done);
        if !self.membership.leads() {
            self.counts = Counts::default();
        }
        self.committed = self.counts;
    }

    /// Whether it is time to store what is known, and this process is the one to do it.
    pub fn is_due(&self) -> bool {
        self.membership.leads() && (self.changed || self.stored_at.elapsed() >= INTERVAL)
    }

    /// Whether a row was filled that is not stored yet.
    pub fn has_filled(&self) -> bool {
        self.membership.leads() && self.counts.rows > 0
    }

    /// Stores everything in the current transaction, unless others have locked the job tables.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`], [`Error::StoredJob`].
    pub fn store(&mut self, tx: &Tx) -> Result<(), Error> {
        if !self.job.is_free(tx)? {
            return Ok(());
        }
        if !tx.has_written() {
            // Helpers must not take it for a transaction of the application.
            self.membership.team().begins_transactions(1);
        }
        // Only the first time for each leaf can this wait, for a short time, for rows of the job tables that others
        // have locked.
        let id = match tx.attempt(|| self.job.begin_part(tx, self.leaf)) {
            Attempt::Done(id) => id?,
            Attempt::Locked(_) => return Ok(()),
        };
        self.job.has_begun(id);
        if self.job.store(tx, id, self.leaf, &self.entry())? {
            self.is_stored();
        }
        Ok(())
    }

    /// Stores everything, and how the leaf came out, in a transaction of its own; waits for the job's tables.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`], [`Error::StoredJob`].
    pub fn finish(&mut self, driver: &Driver, end: End) -> Result<(), Error> {
        self.job.keep_unpublished(driver)?;
        let entry = self.entry();
        let id = self.job.patiently(driver, |tx| {
            let id = self.job.begin_part(tx, self.leaf)?;
            self.job.store(tx, id, self.leaf, &entry)?;
            self.job.finish_part(tx, id, self.leaf, end)?;
            // A cancellation may end the wait for a standby that follows the commit.
            self.finished.set(true);
            Ok(id)
        })?;
        self.job.has_begun(id);
        self.job.has_finished(self.leaf);
        self.is_stored();
        self.is_committed();
        Ok(())
    }

    fn entry(&self) -> Entry {
        Entry {
            position: self.position,
            counts: self.counts,
            active: self.stored_at.elapsed(),
            time_left: self.time_left,
            begins: self.begins,
            processes: self.membership.figures(),
        }
    }

    fn is_stored(&mut self) {
        self.counts = Counts::default();
        (self.begins, self.changed) = (false, false);
        self.stored_at = Instant::now();
    }
}

impl Drop for Recorder<'_> {
    /// The run leaves the table, perhaps because of an error. What is not stored yet is handed over to the job.
    fn drop(&mut self) {
        let helps = !self.membership.leads();
        let is_alone = self.membership.of() == 1;
        if !helps && !self.finished.get() && (self.committed != Counts::default() || !is_alone) {
            self.counts = self.committed;
            self.job.leave_unstored(self.leaf, self.entry());
        }
    }
}
