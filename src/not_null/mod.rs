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
use crate::messages;
use crate::run::driver::Driver;

use null_scan::Found;
use nullness::NATIVE;
pub use request::Request;
use table_steps::TableSteps;
use tree::Tree;

/// How often the tables of a tree are gone over, while new ones are being attached.
const MOST_ROUNDS: u32 = 5;

/// Takes the column from wherever an earlier CALL has left it to NOT NULL.
///
/// # Errors
/// [`Error::StillNull`], with nothing changed or what was added taken back; [`Error::LockNotAvailable`], with the steps
/// before it kept.
pub fn run(driver: &Driver, request: &Request) -> Result<(), Error> {
    Tree { driver, request }.settle()
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

    /// Table by table, children before their parents and the one that was named last; `false` if another table has
    /// joined the tree meanwhile.
    fn advance(&self, found: &Found) -> Result<bool, Error> {
        let root = self.request.table;
        let (members, state) = self.read(|tx| Ok((self.members(tx), self.state(tx, root)?)))?;
        let is_tree = members.len() > 1;
        if is_tree && NATIVE == Native::Constraint && state.not_null == NotNull::No {
            // Added to the whole tree at once, the constraint is an inherited one in the tables below.
            TableSteps::begin(self, root, found)?.add_not_null()?;
        }
        for member in members
            .iter()
            .skip(1)
            .rev()
            .filter(|member| member.has_rows)
        {
            match TableSteps::begin(self, member.oid, found).and_then(|steps| steps.finish()) {
                // A partition may go; what matters is the table that was named.
                Ok(true) | Err(Error::NoTable { .. }) => {}
                result => return result,
            }
        }
        TableSteps::begin(self, root, found)?.finish()
    }
}
