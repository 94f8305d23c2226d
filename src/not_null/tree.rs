//! A table and all tables below it, on their way to NOT NULL.

use pgrx::pg_sys;
use planner::not_null_step::{NotNull, Nullness, Step};

use crate::catalog::relation::{Relation, require_owned};
use crate::catalog::tree::{self, Member};
use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::not_null::alter::{Reach, alter, drop_constraint};
use crate::not_null::null_scan::{Found, scan};
use crate::not_null::nullness::{self, NATIVE, can_be_read, is_marked, require_attribute};
use crate::not_null::request::Request;
use crate::pg::tx::Tx;
use crate::run::driver::Driver;

/// The table that was named, and all tables below it, while they become NOT NULL.
pub struct Tree<'a> {
    /// The one way to commit.
    pub driver: &'a Driver,
    /// What was asked for.
    pub request: &'a Request,
}

impl Tree<'_> {
    /// The table that was named comes first.
    pub fn members(&self, tx: &Tx) -> Vec<Member> {
        tree::members(tx, self.request.table)
    }

    pub fn is_done(&self, tx: &Tx) -> Result<bool, Error> {
        for member in self.members(tx) {
            if self.state(tx, member.oid)?.next(NATIVE) != Step::Done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn state(&self, tx: &Tx, table: pg_sys::Oid) -> Result<Nullness, Error> {
        let relation = Relation::look_up(tx, table)?;
        let attribute = require_attribute(tx, &relation, &self.request.column)?;
        Ok(nullness::of(
            tx,
            &relation,
            &self.request.column,
            &attribute,
        ))
    }

    /// A quick scan of the tables that no valid constraint covers yet.
    pub fn look_for_nulls(&self) -> Result<Found, Error> {
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

    pub fn look_at(&self, relations: &[Relation]) -> Result<Found, Error> {
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

    /// Removes what this CALL, or an interrupted one before it, has added, and makes the error.
    pub fn give_up(&self, found: &Found) -> Error {
        let left = match self.take_back() {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        let described = self.driver.transaction(|tx| {
            let relation = Relation::look_up(tx, self.request.table)?;
            let attribute = require_attribute(tx, &relation, &self.request.column)?;
            Ok::<_, Error>((relation.quoted(), attribute.has_default))
        });
        let (qualified, has_default) = described.unwrap_or_default();
        Error::StillNull {
            table: self.request.table_name.clone(),
            qualified,
            column: self.request.column.clone(),
            has_default,
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

    /// Reads the catalogs. Some of PostgreSQL's functions lock the table they are asked about for that.
    pub fn read<T>(&self, work: impl Fn(&Tx) -> Result<T, Error>) -> Result<T, Error> {
        let locks = Locks {
            table_name: &self.request.table_name,
            tables: &[self.request.table],
            lock: None,
            permit: require_owned,
        };
        ddl::run(self.driver, &locks, work)
    }
}
