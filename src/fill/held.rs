//! Rows that others hold, asked for one by one.

use planner::phase::Event;

use crate::catalog::holders;
use crate::error::Error;
use crate::fill::batch;
use crate::fill::leaf::{Halt, Leaf};
use crate::messages::{Reason, Wait};
use crate::pg::tx::Attempt;
use crate::run::gate;
use crate::run::throttle::Work;
use crate::settings;

/// So many rows may be held still, each waited for during `row_lock_timeout`, before the others are put off.
const WAITS_PER_ROUND: usize = 20;

impl Leaf<'_> {
    /// Waits for rows that others hold, each in a transaction that holds nothing else.
    pub(super) fn ask_held(&mut self) -> Result<Event, Halt> {
        self.heed_pauses();
        let rows = std::mem::take(&mut self.held);
        let patience = self.patience;
        let mut last_message = None;
        for tid in rows {
            if self.held.len() >= WAITS_PER_ROUND {
                self.held.push(tid);
                continue;
            }
            self.admit(Work::Filling)?;
            let lock = settings::row_lock_timeout();
            let attempted = self.on_table(|leaf, tx, table| {
                let context = leaf
                    .table
                    .context(tx, table, &leaf.look.ring, &leaf.sweeping.survey);
                let attempted = batch::fill_one(&context, tid, lock);
                if let Attempt::Done(filled) = &attempted {
                    leaf.recorder.add(&filled.counts);
                }
                leaf.record(tx)?;
                Ok(attempted)
            })?;
            match attempted {
                Attempt::Done(filled) => {
                    self.count(&filled);
                    self.look.filled(&filled);
                }
                Attempt::Locked(message) => {
                    self.held.push(tid);
                    last_message = Some(message);
                }
            }
        }
        if last_message.is_none() {
            self.run
                .driver
                .has_waited(|reason| reason == Reason::RowLocks)?;
        }
        if let Some(message) = last_message {
            // Rows that could be filled meanwhile are no reason to wait longer for the others.
            self.patience = patience;
            self.require_patience(message, self.look.held_rows(&self.held))?;
            self.note_held()?;
            gate::rest(self.run.driver, settings::row_lock_timeout())?;
        }
        Ok(Event::Asked {
            seen: self.look.seen,
            held: self.held.len(),
        })
    }

    /// Tells whose row locks the run waits for.
    fn note_held(&mut self) -> Result<(), Halt> {
        let (driver, oid) = (self.run.driver, self.oid);
        let holders = driver.transaction(|tx| Ok::<_, Error>(holders::of_rows(tx, oid)))?;
        let (table, rows) = (&self.table.name.name, self.held.len());
        Ok(driver.waits_for(&Wait::row_locks(table, rows, holders.as_deref()))?)
    }
}
