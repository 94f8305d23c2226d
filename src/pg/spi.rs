//! SQL run by the extension itself, through the Server Programming Interface.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;

use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::pg_sys;
use planner::window::Tid;

use crate::pg::parameter::{Bindings, Parameter, require_type};
use crate::pg::settings::Temporarily;
use crate::pg::snapshot;
use crate::pg::tid;
use crate::pg::tx::Tx;

/// A connection to SPI; what is allocated within is freed when it closes.
pub struct Connection(());

impl Connection {
    /// Opens a connection within a transaction that somebody else ends.
    pub fn open_atomic() -> Self {
        // SAFETY: balanced by `drop`, or by PostgreSQL's own clean-up after an error.
        unsafe { pg_sys::SPI_connect() };
        Connection(())
    }

    /// Opens a connection that may commit.
    pub fn open_nonatomic() -> Self {
        // SAFETY: balanced by `drop`, or by PostgreSQL's own clean-up after an error.
        unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32) };
        Connection(())
    }

    /// Commits and begins the next transaction.
    pub fn commit(&self) {
        // SAFETY: the connection is non-atomic and innermost, and the callers hold nothing that ends with a
        // transaction.
        unsafe { pg_sys::SPI_commit() };
    }

    /// Undoes the transaction and begins the next.
    pub fn roll_back(&self) {
        // SAFETY: as for `commit`.
        unsafe { pg_sys::SPI_rollback() };
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: balances SPI_connect_ext; after an error PostgreSQL does it.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// A prepared statement that outlives transactions and is planned once, without looking at its arguments.
///
/// A plan for the actual arguments, which may be ten thousand row addresses, could be a scan of the whole table.
pub struct Statement {
    plan: pg_sys::SPIPlanPtr,
    /// The types of its parameters.
    types: Vec<pg_sys::Oid>,
}

impl Statement {
    /// Prepares `sql` with parameters of these types.
    pub fn prepare(_tx: &Tx, sql: &str, types: &[pg_sys::Oid]) -> Self {
        snapshot::ensure();
        let sql = to_c(sql);
        let mut types = types.to_vec();
        // SAFETY: string and array outlive the call, which copies them; the plan is moved out of the connection's
        // memory so that it may outlive it.
        unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if plan.is_null() {
                pgrx::error!("could not prepare statement: {}", last_result());
            }
            pg_sys::SPI_keepplan(plan);
            Statement { plan, types }
        }
    }

    /// Runs the statement with these parameters, of the types that it was prepared with.
    pub fn execute<'tx>(&self, tx: &'tx Tx, parameters: &[&dyn Parameter]) -> Rows<'tx> {
        let mut bindings = Bindings::of(parameters);
        if bindings.types != self.types {
            pgrx::error!("parameters do not match the prepared statement");
        }
        snapshot::ensure();
        // SAFETY: the plan is valid and was prepared with parameters of these types.
        let status = unsafe {
            pg_sys::SPI_execute_plan(
                self.plan,
                bindings.values.as_mut_ptr(),
                bindings.nulls.as_ptr(),
                false,
                0,
            )
        };
        Rows::take(tx, status)
    }

    /// Whether the statement calls any volatile function.
    pub fn is_volatile(&self) -> bool {
        // SAFETY: the source is valid, and its query list belongs to it.
        unsafe {
            let queries = (*self.source()).query_list;
            pg_sys::contain_volatile_functions(
                (*(*queries).elements).ptr_value as *mut pg_sys::Node,
            )
        }
    }

    /// Whether the statement reads `table` alone and calls nothing but PostgreSQL's own functions.
    ///
    /// The plan cache keeps a list of everything else, so that it notices changes.
    pub fn is_plain(&self, table: pg_sys::Oid) -> bool {
        // SAFETY: the source is valid, and its lists belong to it; null is an empty list.
        unsafe {
            let source = self.source();
            let relations = (*source).relationOids;
            let others = !relations.is_null() && {
                let length = (*relations).length as usize;
                let cells = std::slice::from_raw_parts((*relations).elements, length);
                cells.iter().any(|cell| cell.oid_value != table)
            };
            (*source).invalItems.is_null() && !others
        }
    }

    fn source(&self) -> *const pg_sys::CachedPlanSource {
        // SAFETY: the plan is valid, and was prepared from one statement.
        unsafe {
            let sources = pg_sys::SPI_plan_get_plan_sources(self.plan);
            (*(*sources).elements).ptr_value.cast_const().cast()
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A plan may be in use until PostgreSQL has cleaned up after the error.
            ORPHANS.with_borrow_mut(|orphans| orphans.push(self.plan));
        } else {
            // SAFETY: the plan was kept by `prepare` and is freed once.
            unsafe { pg_sys::SPI_freeplan(self.plan) };
        }
    }
}

thread_local! {
    /// Plans of statements that an error has ended, to be freed once the error is handled.
    static ORPHANS: RefCell<Vec<pg_sys::SPIPlanPtr>> = const { RefCell::new(vec![]) };
}

/// Frees the plans that earlier calls in this session left behind because of errors. Must not be called while an error
/// is handled.
pub fn free_orphans() {
    for plan in ORPHANS.take() {
        // SAFETY: the plan was kept by `prepare`, and its statement is gone without having freed it.
        unsafe { pg_sys::SPI_freeplan(plan) };
    }
}

