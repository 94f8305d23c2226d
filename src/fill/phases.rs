//! The phases of one leaf table, one after the other.

use planner::phase::{Event, Finding, Phase};

use crate::error::Error;
use crate::fill::leaf::{Halt, Leaf, open_table, prepare};
use crate::fill::outcome::Leftover;
use crate::fill::state::{Look, Sweeping};
use crate::job::part::{Activity, End, Position};
use crate::messages;

impl Leaf<'_> {
    /// Sweeps the leaf once, if that was not done before.
    ///
    /// # Errors
    /// Those of [`Leaf::complete`].
    pub fn fill_once(mut self) -> Result<(), Error> {
        while self.machine.phase() == Phase::Filling {
            self.advance()?;
        }
        self.store_now()?;
        self.run.job.has_come_to(self.oid, self.recorder.position());
        Ok(())
    }

    /// Fills the leaf and verifies it, from its first block again whenever it is rewritten. Rows that are NULL still come
    /// back.
    ///
    /// # Errors
    /// [`Error::RowsLocked`], [`Error::TableDropped`], [`Error::ColumnChanged`], [`Error::AccessMethod`], and
    /// PostgreSQL's own from triggers, checks or the expression.
    pub fn complete(mut self) -> Result<Option<Leftover>, Error> {
        loop {
            if let Phase::Done(finding) = self.machine.phase() {
                return self.finish(finding);
            }
            self.advance()?;
        }
    }

    /// Does what the phase asks for, a window at most, and goes on to the phase that follows from it.
    fn advance(&mut self) -> Result<(), Error> {
        let result = match self.machine.phase() {
            Phase::Filling => self.sweep(),
            Phase::Verifying => self.look_at_window(true),
            Phase::Counting => self.look_at_window(false),
            Phase::Waiting => self.ask_held(),
            Phase::Done(_) => return Ok(()),
        };
        let event = match result {
            Ok(event) => event,
            Err(Halt::Rewritten) => Event::Rewritten,
            Err(Halt::Failed(error)) => return Err(error),
        };
        if self.machine.handle(event) {
            self.enter(self.machine.phase())?;
        }
        Ok(())
    }

    fn enter(&mut self, phase: Phase) -> Result<(), Error> {
        self.patience.renew();
        match phase {
            Phase::Filling => self.start_over(),
            Phase::Verifying | Phase::Counting => {
                self.look = Look::default();
                self.begin(Activity::Verifying)
            }
            Phase::Waiting | Phase::Done(_) => Ok(()),
        }
    }

    fn start_over(&mut self) -> Result<(), Error> {
        messages::say_rewritten(&self.table.name.name);
        self.sweeping = Sweeping::new(self.run.membership.of());
        self.held.clear();
        self.table = prepare(self.run, self.oid)?;
        self.begin(Activity::Filling)
    }

    /// Begins with all blocks that the table has now.
    fn begin(&mut self, activity: Activity) -> Result<(), Error> {
        let (run, oid) = (self.run, self.oid);
        let end_block = run
            .driver
            .transaction(|tx| Ok::<_, Error>(open_table(tx, run, oid)?.blocks()))?;
        let position = Position {
            activity,
            file_node: Some(self.table.file_node),
            end_block,
            ..Position::default()
        };
        self.recorder.enter(position);
        self.report.begin(position);
        if activity == Activity::Filling {
            self.begin_round();
        }
        Ok(())
    }

    fn finish(mut self, finding: Finding) -> Result<Option<Leftover>, Error> {
        let end = if finding.null() == 0 {
            End::Completed
        } else {
            End::Incomplete
        };
        self.recorder.finish(self.run.driver, end)?;
        let (table, column) = (&self.table.name.name, &self.table.column.name);
        Ok(Leftover::of(table, column, finding))
    }

    fn store_now(&mut self) -> Result<(), Error> {
        let stored = self.on_table(|leaf, tx, _| Ok(leaf.recorder.store(tx)?));
        match stored {
            // The next phase will notice that.
            Ok(()) | Err(Halt::Rewritten) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        }
    }
}
