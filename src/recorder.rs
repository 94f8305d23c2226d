//! What has been done with a leaf table and is not stored yet.
//!
//! A batch stores it in its own transaction if the job table is free, and never waits for that: rows are locked
//! meanwhile. What could not be stored is added to what comes next.

use std::time::Instant;

use pgrx::pg_sys;

use crate::error::Error;
use crate::job::{End, Job, Position, Progress, Start};
use crate::pg::transaction::{Attempt, attempt};

/// Stores the progress of one leaf table.
pub struct Recorder<'a> {
    job: &'a Job,
    leaf: pg_sys::Oid,
    /// Where this run began, or began again, until that is stored.
    start: Option<Start>,
    progress: Progress,
    next_block: u32,
    stored_at: Instant,
}

impl<'a> Recorder<'a> {
    /// For a leaf that nothing was done with yet.
    pub fn new(job: &'a Job, leaf: pg_sys::Oid) -> Self {
        Recorder {
            job,
            leaf,
            start: None,
            progress: Progress::default(),
            next_block: 0,
            stored_at: Instant::now(),
        }
    }

    /// Tells that the run begins, or begins again, at `position` of a table of `end_block` blocks.
    pub fn start(&mut self, position: Position, end_block: u32) {
        self.next_block = position.next_block;
        self.start = Some(Start {
            position,
            end_block,
        });
    }

    /// Tells what a batch did, and that all blocks before `next_block` are done.
    pub fn add(&mut self, progress: &Progress, next_block: u32) {
        self.progress.add(progress);
        self.next_block = next_block;
    }

    /// Stores everything in the current transaction, unless somebody is in the way.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`], [`Error::StoredJob`].
    pub fn store(&mut self) -> Result<(), Error> {
        let nothing_new = self.start.is_none() && self.progress.rows == 0;
        if nothing_new || !self.job.is_free()? {
            return Ok(());
        }
        if let Some(start) = &self.start {
            // Once for each leaf this waits, for a little, where somebody has locked rows of the job table.
            match attempt(|| self.job.start_leaf(self.leaf, start)) {
                Attempt::Done(id) => self.job.has_begun(id?),
                Attempt::Locked(_) => return Ok(()),
            }
            self.start = None;
        }
        if self.progress.rows > 0 && self.store_progress()? {
            self.progress = Progress::default();
            self.stored_at = Instant::now();
        }
        Ok(())
    }

    /// Stores everything, and how the leaf came out, in a transaction of its own; waits for the job table.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`], [`Error::StoredJob`].
    pub fn finish(&mut self, end: End) -> Result<(), Error> {
        self.job.keep_unpublished()?;
        let id = self.job.patiently(|| {
            let id = match &self.start {
                Some(start) => self.job.start_leaf(self.leaf, start)?,
                None => self.job.begin()?,
            };
            self.job.finish_leaf(id, self.leaf, end)?;
            if self.progress.rows > 0 {
                self.store_progress()?;
            }
            Ok(id)
        })?;
        self.job.has_begun(id);
        self.job.has_finished(self.leaf);
        (self.start, self.progress) = (None, Progress::default());
        Ok(())
    }

    /// `false` if somebody has the row locked.
    fn store_progress(&self) -> Result<bool, Error> {
        let active = self.stored_at.elapsed();
        self.job
            .record(self.leaf, self.next_block, &self.progress, active)
    }
}
