//! One table on its way to NOT NULL, from step to step.

use std::time::Instant;

use pgrx::{PgSqlErrorCode, pg_sys};
use planner::not_null_step::{NotNull, Nullness, Step};

use crate::catalog::attribute::is_not_null_in;
use crate::catalog::relation::Relation;
use crate::catalog::tree;
use crate::error::{Change, Error};
use crate::job::column_lock;
use crate::messages;
use crate::not_null::alter::{Reach, alter, alter_with, drop_constraint};
use crate::not_null::null_scan::Found;
use crate::not_null::nullness::{self, NATIVE, is_marked, require_attribute};
use crate::not_null::tree::Tree;
use crate::pg::lock::{ColumnLock, TableLock};
use crate::pg::spi::quote;
use crate::pg::tx::Tx;
use crate::run::supervision::Doing;

/// No table needs more steps than this.
const MOST_STEPS: u32 = 10;
/// Validating a smaller table is not worth a message: 64 MB.
const WORTH_A_NOTICE: u32 = 8192;

/// One table on its way from step to step.
pub struct TableSteps<'a> {
    tree: &'a Tree<'a>,
    found: &'a Found,
    relation: Relation,
    number: i16,
    _lock: Option<ColumnLock>,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was done.
    Made,
    /// The table has changed since the step was chosen, so another one is due.
    Overtaken,
    /// A table below is not done.
    Blocked,
}

impl<'a> TableSteps<'a> {
    /// Locks the column of the table, unless that is done for the table that was named.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`], [`Error::NoTable`], [`Error::NoColumn`].
    pub fn begin(tree: &'a Tree<'a>, table: pg_sys::Oid, found: &'a Found) -> Result<Self, Error> {
        let request = tree.request;
        tree.read(|tx| {
            let relation = Relation::look_up(tx, table)?;
            let number = require_attribute(tx, &relation, &request.column)?.number;
            let is_root = table == request.table;
            let lock = match is_root {
                true => None,
                false => Some(column_lock::acquire(
                    tx,
                    table,
                    number,
                    &relation.name,
                    &request.column,
                )?),
            };
            Ok(TableSteps {
                tree,
                found,
                relation,
                number: if is_root { request.number } else { number },
                _lock: lock,
            })
        })
    }

