//! What is known of a leaf table as long as it keeps its file, its name, its column and its hazards.

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::page::Growth;
use planner::window::Sweep;

use crate::catalog::attribute::Attribute;
use crate::error::{Change, Error};
use crate::fill::context::Run;
use crate::fill::request::Request;
use crate::fill::statements::{Busy, Hazards, LeafName, LeafStatements};
use crate::fill::survey::Survey;
use crate::pg::heap::{Column, Table};
use crate::pg::ring::Ring;
use crate::pg::tx::Tx;

/// Tables with fewer blocks gain nothing from recycling pages, and a single pass needs fewer batches.
pub const WORTH_RECYCLING: u32 = 32;

/// For how long a slow statement makes the next ones careful. The cause may have been a busy disk, which is over soon.
const CAREFUL: Duration = Duration::from_secs(10);

/// A leaf table, looked up, and its statements.
pub struct LeafTable {
    /// The file that it is stored in.
    pub file_node: pg_sys::Oid,
    /// The name that the statements were prepared against.
    pub name: LeafName,
    /// The column to be filled.
    pub column: Column,
    statements: LeafStatements,
    growth: Growth,
    hazards: Hazards,
    /// Until then, statements must not wait for a row while they hold others, since one statement was slow.
    careful_until: Option<Instant>,
}

/// What a transaction needs to know of the leaf table it works on.
pub struct LeafContext<'a> {
    /// The transaction.
    pub tx: &'a Tx,
    /// The table, open and locked for UPDATE.
    pub table: &'a Table<'a>,
    /// The buffers that its pages are read with.
    pub ring: &'a Ring,
    /// What is counted on pages that rows are chosen from.
    pub survey: &'a Survey,
    /// The column to be filled.
    pub column: &'a Column,
    /// By how much a row grows.
    pub growth: Growth,
    /// An update of the column needs the row's key lock.
    pub key: bool,
    /// How statements of several rows treat those that others hold.
    pub busy: Busy,
    /// The statements for it.
    pub statements: &'a LeafStatements,
}

impl LeafTable {
    /// Looks the leaf up and prepares its statements.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`], [`Error::AccessMethod`], and PostgreSQL's own for SQL that does not fit the leaf.
    pub fn look_up(tx: &Tx, request: &Request, table: &Table<'_>) -> Result<Self, Error> {
        let name = leaf_name(table);
        require_heap(table, &name)?;
        let column = find_column(tx, request, table, &name)?;
        let hazards = hazards(tx, table, &column);
        let (target, value) = (&request.target, &request.value);
        Ok(LeafTable {
            file_node: table.file_node(),
            statements: LeafStatements::prepare(tx, &name, target, value, hazards),
            growth: Growth {
                bytes: value.bytes(tx, target.column_type),
                align: target.column_type.layout(tx).align,
            },
            name,
            column,
            hazards,
            careful_until: None,
        })
    }

    /// What a transaction needs to know.
    pub fn context<'c>(
        &'c self,
        tx: &'c Tx,
        table: &'c Table<'c>,
        ring: &'c Ring,
        survey: &'c Survey,
    ) -> LeafContext<'c> {
        let slow = self.careful_until.is_some_and(|end| Instant::now() < end);
        let careful = slow || self.statements.may_take_long();
        LeafContext {
            tx,
            table,
            ring,
            survey,
            column: &self.column,
            growth: self.growth,
            key: self.hazards.key,
            busy: if careful {
                Busy::Skipped
            } else {
                Busy::Awaited
            },
            statements: &self.statements,
        }
    }

    /// Tells that a statement took long, for whatever reason: the next ones may, too.
    pub fn was_slow(&mut self) {
        self.careful_until = Some(Instant::now() + CAREFUL);
    }

    /// How to sweep the next window, and the hazards now: an index, a trigger or a constraint may have been made since the
    /// last. Locks the table's indexes for a moment.
    pub fn sweep_now(&self, tx: &Tx, table: &Table<'_>) -> (Sweep, Hazards) {
        let hazards = hazards(tx, table, &self.column);
        let sweep = if table.blocks() >= WORTH_RECYCLING && table.allows_hot(self.column.number) {
            Sweep::Recycle
        } else {
            Sweep::OnePass
        };
        (sweep, hazards)
    }

    /// Whether the statements were prepared for these hazards.
    pub fn is_for(&self, hazards: Hazards) -> bool {
        self.hazards == hazards
    }

    /// Fails if the column was dropped, renamed or given another type, or row-level security switched on. `false` if
    /// the table was renamed or moved to another schema: the statements name it, and the old name may belong to another
    /// table now.
    ///
    /// # Errors
    /// [`Error::ColumnChanged`], [`Error::RowSecurity`].
    pub fn follow(&mut self, tx: &Tx, run: &Run<'_>, table: &Table<'_>) -> Result<bool, Error> {
        self.column = self.same_column(run.request, table)?;
        if table.has_row_security() {
            require_no_row_security(tx, table)?;
        }
        Ok(leaf_name(table) == self.name)
    }

    /// Takes over what was looked up again, except the file: the blocks that are done belong to the old one.
    pub fn renew(&mut self, table: LeafTable) {
        *self = LeafTable {
            file_node: self.file_node,
            careful_until: self.careful_until,
            ..table
        };
    }

    /// The column as it is now: whether older rows read as its first default may have changed.
    fn same_column(&self, request: &Request, table: &Table<'_>) -> Result<Column, Error> {
        let changed = |change| Error::ColumnChanged {
            table: self.name.name.clone(),
            column: request.target.column.clone(),
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

fn leaf_name(table: &Table<'_>) -> LeafName {
    let (schema, name) = table.name();
    let oid = table.oid();
    LeafName { oid, schema, name }
}

/// Policies would hide rows, and the run would consider the table done.
fn require_no_row_security(tx: &Tx, table: &Table<'_>) -> Result<(), Error> {
    match tx.catalog_value("SELECT row_security_active($1)", &[&table.oid()]) {
        Some(false) => Ok(()),
        _ => Err(Error::RowSecurity {
            table: table.name().1,
        }),
    }
}

/// Other access methods may have another page format, and a table's access method can be changed at any time.
fn require_heap(table: &Table<'_>, name: &LeafName) -> Result<(), Error> {
    match table.other_access_method() {
        None => Ok(()),
        Some(method) => Err(Error::AccessMethod {
            name: name.name.clone(),
            method,
        }),
    }
}

fn find_column(
    tx: &Tx,
    request: &Request,
    table: &Table<'_>,
    name: &LeafName,
) -> Result<Column, Error> {
    let target = &request.target;
    let attributes = Attribute::find_all(tx, &[name.oid, target.table], &target.column);
    // The lock and the job belong to the column with this number.
    let named = attributes.get(&target.table);
    let is_replaced = named.is_some_and(|named| named.number != target.number);
    let attribute = attributes.get(&name.oid).filter(|_| named.is_some());
    let column = attribute.and_then(|attribute| table.column(attribute.number));
    let change = match column {
        _ if is_replaced => Change::Replaced,
        Some(column) if column.column_type == target.column_type => return Ok(column),
        _ => Change::Altered,
    };
    Err(Error::ColumnChanged {
        table: name.name.clone(),
        column: target.column.clone(),
        change,
    })
}

fn hazards(tx: &Tx, table: &Table<'_>, column: &Column) -> Hazards {
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
    let rows = tx.catalog(HAZARDS, &[&table.oid()]);
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
