//! The orders that other sessions give a running job, and what it reports to them.

use pgrx::pg_sys;

use crate::error::Error;
use crate::job::home::Home;
use crate::job::store::Job;
use crate::pg::failure::Failure;
use crate::pg::tx::{Attempt, Tx};
use crate::pg::{server, usage};
use crate::run::supervision::{Order, Supervision};

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
            Some("cancelled") => Some(Order::Cancel),
            _ => Some(Order::Go),
        })
    }

    fn note_wait(&self, tx: &Tx, wait: Option<&str>) -> Result<(), Error> {
        // Does not wait for sessions that have the row locked, for instance to pause the job.
        const NOTE: &str = "
            UPDATE @job SET waits_for = $3, waits_since = CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END
            WHERE ctid = (SELECT ctid FROM @job
                          WHERE system_identifier = $1 AND job_id = $2 AND pid = $4
                          AND waits_for IS DISTINCT FROM $3
                          FOR NO KEY UPDATE SKIP LOCKED)";
        if !self.is_free(tx)? {
            return Ok(());
        }
        let noted = tx.attempt(|| {
            let id = self.begin(tx)?;
            let cluster = server::system_identifier();
            self.home
                .execute(tx, NOTE, &[&cluster, &id, &wait, &usage::pid()])
                .map(|_| id)
        });
        if let Attempt::Done(id) = noted {
            self.has_begun(id?);
        }
        Ok(())
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled {
            table: self.what.table_name.clone(),
            job: self.id.get().unwrap_or_default(),
        }
    }
}

impl Job {
    /// Stores how the run ended, and what it did since it was stored last, if there is anything to store.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn fail(&self, tx: &Tx, failure: &Failure) -> Result<(), Error> {
        let unstored = self.unstored.take();
        if (!self.begun.get() && unstored.is_empty()) || !self.is_free(tx)? {
            return Ok(());
        }
        let id = self.begin(tx)?;
        for (leaf, entry) in &unstored {
            self.begin_part(tx, *leaf)?;
            self.store(tx, id, *leaf, entry)?;
        }
        fail(tx, &self.home, id, failure)
    }
}

/// Stores the error that has ended the run of job `id` by this process.
///
/// # Errors
/// [`Error::ExtensionDropped`].
pub fn fail(tx: &Tx, home: &Home, id: i64, failure: &Failure) -> Result<(), Error> {
    // Meanwhile another run may have taken up the job.
    const FAIL: &str = "
        UPDATE @job
        SET error = $4::jsonb, waits_for = NULL, waits_since = NULL, finished_at = clock_timestamp(),
            state = CASE WHEN state = 'running' AND $5 THEN 'failed' ELSE state END
        WHERE system_identifier = $1 AND job_id = $2 AND pid = $3";
    let (cluster, failed) = (server::system_identifier(), !failure.is_intervention());
    let failure = serde_json::to_string(failure)?;
    home.execute(tx, FAIL, &[&cluster, &id, &usage::pid(), &failure, &failed])
        .map(drop)
}
