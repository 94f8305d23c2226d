//! Every SQL-callable name, a few lines each: check, build, call.

mod plan;
mod start;
mod steering;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::add_column;
use crate::catalog::relation::Relation;
use crate::ddl;
use crate::error::Error;
use crate::fill::request::{Options, Request};
use crate::fill::run;
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::job::column_lock;
use crate::job::method::Method;
use crate::not_null;
use crate::pg::call::Call;
use crate::pg::tx::Tx;
use crate::pg::value::{ColumnType, Constant, Given, NoCast};
use crate::run::driver::Driver;

/// `safe_backfill` with a value given as an untyped literal or as text: read as the column's type reads literals.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_backfill(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_text(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill");
    fill(call, OF_CONSTANT, text_value)
}

/// `safe_backfill` with a value of any type: converted as an INSERT into the column would.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_backfill(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_value(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill");
    fill(call, OF_CONSTANT, any_value)
}

/// `safe_backfill_using`: a value computed for each row.
#[pg_extern(sql = r#"
CREATE PROCEDURE @extschema@.safe_backfill_using(
    table_name pg_catalog.regclass, column_name pg_catalog.name, expression pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL,
    workers pg_catalog.int4 DEFAULT 1)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_using(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill_using");
    fill(call, OF_EXPRESSION, expression)
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
    add(call, |tx, column_type| {
        let text: Option<String> = call.get(DEFAULT_VALUE);
        Ok(text.and_then(|text| Constant::from_text(tx, &text, column_type)))
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
    add(call, |tx, column_type| match call.argument(DEFAULT_VALUE) {
        Some(given) => assign(tx, given, &column, column_type),
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
    let driver = Driver::of_call(&call)?;
    let (request, _lock) = driver.transaction(|tx| {
        let (table, column) = table_and_column(call)?;
        let request = not_null::Request::prove(tx, table, &column)?;
        let (number, table_name) = (request.number, &request.table_name);
        let lock = column_lock::acquire(tx, table, number, table_name, &column)?;
        Ok::<_, Error>((request, lock))
    })?;
    Ok(not_null::run(&driver, &request)?)
}

// Argument positions: of every procedure, of a backfill, of safe_add_column.
const TABLE_NAME: usize = 0;
const COLUMN_NAME: usize = 1;
const VALUE: usize = 2;
const BATCH_SIZE: usize = 3;
const COLUMN_TYPE: usize = 2;
const DEFAULT_VALUE: usize = 3;

/// Where the further arguments of a backfill are.
#[derive(Clone, Copy)]
struct Positions {
    method: Option<usize>,
    filter: usize,
    workers: usize,
}

/// Of a backfill with one value.
const OF_CONSTANT: Positions = Positions {
    method: Some(4),
    filter: 5,
    workers: 6,
};

/// Of a backfill with an expression.
const OF_EXPRESSION: Positions = Positions {
    method: None,
    filter: 4,
    workers: 5,
};

const NULL_VALUE: Error = null("value");

const fn null(argument: &'static str) -> Error {
    Error::NullArgument { argument }
}

fn table_and_column(call: Call) -> Result<(pg_sys::Oid, String), Error> {
    let table = call.get(TABLE_NAME).ok_or(null("table_name"))?;
    let column = call.name(COLUMN_NAME).ok_or(null("column_name"))?;
    Ok((table, column))
}

fn options(call: Call, positions: Positions) -> Result<Options, Error> {
    Ok(Options {
        batch_size: call.get(BATCH_SIZE).ok_or(null("batch_size"))?,
        method: match positions.method {
            Some(position) => method(call.get(position).ok_or(null("method"))?)?,
            None => Method::Batch,
        },
        workers: call.get(positions.workers).ok_or(null("workers"))?,
    })
}

fn method(given: String) -> Result<Method, Error> {
    Method::named(&given).ok_or(Error::Method { given })
}

/// A value given as an untyped literal or as text.
fn text_value(
    call: Call,
    tx: &Tx,
    target: &Target,
    filter: Option<String>,
) -> Result<Value, Error> {
    let value: String = call.get(VALUE).ok_or(NULL_VALUE)?;
    let constant = Constant::from_text(tx, &value, target.column_type).ok_or(NULL_VALUE)?;
    Value::of_constant(tx, constant, filter, target)
}

/// A value of any type.
fn any_value(call: Call, tx: &Tx, target: &Target, filter: Option<String>) -> Result<Value, Error> {
    let given = call.argument(VALUE).ok_or(NULL_VALUE)?;
    let constant = assign(tx, given, &target.column, target.column_type)?;
    Value::of_constant(tx, constant.ok_or(NULL_VALUE)?, filter, target)
}

/// An expression over the row.
fn expression(
    call: Call,
    tx: &Tx,
    _target: &Target,
    filter: Option<String>,
) -> Result<Value, Error> {
    let expression = call.get(VALUE).ok_or(null("expression"))?;
    Value::of_expression(tx, expression, filter)
}

/// Converts a value as an INSERT into the column would; `None` if that makes NULL of it.
fn assign(
    tx: &Tx,
    given: Given,
    column: &str,
    column_type: ColumnType,
) -> Result<Option<Constant>, Error> {
    Constant::from_value(tx, given, column_type).map_err(|NoCast { from }| Error::ValueType {
        column: column.into(),
        column_type: column_type.name(tx),
        value_type: from.name(tx),
    })
}

/// Proves table, type and default before anything is touched; then adds the column.
fn add(
    call: Call,
    default: impl FnOnce(&Tx, ColumnType) -> Result<Option<Constant>, Error>,
) -> Result<(), ErrorReport> {
    let driver = Driver::of_call(&call)?;
    let request = driver.transaction(|tx| {
        let (table, column) = table_and_column(call)?;
        let type_text: String = call.get(COLUMN_TYPE).ok_or(null("column_type"))?;
        add_column::Request::prove(tx, table, column, &type_text, default)
    })?;
    Ok(add_column::run(&driver, &request)?)
}

/// Proves the target, reads the value and takes the lock, all before anything is touched; then fills.
fn fill(
    call: Call,
    positions: Positions,
    value: impl Fn(Call, &Tx, &Target, Option<String>) -> Result<Value, Error>,
) -> Result<(), ErrorReport> {
    let driver = Driver::of_call(&call)?;
    let (table, column) = table_and_column(call)?;
    let table_name = driver.transaction(|tx| Ok::<_, Error>(Relation::look_up(tx, table)?.name))?;
    let (request, _lock) = ddl::read(&driver, &table_name, table, |tx| {
        let options = options(call, positions)?;
        let target = Target::prove(tx, table, &column)?;
        let value = value(call, tx, &target, call.get(positions.filter))?;
        let request = Request::new(tx, target, value, options)?;
        let target = &request.target;
        let lock =
            column_lock::acquire(tx, target.table, target.number, &target.table_name, &column)?;
        Ok((request, lock))
    })?;
    Ok(run::run(&driver, &request, None)?)
}
