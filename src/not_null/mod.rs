//! Makes a column NOT NULL without a long lock.
//!
//! SET NOT NULL alone reads the whole table under an ACCESS EXCLUSIVE lock, unless a valid CHECK proves that no row is
//! NULL (`NotNullImpliedByRelConstraints` in PostgreSQL's `tablecmds.c`). Such a CHECK can be added without reading
//! anything and then validated under a lock that lets reads and writes through. From PostgreSQL 18 on, NOT NULL is a
//! constraint that can be added and validated in the same way.

mod alter;
mod null_scan;
mod nullness;
mod request;
mod table_steps;
mod tree;

use planner::not_null_step::{Native, NotNull};

use crate::error::Error;
use crate::job::step::Step;
use crate::messages;
use crate::run::driver::Driver;

use null_scan::Found;
use nullness::NATIVE;
pub use request::Request;
use table_steps::TableSteps;
use tree::Tree;

/// How many times all tables of a tree are processed, if new ones are attached meanwhile.
const MOST_ROUNDS: u32 = 5;

/// Makes the column NOT NULL, continuing from wherever an earlier CALL has left it.
///
/// # Errors
/// [`Error::StillNull`], with nothing changed or what was added taken back; [`Error::LockNotAvailable`], with the steps
/// before it kept.
pub fn run(driver: &Driver, request: &Request) -> Result<(), Error> {
    let (table, column) = (request.table, &request.column);
    Step::run(driver, "safe_set_not_null", table, column, || {
        Tree { driver, request }.settle()
    })
}

impl Tree<'_> {
    fn settle(&self) -> Result<(), Error> {
        let Request {
            table_name, column, ..
        } = self.request;
        if self.read(|tx| self.is_done(tx))? {
            messages::say_already_not_null(table_name, column);
            return Ok(());
        }
        let found = self.look_for_nulls()?;
        if found.nulls > 0 {
            return Err(self.give_up(&found));
        }
        for _ in 0..MOST_ROUNDS {
            if self.advance(&found)? {
                messages::say_now_not_null(table_name, column);
                return Ok(());
            }
        }
        Err(Error::TreeKeepsChanging {
            table: table_name.clone(),
        })
    }

    /// Processes table by table: children before their parents, and the named table last. Returns `false` if another
    /// table was attached meanwhile.
    fn advance(&self, found: &Found) -> Result<bool, Error> {
        let root = self.request.table;
        let (members, state) = self.read(|tx| Ok((self.members(tx), self.state(tx, root)?)))?;
        let is_tree = members.len() > 1;
        if is_tree && NATIVE == Native::Constraint && state.not_null == NotNull::No {
            // The constraint is added to the whole tree at once, so that the tables below inherit it.
            TableSteps::begin(self, root, found)?.add_not_null()?;
        }
        for member in members
            .iter()
            .skip(1)
            .rev()
            .filter(|member| member.has_rows)
        {
            match TableSteps::begin(self, member.oid, found).and_then(|steps| steps.finish()) {
                // A partition may be dropped. Only the table that was named must exist.
                Ok(true) | Err(Error::NoTable { .. }) => {}
                result => return result,
            }
        }
        TableSteps::begin(self, root, found)?.finish()
    }
}
