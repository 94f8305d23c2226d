//! What is known of a leaf table as long as it keeps its file, its name, its column and its triggers.

use pgrx::pg_sys;

use crate::batch::Ground;
use crate::error::Error;
use crate::filling::Filling;
use crate::job::Job;
use crate::pg::heap::{Column, Growth, Table};
use crate::pg::spi::{self, argument};
use crate::statements::{LeafName, LeafStatements, Triggers};
use crate::sweep::Method;
use crate::target::Target;

/// In a smaller table there is nothing to gain by recycling pages; one pass has fewer batches.
const WORTH_RECYCLING: u32 = 32;

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
    oid: pg_sys::Oid,
    growth: Growth,
    recycle: Method,
    shape: Shape,
}

/// What the statements depend on besides names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    triggers: Triggers,
    key: bool,
}

impl Shape {
    fn look(oid: pg_sys::Oid, table: &Table, column: &Column) -> Self {
        Shape {
            triggers: triggers(oid),
            key: table.is_key(column.number),
        }
    }
}

impl Prepared {
    /// Looks at the leaf and prepares its statements. Must be called within an SPI connection.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`], and PostgreSQL's own for SQL that does not fit the leaf.
    pub fn look(plan: &Plan<'_>, oid: pg_sys::Oid, table: &Table) -> Result<Self, Error> {
        let name = leaf_name(table);
        let column = find_column(plan, oid, table, &name)?;
        let shape = Shape::look(oid, table, &column);
        Ok(Prepared {
            file_node: table.file_node(),
            statements: prepare(plan, &name, shape),
            growth: Growth {
                bytes: plan.filling.bytes(plan.target.column_type),
                align: plan.target.column_type.layout().align,
            },
            recycle: Method::for_index_cost(index_cost(oid)),
            oid,
            name,
            column,
            shape,
        })
    }

    /// What a batch needs to know, for as long as `table` is open.
    pub fn ground<'g>(&'g self, plan: &'g Plan<'_>, table: &'g Table) -> Ground<'g> {
        Ground {
            table,
            oid: self.oid,
            column: &self.column,
            growth: self.growth,
            key: self.shape.key,
            statements: &self.statements,
            filling: plan.filling,
        }
    }

    /// The method for the next window; an index or a trigger may have been made since the last.
    pub fn method_now(&mut self, plan: &Plan<'_>, table: &Table) -> Method {
        let shape = Shape::look(self.oid, table, &self.column);
        if shape != self.shape {
            self.shape = shape;
            self.statements = prepare(plan, &self.name, shape);
        }
        if table.blocks() >= WORTH_RECYCLING && table.allows_hot(self.column.number) {
            self.recycle
        } else {
            Method::OnePass
        }
    }

    /// Fails if the column was dropped, renamed or given another type. Prepares the statements anew if the table was
    /// renamed or moved: names lead to the statements' table, and another one may bear the old name by now.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`].
    pub fn follow(&mut self, plan: &Plan<'_>, table: &Table) -> Result<(), Error> {
        self.require_same_column(plan, table)?;
        let name = leaf_name(table);
        if name != self.name {
            self.statements = prepare(plan, &name, self.shape);
            self.name = name;
        }
        Ok(())
    }

    fn require_same_column(&self, plan: &Plan<'_>, table: &Table) -> Result<(), Error> {
        let changed = |change| Error::ColumnChanged {
            table: self.name.name.clone(),
            column: plan.target.column.clone(),
            change,
        };
        match table.column(self.column.number) {
            None => Err(changed("dropped")),
            Some(now) if now.name != self.column.name => Err(changed("renamed")),
            Some(now) if now != self.column => Err(changed("changed")),
            Some(_) => Ok(()),
        }
    }
}

fn prepare(plan: &Plan<'_>, name: &LeafName, shape: Shape) -> LeafStatements {
    LeafStatements::prepare(name, plan.target, plan.filling, shape.triggers, shape.key)
}

fn leaf_name(table: &Table) -> LeafName {
    let (schema, name) = table.name();
    LeafName { schema, name }
}

fn find_column(
    plan: &Plan<'_>,
    oid: pg_sys::Oid,
    table: &Table,
    name: &LeafName,
) -> Result<Column, Error> {
    const NUMBER: &str = "
        SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = $2::name AND NOT attisdropped";
    let number: Option<i16> = spi::catalog(
        NUMBER,
        &[argument(oid), argument(plan.target.column.as_str())],
    )
    .first()
    .and_then(|row| row.get(1));
    let column = number.and_then(|number| table.column(number));
    match column {
        Some(column) if column.column_type == plan.target.column_type => Ok(column),
        _ => Err(Error::ColumnChanged {
            table: name.name.clone(),
            column: plan.target.column.clone(),
            change: "changed",
        }),
    }
}

fn triggers(oid: pg_sys::Oid) -> Triggers {
    // Bits of tgtype: 1 for each row, 2 before, 16 on UPDATE. A trigger of the user's may write to tables with deferred
    // constraints of their own.
    const TRIGGERS: &str = "
        SELECT bool_or(NOT tgisinternal AND tgtype & 3 = 3), bool_or(NOT tgisinternal),
               bool_or(NOT tgisinternal OR tgdeferrable)
        FROM pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D' AND tgtype & 16 = 16";
    let rows = spi::catalog(TRIGGERS, &[argument(oid)]);
    let truth = |number| {
        rows.first()
            .and_then(|row| row.get(number))
            .unwrap_or(false)
    };
    Triggers {
        may_undo: truth(1),
        may_take_long: truth(2),
        may_wait_at_commit: truth(3),
    }
}

/// What a row that moves to another page costs in its indexes, in entries of a plain B-tree.
fn index_cost(oid: pg_sys::Oid) -> f64 {
    const COST: &str = "
        SELECT sum(CASE am.amname WHEN 'brin' THEN 0.1 WHEN 'gin' THEN 4 WHEN 'gist' THEN 3 WHEN 'spgist' THEN 3
                   ELSE 1 END)::float8
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
        WHERE i.indrelid = $1 AND i.indisready";
    spi::catalog(COST, &[argument(oid)])
        .first()
        .and_then(|row| row.get(1))
        .unwrap_or(0.0)
}
