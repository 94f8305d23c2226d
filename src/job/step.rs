//! The steps before and after a backfill, while they wait or validate: a row that others can see.

use std::cell::Cell;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::error::Error;
use crate::job::home::Home;
use crate::pg::tx::{Attempt, Tx};
use crate::pg::{server, usage};
use crate::run::driver::Driver;
use crate::run::supervision::{Doing, Order, Supervision};

/// One step on one column. It is stored only once it waits, and removed when it ends.
pub struct Step {
    home: Home,
    /// The procedure.
    command: &'static str,
    table: pg_sys::Oid,
    column: String,
    is_stored: Cell<bool>,
    validates: Cell<bool>,
}

impl Step {
    /// Runs `work`, which takes the step, and lets others see what it does. Call it between transactions.
    ///
    /// # Errors
    /// Those of `work`; [`Error::NotInstalled`].
    pub fn run<T>(
        driver: &Driver,
        command: &'static str,
        table: pg_sys::Oid,
        column: &str,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let step = Rc::new(Step {
            home: driver.transaction(Home::find)?,
            command,
            table,
            column: column.into(),
            is_stored: Cell::new(false),
            validates: Cell::new(false),
        });
        driver.is_supervised_by(Some(Rc::clone(&step) as Rc<dyn Supervision>));
        let result = driver.with_last_words(work, |tx, _| step.remove(tx))?;
        if step.is_stored.get() {
            driver.transaction(|tx| step.remove(tx))?;
        }
        Ok(result)
    }

    fn store(&self, tx: &Tx, state: &str, wait: Option<&str>) -> Result<(), Error> {
        // Rows of processes that were killed are removed, and one of an earlier process of the same number overwritten.
        const CLEAN: &str = "
            DELETE FROM @step WHERE system_identifier = $1 AND pid <> ALL (SELECT a.pid FROM pg_stat_activity a)";
        const STORE: &str = "
            INSERT INTO @step (system_identifier, table_name, column_name, command, pid, state, waits_for, query_start)
            SELECT $1, $2::regclass, $3::name, $4, $5, $6, $7,
                   coalesce((SELECT a.query_start FROM pg_stat_activity a WHERE a.pid = $5), statement_timestamp())
            ON CONFLICT (system_identifier, table_name, column_name, pid) DO UPDATE
            SET command = $4, state = $6, waits_for = $7, query_start = excluded.query_start,
                waits_since = CASE WHEN safe_backfill_step.state = $6 AND safe_backfill_step.command = $4
                                   THEN safe_backfill_step.waits_since ELSE clock_timestamp() END,
                started_at = CASE WHEN $8 THEN safe_backfill_step.started_at ELSE clock_timestamp() END";
        if !self.is_stored.get() {
            self.home
                .execute(tx, CLEAN, &[&server::system_identifier()])?;
        }
        self.home
            .execute(
                tx,
                STORE,
                &[
                    &server::system_identifier(),
                    &self.table,
                    &self.column,
                    &self.command,
                    &usage::pid(),
                    &state,
                    &wait,
                    &self.is_stored.get(),
                ],
            )
            .map(drop)
    }

    fn remove(&self, tx: &Tx) -> Result<(), Error> {
        const REMOVE: &str = "DELETE FROM @step WHERE system_identifier = $1 AND pid = $2";
        if !self.is_stored.get() || !self.home.try_lock(tx)? {
            return Ok(());
        }
        self.home
            .execute(tx, REMOVE, &[&server::system_identifier(), &usage::pid()])
            .map(drop)
    }
}

impl Supervision for Step {
    fn order(&self, _tx: &Tx) -> Result<Option<Order>, Error> {
        Ok(None)
    }

    fn note(&self, tx: &Tx, doing: Doing<'_>) -> Result<bool, Error> {
        match doing {
            Doing::Validate => self.validates.set(true),
            Doing::Validated => self.validates.set(false),
            // It may take long to validate, once the locks are there.
            Doing::TryAgain if !self.validates.get() => return Ok(true),
            Doing::Work | Doing::TryAgain | Doing::WaitFor(..) => {}
        }
        let (state, wait) = match doing {
            Doing::WaitFor(wait, _) => ("waiting", Some(wait)),
            _ if self.validates.get() => ("validating", None),
            _ => ("running", None),
        };
        if !self.home.try_lock(tx)? {
            return Ok(false);
        }
        // What would be published is not told.
        if self.home.is_published(tx) {
            return Ok(true);
        }
        match tx.attempt(|| self.store(tx, state, wait)) {
            Attempt::Done(stored) => {
                stored?;
                self.is_stored.set(true);
                Ok(true)
            }
            Attempt::Locked(_) => Ok(false),
        }
    }

    fn say_paused(&self) {}
}