/// What a statement returned, valid as long as its transaction.
pub struct Rows<'tx> {
    table: *mut pg_sys::SPITupleTable,
    processed: u64,
    _tx: PhantomData<&'tx Tx>,
}

impl<'tx> Rows<'tx> {
    fn take(_tx: &'tx Tx, status: i32) -> Self {
        if status < 0 {
            pgrx::error!("could not execute statement: {}", last_result());
        }
        // SAFETY: both are set by the call that has just returned.
        unsafe {
            Rows {
                table: pg_sys::SPI_tuptable,
                processed: pg_sys::SPI_processed,
                _tx: PhantomData,
            }
        }
    }

    /// How many rows the statement inserted, updated, deleted or returned.
    pub fn processed(&self) -> u64 {
        self.processed
    }

    /// The rows that the statement returned.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let returned = if self.table.is_null() {
            0
        } else {
            self.processed
        };
        (0..returned).map(|index| Row {
            rows: self,
            index: index as usize,
        })
    }

    /// The first row that the statement returned.
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if !self.table.is_null() && !std::thread::panicking() {
            // SAFETY: the table was made by this connection and is freed once.
            unsafe { pg_sys::SPI_freetuptable(self.table) };
        }
    }
}

/// One row of a result.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    rows: &'a Rows<'a>,
    index: usize,
}

impl Row<'_> {
    /// Column `number` (from 1) as `T`, which must be its type; `None` for NULL.
    pub fn get<T: FromDatum + IntoDatum>(&self, number: i32) -> Option<T> {
        require_type::<T>(self.type_of(number));
        let (datum, null) = self.datum(number);
        // SAFETY: the column has that type, or one with the same values.
        unsafe { T::from_datum(datum, null) }
    }

    /// Whether column `number` (from 1) is a boolean.
    pub fn is_boolean(&self, number: i32) -> bool {
        self.type_of(number) == pg_sys::BOOLOID
    }

    /// Column `number` (from 1), a `tid`.
    pub fn tid(&self, number: i32) -> Option<Tid> {
        let (datum, null) = self.datum(number);
        if null || self.type_of(number) != pg_sys::TIDOID {
            return None;
        }
        // SAFETY: a tid that is not null points to six bytes of the result.
        let item = unsafe {
            datum
                .cast_mut_ptr::<pg_sys::ItemPointerData>()
                .read_unaligned()
        };
        Some(tid::from_item_pointer(item))
    }

    fn type_of(&self, number: i32) -> pg_sys::Oid {
        // SAFETY: the descriptor belongs to a live result; SPI reports a wrong column number as no type.
        unsafe { pg_sys::SPI_gettypeid((*self.rows.table).tupdesc, number) }
    }

    fn datum(&self, number: i32) -> (pg_sys::Datum, bool) {
        let mut null = true;
        // SAFETY: the index is below the number of rows of a live result; SPI reports a wrong column number as NULL.
        let datum = unsafe {
            let table = &*self.rows.table;
            let tuple = *table.vals.add(self.index);
            pg_sys::SPI_getbinval(tuple, table.tupdesc, number, &mut null)
        };
        (datum, null)
    }
}

impl Tx {
    /// Runs `sql` once.
    pub fn execute(&self, sql: &str, parameters: &[&dyn Parameter]) -> Rows<'_> {
        snapshot::ensure();
        let sql = to_c(sql);
        let mut bindings = Bindings::of(parameters);
        // SAFETY: all arrays have the same length and outlive the call.
        let status = unsafe {
            pg_sys::SPI_execute_with_args(
                sql.as_ptr(),
                bindings.types.len() as i32,
                bindings.types.as_mut_ptr(),
                bindings.values.as_mut_ptr(),
                bindings.nulls.as_ptr(),
                false,
                0,
            )
        };
        Rows::take(self, status)
    }

    /// Runs `sql` once, with only PostgreSQL's own functions and operators in sight, whatever the caller's search path is.
    pub fn catalog(&self, sql: &str, parameters: &[&dyn Parameter]) -> Rows<'_> {
        let _path = Temporarily::catalog_only(self);
        self.execute(sql, parameters)
    }

    /// Like [`Tx::catalog`], but returns only the first column of the first row.
    pub fn catalog_value<T: FromDatum + IntoDatum>(
        &self,
        sql: &str,
        parameters: &[&dyn Parameter],
    ) -> Option<T> {
        self.catalog(sql, parameters).first()?.get(1)
    }
}

/// A name, quoted where SQL needs it to be.
pub fn quote(name: &str) -> String {
    let name = to_c(name);
    // SAFETY: the argument is NUL-terminated, and so is the result.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) }
        .to_string_lossy()
        .into_owned()
}

/// A text as an SQL literal.
pub fn quote_literal(text: &str) -> String {
    let text = to_c(text);
    // SAFETY: the argument is NUL-terminated, and so is the result.
    unsafe { CStr::from_ptr(pg_sys::quote_literal_cstr(text.as_ptr())) }
        .to_string_lossy()
        .into_owned()
}

fn last_result() -> String {
    // SAFETY: SPI_result_code_string returns a NUL-terminated string.
    unsafe { CStr::from_ptr(pg_sys::SPI_result_code_string(pg_sys::SPI_result)) }
        .to_string_lossy()
        .into_owned()
}

fn to_c(text: &str) -> CString {
    // Text from PostgreSQL has no NUL byte.
    CString::new(text).unwrap_or_default()
}
