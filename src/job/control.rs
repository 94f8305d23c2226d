//! The orders that other sessions give a running job, and what it reports to them.

use std::time::Duration;

use pgrx::pg_sys;

use crate::error::Error;
use crate::job::home::Home;
use crate::job::store::Job;
use crate::messages;
use crate::pg::failure::Failure;
use crate::pg::tx::{Attempt, Tx};
use crate::pg::{server, usage};
use crate::run::job_worker;
use crate::run::supervision::{Doing, Order, Supervision};

impl Supervision for Job {
    fn order(&self, tx: &Tx) -> Result<Option<Order>, Error> {
        const ORDER: &str = "SELECT state FROM @job WHERE system_identifier = $1 AND job_id = $2";
        // A job that a CALL takes up may still be stored as cancelled until the run has begun.
        let heeds = self.begun.get() || server::is_background_worker();
        let Some(id) = self.id.get().filter(|_| heeds) else {
            return Ok(None);
        };
        if !self.home.try_lock_to_read(tx) {
            return Ok(None);
        }
        let mut slot = self.order.borrow_mut();
        let types = [pg_sys::INT8OID, pg_sys::INT8OID];
        let statement = self.home.prepared(tx, &mut slot, ORDER, &types)?;
        let rows = self
            .home
            .run(tx, statement, &[&server::system_identifier(), &id]);
        let state: Option<String> = rows.first().and_then(|row| row.get(1));
        Ok(match state.as_deref() {
            Some("paused") => Some(Order::Pause),
            Some("cancelled") => {
                self.is_cancelled.set(true);
                return Err(Error::Cancelled {
                    table: self.what.table_name.clone(),
                    job: id,
                });
            }
            _ => Some(Order::Go),
        })
    }

    fn note(&self, tx: &Tx, doing: Doing<'_>) -> Result<bool, Error> {
        // Does not wait for sessions that have the row locked, for instance to pause the job.
        const NOTE: &str = "
            UPDATE @job
            SET waits_for = $3, waits_since = CASE WHEN $3 IS NOT NULL THEN clock_timestamp() - make_interval(secs => $5) END
            WHERE ctid = (SELECT ctid FROM @job
                          WHERE system_identifier = $1 AND job_id = $2 AND pid = $4
                          FOR NO KEY UPDATE SKIP LOCKED)";
        let (wait, age) = match doing {
            Doing::WaitFor(wait, age) => (Some(wait), age),
            Doing::TryAgain => return Ok(true),
            Doing::Work | Doing::Validate | Doing::Validated => (None, Duration::ZERO),
        };
        if !self.is_free(tx)? {
            return Ok(false);
        }
        let noted = tx.attempt(|| {
            let id = self.begin(tx)?;
            let (cluster, age) = (server::system_identifier(), age.as_secs_f64());
            let noted =
                self.home
                    .execute(tx, NOTE, &[&cluster, &id, &wait, &usage::pid(), &age])?;
            Ok::<_, Error>((id, noted.processed() > 0))
        });
        let Attempt::Done(noted) = noted else {
            return Ok(false);
        };
        let (id, is_stored) = noted?;
        self.has_begun(id);
        Ok(is_stored)
    }

    fn explain(&self, failure: &Failure) -> Option<Failure> {
        let job = self.id.get().filter(|_| self.begun.get())?;
        let table = self.what.table_name.clone();
        let cancelled = Error::Cancelled { table, job }.as_failure();
        let is_bare = failure.detail.is_none() && failure.hint.is_none();
        (failure.sqlstate == cancelled.sqlstate && is_bare).then(|| Failure {
            message: failure.message.clone(),
            ..cancelled
        })
    }

    fn say_paused(&self) {
        if let Some(id) = self.id.get() {
            messages::say_paused(&self.what.table_name, id);
        }
    }
}

impl Job {
    /// Stores how the run ended, and what it did since it was stored last, if there is anything to store. Can be run again
    /// where it fails.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn fail(&self, tx: &Tx, failure: &Failure) -> Result<(), Error> {
        let unstored = self.unstored.borrow();
        if (!self.begun.get() && unstored.is_empty()) || !self.is_free(tx)? {
            return Ok(());
        }
        let id = self.begin(tx)?;
        for (leaf, entry) in unstored.iter() {
            self.begin_part(tx, *leaf)?;
            self.store(tx, id, *leaf, entry)?;
        }
        if self.is_cancelled.get()
            && let Some(role) = release_resumed(tx, &self.home, id)?
        {
            return job_worker::start(id, role, tx.id());
        }
        fail(tx, &self.home, id, failure)
    }
}

/// Stores the error that has ended the run of job `id` by this process.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn fail(tx: &Tx, home: &Home, id: i64, failure: &Failure) -> Result<(), Error> {
    // Meanwhile another run may have taken up the job. This process still has the column locked for a moment; without its
    // number, whoever resumes the job until then starts a worker that waits for it.
    const FAIL: &str = "
        UPDATE @job
        SET error = $4::jsonb, pid = NULL, waits_for = NULL, waits_since = NULL, finished_at = clock_timestamp(),
            state = CASE WHEN state = 'running' AND $5 THEN 'failed' ELSE state END
        WHERE system_identifier = $1 AND job_id = $2 AND pid = $3";
    let (cluster, failed) = (server::system_identifier(), !failure.is_intervention());
    let failure = serde_json::to_string(failure)?;
    home.execute(tx, FAIL, &[&cluster, &id, &usage::pid(), &failure, &failed])
        .map(drop)
}

/// Stores the error that has kept the worker of job `id` from taking it up, unless another process works on it.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn fail_to_begin(tx: &Tx, home: &Home, id: i64, failure: &Failure) -> Result<(), Error> {
    const FAIL: &str = "
        UPDATE @job
        SET error = $3::jsonb, finished_at = clock_timestamp(), state = CASE WHEN $4 THEN 'failed' ELSE state END
        WHERE system_identifier = $1 AND job_id = $2 AND pid IS NULL AND state = 'running'";
    let (cluster, failed) = (server::system_identifier(), !failure.is_intervention());
    let failure = serde_json::to_string(failure)?;
    home.execute(tx, FAIL, &[&cluster, &id, &failure, &failed])
        .map(drop)
}

/// Has job `id`, which this process ends because it was cancelled, be taken up by another one if it was resumed meanwhile.
/// Returns the role to run it as.
fn release_resumed(tx: &Tx, home: &Home, id: i64) -> Result<Option<pg_sys::Oid>, Error> {
    // Whoever is about to resume it is waited for, and what that has stored is read: an UPDATE would wait only for rows that
    // it finds in its snapshot.
    const LOCK: &str = "
        SELECT role::oid FROM @job WHERE system_identifier = $1 AND job_id = $2 AND pid = $3 FOR NO KEY UPDATE";
    const RELEASE: &str = "
        UPDATE @job
        SET pid = NULL, background = true, waits_for = NULL, waits_since = NULL, started_at = clock_timestamp()
        WHERE system_identifier = $1 AND job_id = $2 AND pid = $3 AND state IN ('running', 'paused')
        RETURNING role::oid";
    let (cluster, pid) = (server::system_identifier(), usage::pid());
    home.execute(tx, LOCK, &[&cluster, &id, &pid])?;
    let rows = home.execute(tx, RELEASE, &[&cluster, &id, &pid])?;
    Ok(rows.first().and_then(|row| row.get(1)))
}
