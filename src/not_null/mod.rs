//! Makes a column NOT NULL without a long lock.
//!
//! SET NOT NULL alone reads the whole table under an ACCESS EXCLUSIVE lock, unless a valid CHECK proves that no row is
//! NULL (`NotNullImpliedByRelConstraints` in PostgreSQL's `tablecmds.c`). Such a CHECK can be added without reading
//! anything and then validated under a lock that lets reads and writes through. From PostgreSQL 18 on, NOT NULL is a
//! constraint that can be added and validated in the same way.

mod alter;
mod null_scan;
mod nullness;
mod table_steps;

use pgrx::pg_sys;
use planner::not_null_step::{Native, NotNull, Nullness, Step};

use crate::catalog::relation::{Relation, require_alterable, require_owned};
use crate::catalog::tree::{self, Member};
use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::messages;
use crate::pg::transaction::Tx;
use crate::run::driver::Driver;

use alter::{Reach, alter, drop_constraint};
use null_scan::{Found, scan};
use nullness::{NATIVE, can_be_read, is_marked, require_attribute};
use table_steps::TableSteps;

/// How often the tables of a tree are gone over, while new ones are being attached.
const MOST_ROUNDS: u32 = 5;

/// A column of a table, and of all tables below it, that is to be NOT NULL.
pub struct Request {
    table: pg_sys::Oid,
    table_name: String,
    column: String,
    number: i16,
}

impl Request {
    /// Checks that the current user may do it, before anything is touched.
    ///
    /// # Errors
    /// Those of [`require_alterable`], [`Error::NoColumn`], [`Error::SystemColumn`].
    pub fn prove(tx: &Tx, table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let relation = require_alterable(tx, table)?;
        let attribute = require_attribute(tx, &relation, column)?;
        if attribute.number < 1 {
            return Err(Error::SystemColumn {
                column: column.into(),
            });
        }
        Ok(Request {
            table,
            table_name: relation.name,
            column: column.into(),
            number: attribute.number,
        })
    }

    /// The table, the number of the column, and the name of the table.
    pub fn what(&self) -> (pg_sys::Oid, i16, &str) {
        (self.table, self.number, &self.table_name)
    }
}

/// Takes the column from wherever an earlier CALL has left it to NOT NULL.
///
/// # Errors
/// [`Error::StillNull`], with nothing changed or what was added taken back; [`Error::LockNotAvailable`], with the steps
/// before it kept.
pub fn run(driver: &Driver, request: &Request) -> Result<(), Error> {
    Tree { driver, request }.settle()
}

/// The table that was named, and all tables below it, while they become NOT NULL.
struct Tree<'a> {
    driver: &'a Driver,
    request: &'a Request,
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

    /// The table that was named comes first.
    fn members(&self, tx: &Tx) -> Vec<Member> {
        tree::members(tx, self.request.table)
    }

    fn is_done(&self, tx: &Tx) -> Result<bool, Error> {
        for member in self.members(tx) {
            if self.state(tx, member.oid)?.next(NATIVE) != Step::Done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn state(&self, tx: &Tx, table: pg_sys::Oid) -> Result<Nullness, Error> {
        let relation = Relation::look_up(tx, table)?;
        let attribute = require_attribute(tx, &relation, &self.request.column)?;
        Ok(nullness::of(
            tx,
            &relation,
            &self.request.column,
            &attribute,
        ))
    }

    /// A quick look at the tables of which nothing is proven yet.
    fn look_for_nulls(&self) -> Result<Found, Error> {
        let unproven = self.read(|tx| {
            let mut unproven = vec![];
            for member in self.members(tx).iter().filter(|member| member.has_rows) {
                let proven = matches!(
                    self.state(tx, member.oid)?.next(NATIVE),
                    Step::SetNotNull { .. } | Step::Done
                );
                if !proven {
                    unproven.push(Relation::look_up(tx, member.oid)?);
                }
            }
            Ok(unproven)
        })?;
        self.look_at(&unproven)
    }

    fn look_at(&self, relations: &[Relation]) -> Result<Found, Error> {
        let mut found = Found::default();
        for relation in relations {
            let readable = self
                .driver
                .transaction(|tx| Ok::<_, Error>(can_be_read(tx, relation)))?;
            if readable {
                scan(self.driver, relation, &self.request.column, &mut found)?;
            } else {
                found.maybe_more = true;
            }
        }
        Ok(found)
    }

    /// Takes back what this CALL, or an interrupted one before it, has added in vain.
    fn give_up(&self, found: &Found) -> Error {
        let left = match self.take_back() {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        let quoted = |tx: &Tx| Ok::<_, Error>(Relation::look_up(tx, self.request.table)?.quoted());
        Error::StillNull {
            table: self.request.table_name.clone(),
            qualified: self.driver.transaction(quoted).unwrap_or_default(),
            column: self.request.column.clone(),
            rows: found.nulls.max(1),
            maybe_more: found.maybe_more || found.nulls == 0,
            left,
        }
    }

    fn take_back(&self) -> Result<(), Error> {
        for member in self.read(|tx| Ok(self.members(tx)))? {
            let (relation, state) = self.read(|tx| {
                let relation = Relation::look_up(tx, member.oid)?;
                Ok((relation, self.state(tx, member.oid)?))
            })?;
            if let Some(helper) = state.helper {
                alter(self.driver, &relation, Reach::Alone, |tx, table| {
                    drop_constraint(tx, table, &helper, "ONLY ");
                    Ok(())
                })?;
            }
            let NotNull::NotValid { constraint } = state.not_null else {
                continue;
            };
            let is_root = member.oid == self.request.table;
            if is_root && self.read(|tx| Ok(is_marked(tx, &relation, &constraint)))? {
                alter(self.driver, &relation, Reach::Tree, |tx, table| {
                    drop_constraint(tx, table, &constraint, "");
                    Ok(())
                })?;
            }
        }
        Ok(())
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

    /// Reads the catalogs. Some of PostgreSQL's functions lock the table they are asked about for that.
    fn read<T>(&self, work: impl Fn(&Tx) -> Result<T, Error>) -> Result<T, Error> {
        let locks = Locks {
            table_name: &self.request.table_name,
            tables: &[self.request.table],
            lock: None,
            permit: require_owned,
        };
        ddl::run(self.driver, &locks, work)
    }
}
