//! Every SQL-callable name, a few lines each: check, build, call.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::add_column;
use crate::backfill::{self, Request};
use crate::ddl;
use crate::error::Error;
use crate::filling::Filling;
use crate::job::lock_column;
use crate::not_null;
use crate::pg::call::Call;
use crate::pg::transaction::commit_after;
use crate::pg::value::{ColumnType, Constant};
use crate::relation::Relation;
use crate::target::Target;

/// `safe_backfill` with a value given as an untyped literal or as text: read as the column's type reads literals.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_backfill(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_text(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill");
    run(call, |target, filter| {
        let value: String = call.get(WHAT).ok_or(NULL_VALUE)?;
        let constant = Constant::from_text(&value, target.column_type).ok_or(NULL_VALUE)?;
        Filling::constant(constant, filter, target)
    })
}

/// `safe_backfill` with a value of any type: converted as an INSERT into the column would.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_backfill(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_value(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill");
    run(call, |target, filter| {
        let (datum, from) = call.argument(WHAT).ok_or(NULL_VALUE)?;
        let constant = Constant::from_value(datum, from, target.column_type)
            .map_err(|no_cast| no_cast.error(&target.column, target.column_type))?;
        Filling::constant(constant.ok_or(NULL_VALUE)?, filter, target)
    })
}

/// `safe_backfill_using`: a value computed for each row.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_backfill_using(
    table_name pg_catalog.regclass, column_name pg_catalog.name, expression pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_using(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill_using");
    run(call, |_, filter| {
        let expression = call.get(WHAT).ok_or(null("expression"))?;
        Filling::expression(expression, filter)
    })
}

/// `safe_add_column` without a default, or with one that is read as the column's type reads literals.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_add_column(
    table_name pg_catalog.regclass, column_name pg_catalog.name, column_type pg_catalog.text,
    default_value pg_catalog.text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_add_column_text(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_add_column");
    add(call, |column_type| {
        let text: Option<String> = call.get(DEFAULT_VALUE);
        Ok(text.and_then(|text| Constant::from_text(&text, column_type)))
    })
}

/// `safe_add_column` with a default of any type: converted as an INSERT into the column would.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_add_column(
    table_name pg_catalog.regclass, column_name pg_catalog.name, column_type pg_catalog.text,
    default_value pg_catalog.anyelement)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_add_column_value(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_add_column");
    let column: String = call.name(COLUMN_NAME).unwrap_or_default();
    add(call, |column_type| match call.argument(DEFAULT_VALUE) {
        Some((datum, from)) => Constant::from_value(datum, from, column_type)
            .map_err(|no_cast| no_cast.error(&column, column_type)),
        None => Ok(None),
    })
}

/// `safe_set_not_null`: a NOT VALID check, its validation, SET NOT NULL.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_set_not_null(
    table_name pg_catalog.regclass, column_name pg_catalog.name)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_set_not_null(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_set_not_null");
    call.require_commit()?;
    let (request, _lock) = commit_after(|| {
        let (table, column) = table_and_column(call)?;
        let request = not_null::Request::prove(table, &column)?;
        let (table, number, table_name) = request.what();
        let lock = lock_column(table, number, table_name, &column)?;
        Ok((request, lock))
    })?;
    Ok(not_null::run(&request)?)
}

// Places of the arguments, the same in every procedure.
const TABLE_NAME: usize = 0;
const COLUMN_NAME: usize = 1;
const WHAT: usize = 2;
const BATCH_SIZE: usize = 3;
const FILTER: usize = 4;
const COLUMN_TYPE: usize = 2;
const DEFAULT_VALUE: usize = 3;

const NULL_VALUE: Error = null("value");

const fn null(argument: &'static str) -> Error {
    Error::NullArgument { argument }
}

fn table_and_column(call: Call) -> Result<(pg_sys::Oid, String), Error> {
    let table = call.get(TABLE_NAME).ok_or(null("table_name"))?;
    let column = call.name(COLUMN_NAME).ok_or(null("column_name"))?;
    Ok((table, column))
}

/// Proves table, type and default before anything is touched; then adds the column.
fn add(
    call: Call,
    default: impl FnOnce(ColumnType) -> Result<Option<Constant>, Error>,
) -> Result<(), ErrorReport> {
    call.require_commit()?;
    let request = commit_after(|| {
        let (table, column) = table_and_column(call)?;
        let type_text: String = call.get(COLUMN_TYPE).ok_or(null("column_type"))?;
        add_column::Request::prove(table, column, &type_text, default)
    })?;
    Ok(add_column::run(&request)?)
}

/// Proves the target, builds the filling and takes the lock, all before anything is touched; then runs.
fn run(
    call: Call,
    filling: impl Fn(&Target, Option<String>) -> Result<Filling, Error>,
) -> Result<(), ErrorReport> {
    call.require_commit()?;
    let (table, column) = table_and_column(call)?;
    let table_name = commit_after(|| Ok(Relation::look_up(table)?.name))?;
    let (request, _lock) = ddl::read(&table_name, table, || {
        let batch_size = call.get(BATCH_SIZE).ok_or(null("batch_size"))?;
        let target = Target::prove(table, &column)?;
        let filling = filling(&target, call.get(FILTER))?;
        let request = Request::new(target, filling, batch_size)?;
        let target = &request.target;
        let lock = lock_column(target.table, target.number, &target.table_name, &column)?;
        Ok((request, lock))
    })?;
    Ok(backfill::run(&request)?)
}
