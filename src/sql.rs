//! Every SQL-callable name, a few lines each: check, build, call.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::backfill::{self, Request};
use crate::error::Error;
use crate::filling::Filling;
use crate::pg::call::Call;
use crate::pg::transaction::commit_after;
use crate::pg::value::Constant;
use crate::target::Target;

/// `safe_backfill` with a value given as an untyped literal or as text: read as the column's type reads literals.
#[pg_extern(sql = r#"
CREATE PROCEDURE safe_backfill(table_name regclass, column_name name, value text,
                               batch_size integer DEFAULT 10000, filter text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_text(
    table_name: Option<pg_sys::Oid>,
    column_name: Option<&core::ffi::CStr>,
    value: Option<&str>,
    batch_size: Option<i32>,
    filter: Option<String>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill");
    let arguments = Arguments::new(call, table_name, column_name, batch_size)?;
    arguments.run(|target| {
        let value = value.ok_or(NULL_VALUE)?;
        let constant = Constant::from_text(value, target.column_type).ok_or(NULL_VALUE)?;
        Filling::constant(constant, filter, target)
    })
}

/// `safe_backfill` with a value of any type: converted as an INSERT into the column would.
#[pg_extern(sql = r#"
CREATE PROCEDURE safe_backfill(table_name regclass, column_name name, value anyelement,
                               batch_size integer DEFAULT 10000, filter text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_value(
    table_name: Option<pg_sys::Oid>,
    column_name: Option<&core::ffi::CStr>,
    _value: Option<pgrx::AnyElement>,
    batch_size: Option<i32>,
    filter: Option<String>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    const VALUE: usize = 2;
    let call = Call::new(fcinfo, "safe_backfill");
    let arguments = Arguments::new(call, table_name, column_name, batch_size)?;
    arguments.run(|target| {
        let (datum, from) = call.argument(VALUE).ok_or(NULL_VALUE)?;
        let constant = Constant::from_value(datum, from, target.column_type)
            .map_err(|no_cast| target.value_type(no_cast.from))?;
        Filling::constant(constant.ok_or(NULL_VALUE)?, filter, target)
    })
}

/// `safe_backfill_using`: a value computed for each row.
#[pg_extern(sql = r#"
CREATE PROCEDURE safe_backfill_using(table_name regclass, column_name name, expression text,
                                     batch_size integer DEFAULT 10000, filter text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_using(
    table_name: Option<pg_sys::Oid>,
    column_name: Option<&core::ffi::CStr>,
    expression: Option<String>,
    batch_size: Option<i32>,
    filter: Option<String>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let call = Call::new(fcinfo, "safe_backfill_using");
    let arguments = Arguments::new(call, table_name, column_name, batch_size)?;
    arguments.run(|_| {
        let argument = "expression";
        let expression = expression.ok_or(Error::NullArgument { argument })?;
        Filling::expression(expression, filter)
    })
}

const NULL_VALUE: Error = Error::NullArgument { argument: "value" };

/// What every form of the procedure is given.
struct Arguments {
    table: pg_sys::Oid,
    column: String,
    batch_size: i32,
}

impl Arguments {
    fn new(
        call: Call,
        table: Option<pg_sys::Oid>,
        column: Option<&core::ffi::CStr>,
        batch_size: Option<i32>,
    ) -> Result<Self, Error> {
        call.require_commit()?;
        let null = |argument| Error::NullArgument { argument };
        Ok(Arguments {
            table: table.ok_or(null("table_name"))?,
            column: column
                .ok_or(null("column_name"))?
                .to_string_lossy()
                .into_owned(),
            batch_size: batch_size.ok_or(null("batch_size"))?,
        })
    }

    /// Proves the target, builds the filling, takes the lock; then runs.
    fn run(
        &self,
        filling: impl FnOnce(&Target) -> Result<Filling, Error>,
    ) -> Result<(), ErrorReport> {
        let (request, _lock) = commit_after(|| {
            let target = Target::prove(self.table, &self.column)?;
            let filling = filling(&target)?;
            let request = Request::new(target, filling, self.batch_size)?;
            let lock = backfill::lock(&request.target)?;
            Ok((request, lock))
        })?;
        Ok(backfill::run(&request)?)
    }
}
