//! What is known of a leaf table as long as it keeps its file, its name, its column and its hazards.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::page::Growth;
use planner::window::Method;

use crate::batch::Ground;
use crate::error::{Change, Error};
use crate::filling::Filling;
use crate::job::Job;
use crate::pg::heap::{Column, Table};
use crate::pg::spi::{self, argument};
use crate::statements::{Busy, Hazards, LeafName, LeafStatements};
use crate::target::Target;

/// In a smaller table there is nothing to gain by recycling pages; one pass has fewer batches.
const WORTH_RECYCLING: u32 = 32;

/// How long one slow statement is remembered. It may have met a busy disk, which is over soon.
const CAREFUL: Duration = Duration::from_secs(10);

/// What a leaf is filled with, and how far one batch may go.
pub struct Plan<'a> {
    /// The table and column.
    pub target: &'a Target,
    /// What goes into the column.
    pub filling: &'a Filling,
    /// Most rows of a batch.
    pub batch_size: usize,
    /// Where progress is stored.
    pub job: &'a Job,
}

/// A leaf table, looked at, and its statements.
pub struct Prepared {
    /// The file that its blocks are blocks of.
    pub file_node: pg_sys::Oid,
    /// The name that the statements were prepared against.
    pub name: LeafName,
    /// The column to be filled.
    pub column: Column,
    /// The statements.
    pub statements: LeafStatements,
    growth: Growth,
    hazards: Hazards,
    /// Until then statements must not wait for rows while they hold others, since one has taken long.
    careful_until: Option<Instant>,
}

impl Prepared {
    /// Looks at the leaf and prepares its statements. Must be called within an SPI connection.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`], [`Error::AccessMethod`], and PostgreSQL's own for SQL that does not fit the leaf.
    pub fn look(plan: &Plan<'_>, table: &Table) -> Result<Self, Error> {
        let name = leaf_name(table);
        require_heap(table, &name)?;
        let column = find_column(plan, table, &name)?;
        let hazards = hazards(table, &column);
        Ok(Prepared {
            file_node: table.file_node(),
            statements: LeafStatements::prepare(&name, plan.target, plan.filling, hazards),
            growth: Growth {
                bytes: plan.filling.bytes(plan.target.column_type),
                align: plan.target.column_type.layout().align,
            },
            name,
            column,
            hazards,
            careful_until: None,
        })
    }

    /// What a batch needs to know, for as long as `table` is open.
    pub fn ground<'g>(&'g self, plan: &'g Plan<'_>, table: &'g Table) -> Ground<'g> {
        let slow = self.careful_until.is_some_and(|end| Instant::now() < end);
        let careful = slow || self.statements.may_take_long();
        Ground {
            table,
            oid: self.name.oid,
            column: &self.column,
            growth: self.growth,
            key: self.hazards.key,
            busy: if careful {
                Busy::Skipped
            } else {
                Busy::Awaited
            },
            statements: &self.statements,
            filling: plan.filling,
        }
    }

    /// Tells that a statement took long, for whatever reason: the next ones may, too.
    pub fn was_slow(&mut self) {
        self.careful_until = Some(Instant::now() + CAREFUL);
    }

    /// The method for the next window, and the hazards now: an index, a trigger or a constraint may have been made
    /// since the last. Locks the table's indexes for a moment.
    pub fn method_now(&self, table: &Table) -> (Method, Hazards) {
        let hazards = hazards(table, &self.column);
        let method = if table.blocks() >= WORTH_RECYCLING && table.allows_hot(self.column.number) {
            Method::Recycle
        } else {
            Method::OnePass
        };
        (method, hazards)
    }

    /// Whether the statements were prepared for these hazards.
    pub fn is_for(&self, hazards: Hazards) -> bool {
        self.hazards == hazards
    }

    /// Fails if the column was dropped, renamed or given another type, or row-level security switched on. `false` if
    /// the table was renamed or moved: names lead to the statements' table, and another one may bear the old name now.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`], [`Error::RowSecurity`].
    pub fn follow(&mut self, plan: &Plan<'_>, table: &Table) -> Result<bool, Error> {
        self.column = self.same_column(plan, table)?;
        if table.has_row_security() {
            require_no_row_security(table)?;
        }
        Ok(leaf_name(table) == self.name)
    }

