//! Backfills that run in the background.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::background;
use crate::error::Error;
use crate::fill::request::Request;
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::pg::call::Call;
use crate::pg::transaction;
use crate::pg::tx::Tx;
use crate::run::driver::require_writable;
use crate::sql::{self, OF_CONSTANT, OF_EXPRESSION, Positions, options, table_and_column};

/// `safe_backfill_start` with a value given as an untyped literal or as text: read as the column's type reads literals.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_start(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1) RETURNS pg_catalog.int8
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_start_text(fcinfo: pg_sys::FunctionCallInfo) -> Result<i64, ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill_start");
    start(call, OF_CONSTANT, sql::text_value)
}

/// `safe_backfill_start` with a value of any type: converted as an INSERT into the column would.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_start(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, method pg_catalog.text DEFAULT 'batch',
    filter pg_catalog.text DEFAULT NULL, workers pg_catalog.int4 DEFAULT 1) RETURNS pg_catalog.int8
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_start_value(fcinfo: pg_sys::FunctionCallInfo) -> Result<i64, ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill_start");
    start(call, OF_CONSTANT, sql::any_value)
}

/// `safe_backfill_start_using`: a value computed for each row.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_start_using(
    table_name pg_catalog.regclass, column_name pg_catalog.name, expression pg_catalog.text,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL,
    workers pg_catalog.int4 DEFAULT 1) RETURNS pg_catalog.int8
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_start_using(fcinfo: pg_sys::FunctionCallInfo) -> Result<i64, ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill_start_using");
    start(call, OF_EXPRESSION, sql::expression)
}

/// Proves everything as the CALL does, so that mistakes are errors here and not in the background.
fn start(
    call: Call,
    positions: Positions,
    value: impl Fn(Call, &Tx, &Target, Option<String>) -> Result<Value, Error>,
) -> Result<i64, ErrorReport> {
    require_writable(call.procedure)?;
    let (table, column) = table_and_column(call)?;
    Ok(transaction::within_statement(|tx| {
        let options = options(call, positions)?;
        let target = Target::prove(tx, table, &column)?;
        let value = value(call, tx, &target, call.get(positions.filter))?;
        background::start(tx, &Request::new(tx, target, value, options)?)
    })?)
}
