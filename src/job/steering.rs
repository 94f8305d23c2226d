//! What any session may do to a job: pause, resume, cancel or remove it.

use pgrx::pg_sys;

use crate::catalog::holders;
use crate::error::Error;
use crate::job::home::Home;
use crate::pg::tx::Tx;
use crate::pg::{role, server};

/// A job, found by a session that may control it.
pub struct Steered {
    home: Home,
    id: i64,
    /// What is stored of it.
    state: String,
    /// The process that works on it now.
    pub pid: Option<i32>,
    /// The role that started it.
    pub role: pg_sys::Oid,
}

impl Steered {
    /// Finds the job, and locks its row.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::NoJob`], [`Error::JobPermission`].
    pub fn find(tx: &Tx, id: i64) -> Result<Self, Error> {
        const JOB: &str = "
            SELECT j.state, j.pid, j.role::oid, j.table_name::oid, j.column_number,
                   pg_has_role($3, j.role::oid, 'USAGE')
                   OR coalesce(pg_has_role($3, (SELECT c.relowner FROM pg_class c WHERE c.oid = j.table_name), 'USAGE'), false)
            FROM @job j
            WHERE j.system_identifier = $1 AND j.job_id = $2
            FOR NO KEY UPDATE";
        let home = Home::find(tx)?;
        let (cluster, caller) = (server::system_identifier(), role::current_user());
        let rows = home.execute(tx, JOB, &[&cluster, &id, &caller])?;
        let row = rows.first().ok_or(Error::NoJob { job: id })?;
        if row.get::<bool>(6) != Some(true) {
            return Err(Error::JobPermission { job: id });
        }
        let column = row.get(4).zip(row.get(5));
        let worker = column.and_then(|(table, number)| holders::of_column(tx, table, number));
        let pid: Option<i32> = row.get(2);
        let (state, role) = (row.get(1), row.get(3));
        drop(rows);
        Ok(Steered {
            home,
            id,
            state: state.unwrap_or_default(),
            pid: pid.filter(|pid| worker == Some(*pid)),
            role: role.unwrap_or(pg_sys::InvalidOid),
        })
    }

    /// Its number.
    pub fn id(&self) -> i64 {
        self.id
    }

    fn is_one_of(&self, states: &[&str]) -> bool {
        states.contains(&self.state.as_str())
    }

    fn turn(&self, tx: &Tx, state: &str) -> Result<(), Error> {
        const STATE: &str = "
            UPDATE @job SET state = $3,
                pid = CASE WHEN $4 THEN pid END, started_at = CASE WHEN $4 THEN started_at ELSE clock_timestamp() END,
                finished_at = CASE $3 WHEN 'cancelled' THEN clock_timestamp() END,
                error = CASE $3 WHEN 'running' THEN NULL ELSE error END
            WHERE system_identifier = $1 AND job_id = $2";
        let cluster = server::system_identifier();
        // A worker about to be started has no process ID yet.
        let keeps_process = self.pid.is_some() || state != "running";
        self.home
            .execute(tx, STATE, &[&cluster, &self.id, &state, &keeps_process])
            .map(drop)
    }

    /// Has the job wait before its next batch. Returns `false` if it is not running.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn pause(&self, tx: &Tx) -> Result<bool, Error> {
        let can = self.is_one_of(&["running", "failed"]);
        if can {
            self.turn(tx, "paused")?;
        }
        Ok(can)
    }

    /// Has the job end before its next batch. Returns `false` if it has ended already.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn cancel(&self, tx: &Tx) -> Result<bool, Error> {
        let can = self.is_one_of(&["running", "paused", "failed"]);
        if can {
            self.turn(tx, "cancelled")?;
        }
        Ok(can)
    }

    /// Whether it is unfinished, and either paused or without a process.
    pub fn can_resume(&self) -> bool {
        self.is_one_of(&["paused", "cancelled", "failed"])
            || self.state == "running" && self.pid.is_none()
    }

    /// Marks the job as running. The caller must make sure that a process works on it.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn resume(&self, tx: &Tx) -> Result<(), Error> {
        self.turn(tx, "running")
    }

    /// Removes the job and its parts.
    ///
    /// # Errors
    /// [`Error::JobRunning`].
    pub fn forget(&self, tx: &Tx) -> Result<(), Error> {
        const FORGET: &str = "
            WITH part AS (DELETE FROM @part WHERE system_identifier = $1 AND job_id = $2)
            DELETE FROM @job WHERE system_identifier = $1 AND job_id = $2";
        if let Some(pid) = self.pid {
            return Err(Error::JobRunning { job: self.id, pid });
        }
        let cluster = server::system_identifier();
        self.home
            .execute(tx, FORGET, &[&cluster, &self.id])
            .map(drop)
    }
}

/// Removes all jobs that ended longer ago than this and that the current user may control. Returns how many.
///
/// # Errors
/// [`Error::NotInstalled`].
pub fn forget_older(tx: &Tx, seconds: f64) -> Result<i64, Error> {
    const FORGET: &str = "
        WITH job AS (
            DELETE FROM @job j
            WHERE j.system_identifier = $1
            AND j.state IN ('completed', 'incomplete', 'superseded')
            AND j.finished_at < clock_timestamp() - make_interval(secs => $3)
            AND (pg_has_role($2, j.role::oid, 'USAGE')
                 OR coalesce(pg_has_role($2, (SELECT c.relowner FROM pg_class c WHERE c.oid = j.table_name), 'USAGE'), false))
            RETURNING j.job_id),
        part AS (DELETE FROM @part p WHERE p.system_identifier = $1 AND p.job_id IN (SELECT job_id FROM job))
        SELECT count(*) FROM job";
    let home = Home::find(tx)?;
    let (cluster, caller) = (server::system_identifier(), role::current_user());
    let rows = home.execute(tx, FORGET, &[&cluster, &caller, &seconds])?;
    Ok(rows.first().and_then(|row| row.get(1)).unwrap_or(0))
}