    /// Takes over what was prepared anew, but for the file: blocks that are done are blocks of that.
    pub fn renew(&mut self, prepared: Prepared) {
        *self = Prepared {
            file_node: self.file_node,
            careful_until: self.careful_until,
            ..prepared
        };
    }

    /// The column as it is now: whether older rows read as its first default may have changed.
    fn same_column(&self, plan: &Plan<'_>, table: &Table) -> Result<Column, Error> {
        let changed = |change| Error::ColumnChanged {
            table: self.name.name.clone(),
            column: plan.target.column.clone(),
            change,
        };
        match table.column(self.column.number) {
            None => Err(changed(Change::Dropped)),
            Some(now) if now.name != self.column.name => Err(changed(Change::Renamed)),
            Some(now) if now.column_type != self.column.column_type => {
                Err(changed(Change::Altered))
            }
            Some(now) => Ok(now),
        }
    }
}

fn leaf_name(table: &Table) -> LeafName {
    let (schema, name) = table.name();
    let oid = table.oid();
    LeafName { oid, schema, name }
}

/// Policies would keep rows from being seen, and the run would call the table done.
fn require_no_row_security(table: &Table) -> Result<(), Error> {
    let rows = spi::catalog("SELECT row_security_active($1)", &[argument(table.oid())]);
    match rows.first().and_then(|row| row.get(1)) {
        Some(false) => Ok(()),
        _ => Err(Error::RowSecurity {
            table: table.name().1,
        }),
    }
}

/// Other access methods may have pages of another kind, and the table can be given one at any time.
fn require_heap(table: &Table, name: &LeafName) -> Result<(), Error> {
    match table.other_access_method() {
        None => Ok(()),
        Some(method) => Err(Error::AccessMethod {
            name: name.name.clone(),
            method,
        }),
    }
}

fn find_column(plan: &Plan<'_>, table: &Table, name: &LeafName) -> Result<Column, Error> {
    const NUMBER: &str = "
        SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = $2::name AND NOT attisdropped";
    let number: Option<i16> = spi::catalog(
        NUMBER,
        &[argument(name.oid), argument(plan.target.column.as_str())],
    )
    .first()
    .and_then(|row| row.get(1));
    let column = number.and_then(|number| table.column(number));
    match column {
        Some(column) if column.column_type == plan.target.column_type => Ok(column),
        _ => Err(Error::ColumnChanged {
            table: name.name.clone(),
            column: plan.target.column.clone(),
            change: Change::Altered,
        }),
    }
}

fn hazards(table: &Table, column: &Column) -> Hazards {
    // Bits of tgtype: 1 for each row, 2 before, 16 on UPDATE. A trigger of the user's may write to tables with deferred
    // constraints of their own. Functions that come with PostgreSQL have no dependencies (they are pinned).
    const HAZARDS: &str = "
        SELECT bool_or(NOT tgisinternal AND tgtype & 3 = 3),
               bool_or(NOT tgisinternal)
               OR EXISTS (SELECT FROM pg_depend d
                          WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
                          AND (d.classid = 'pg_constraint'::regclass AND d.objid IN
                               (SELECT c.oid FROM pg_constraint c WHERE c.conrelid = $1 AND c.contype = 'c')
                               OR d.classid = 'pg_class'::regclass AND d.objid IN
                               (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = $1)
                               OR d.classid = 'pg_attrdef'::regclass AND d.objid IN
                               (SELECT f.oid FROM pg_attrdef f JOIN pg_attribute a
                                ON a.attrelid = f.adrelid AND a.attnum = f.adnum
                                WHERE f.adrelid = $1 AND a.attgenerated <> ''))),
               bool_or(NOT tgisinternal OR tgdeferrable)
        FROM pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D' AND tgtype & 16 = 16";
    let rows = spi::catalog(HAZARDS, &[argument(table.oid())]);
    let truth = |number| {
        rows.first()
            .and_then(|row| row.get(number))
            .unwrap_or(false)
    };
    Hazards {
        may_undo: truth(1),
        may_take_long: truth(2),
        may_wait_at_commit: truth(3),
        key: table.is_key(column.number),
    }
}