    /// Takes step after step until the table is done; `false` if it has to wait for a table below it.
    ///
    /// # Errors
    /// [`Error::StillNull`], [`Error::ColumnChanged`], [`Error::LockNotAvailable`].
    pub fn finish(&self) -> Result<bool, Error> {
        for _ in 0..MOST_STEPS {
            let step = self.tree.read(|tx| self.due(tx, &self.relation))?.0;
            let progress = match &step {
                Step::Done => return Ok(true),
                Step::AddCheck => self.add_check()?,
                Step::AddNotNull => self.add_not_null()?,
                Step::Validate { constraint } => self.validate(constraint)?,
                Step::SetNotNull { helper } => self.set_not_null(helper.as_deref())?,
                Step::DropHelper { helper } => self.alter(Reach::Alone, |tx, table| {
                    drop_constraint(tx, table, helper, "ONLY ");
                    Ok(Progress::Made)
                })?,
            };
            if progress == Progress::Blocked {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The step that is due, and the state that says so.
    fn due(&self, tx: &Tx, relation: &Relation) -> Result<(Step, Nullness), Error> {
        let attribute = require_attribute(tx, relation, self.column())?;
        if attribute.number != self.number {
            return Err(Error::ColumnChanged {
                table: relation.name.clone(),
                column: self.column().into(),
                change: Change::Replaced,
            });
        }
        let state = nullness::of(tx, relation, self.column(), &attribute);
        let step = match state.next(NATIVE) {
            // A partitioned table has no rows of its own to check.
            Step::AddCheck if relation.kind == "p" => Step::SetNotNull { helper: None },
            step => step,
        };
        Ok((step, state))
    }

    fn is_due(&self, tx: &Tx, table: &Relation, step: &Step) -> Result<bool, Error> {
        Ok(self.due(tx, table)?.0 == *step)
    }

    /// Adds a CHECK to one table alone; those below it get their own.
    fn add_check(&self) -> Result<Progress, Error> {
        self.alter(Reach::Alone, |tx, table| {
            if !self.is_due(tx, table, &Step::AddCheck)? {
                return Ok(Progress::Overtaken);
            }
            let column = self.column();
            let helper = quote(&nullness::free_name(tx, table, self.number, column));
            let (name, column) = (table.quoted(), quote(column));
            // IS DISTINCT FROM NULL is what NOT NULL means also for composite types, of which IS NOT NULL asks
            // something else; for all other types PostgreSQL stores the one as the other.
            tx.execute(
                &format!(
                    "ALTER TABLE ONLY {name} ADD CONSTRAINT {helper} \
                 CHECK ({column} IS DISTINCT FROM NULL) NO INHERIT NOT VALID"
                ),
                &[],
            );
            nullness::mark(tx, &helper, &name);
            Ok(Progress::Made)
        })
    }

    /// Adds a NOT NULL that is not valid yet to the table and all tables below it.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`], [`Error::LockNotAvailable`].
    pub fn add_not_null(&self) -> Result<Progress, Error> {
        self.alter(Reach::Tree, |tx, table| {
            if self.due(tx, table)?.1.not_null != NotNull::No {
                return Ok(Progress::Overtaken);
            }
            let (name, column) = (table.quoted(), quote(self.column()));
            tx.execute(
                &format!("ALTER TABLE {name} ADD NOT NULL {column} NOT VALID"),
                &[],
            );
            if let NotNull::NotValid { constraint } = self.due(tx, table)?.1.not_null {
                nullness::mark(tx, &quote(&constraint), &name);
            }
            Ok(Progress::Made)
        })
    }

    /// Validates the constraint, which checks all rows while others read and write them.
    fn validate(&self, constraint: &str) -> Result<Progress, Error> {
        let (helper, is_long) = self.tree.read(|tx| {
            let helper = self.due(tx, &self.relation)?.1.helper;
            Ok((helper, self.relation.blocks(tx) >= WORTH_A_NOTICE))
        })?;
        if is_long {
            self.tree.driver.note(Doing::Validate)?;
        }
        let is_helper = helper.as_deref() == Some(constraint);
        // The helper is not inherited, so the tables below do not have it.
        let reach = if is_helper { Reach::Alone } else { Reach::Tree };
        let lock = TableLock::ShareUpdateExclusive;
        let validated = alter_with(
            self.tree.driver,
            &self.relation,
            reach,
            lock,
            |tx, table| self.validate_now(tx, table, constraint, is_helper),
        )?;
        if is_long {
            self.tree.driver.note(Doing::Validated)?;
        }
        match validated {
            Some(progress) => Ok(progress),
            None => {
                let found = self.tree.look_at(std::slice::from_ref(&self.relation))?;
                Err(self.tree.give_up(&found))
            }
        }
    }

    /// `None` if a row is NULL.
    fn validate_now(
        &self,
        tx: &Tx,
        table: &Relation,
        constraint: &str,
        is_helper: bool,
    ) -> Result<Option<Progress>, Error> {
        let step = Step::Validate {
            constraint: constraint.into(),
        };
        if !self.is_due(tx, table, &step)? {
            return Ok(Some(Progress::Overtaken));
        }
        let began = Instant::now();
        let is_long = self.say_validating(tx, table);
        let (name, quoted) = (table.quoted(), quote(constraint));
        let validate = format!("ALTER TABLE {name} VALIDATE CONSTRAINT {quoted}");
        let violations = [
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        ];
        let validated = tx.attempt_except(&violations, || drop(tx.execute(&validate, &[])));
        if validated.is_err() {
            return Ok(None);
        }
        if !is_helper && is_marked(tx, table, constraint) {
            nullness::unmark(tx, &quoted, &name);
        }
        if is_long {
            messages::say_validated(&table.name, self.column(), began.elapsed());
        }
        Ok(Some(Progress::Made))
    }

    /// Says what a validation is about to read; `false` if that is not worth a message.
    ///
    /// PostgreSQL reports no progress of a validation, so its duration is estimated from the speed of the quick scan.
    fn say_validating(&self, tx: &Tx, table: &Relation) -> bool {
        let (blocks, found) = (table.blocks(tx), self.found);
        if blocks < WORTH_A_NOTICE {
            return false;
        }
        let bytes = |blocks: u64| blocks * u64::from(pg_sys::BLCKSZ);
        let seconds = found.time.as_secs_f64().max(1e-3);
        let speed = (found.blocks > 0).then(|| bytes(found.blocks) as f64 / seconds);
        messages::say_validating(&table.name, self.column(), bytes(blocks.into()), speed);
        true
    }

    /// Sets NOT NULL and drops the CHECK that has proven it.
    fn set_not_null(&self, helper: Option<&str>) -> Result<Progress, Error> {
        let step = Step::SetNotNull {
            helper: helper.map(Into::into),
        };
        self.alter(Reach::Tree, |tx, table| {
            if !self.is_due(tx, table, &step)? {
                return Ok(Progress::Overtaken);
            }
            if !are_not_null_below(tx, table, self.column()) {
                return Ok(Progress::Blocked);
            }
            let (name, column) = (table.quoted(), quote(self.column()));
            // SET NOT NULL comes first. If the CHECK were dropped before it, even in the same statement, it would prove
            // nothing.
            tx.execute(
                &format!("ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL"),
                &[],
            );
            if let Some(helper) = helper {
                drop_constraint(tx, table, helper, "ONLY ");
            }
            Ok(Progress::Made)
        })
    }

    fn column(&self) -> &str {
        &self.tree.request.column
    }

    fn alter<T>(
        &self,
        reach: Reach,
        work: impl Fn(&Tx, &Relation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        alter(self.tree.driver, &self.relation, reach, work)
    }
}

/// Whether every table with rows below this one is NOT NULL, and valid so.
fn are_not_null_below(tx: &Tx, table: &Relation, column: &str) -> bool {
    let below = tree::members(tx, table.oid)
        .iter()
        .skip(1)
        .filter(|member| member.has_rows)
        .map(|member| member.oid)
        .collect();
    is_not_null_in(tx, below, column)
}
