//! What a backfill would do and cost.

#![expect(
    clippy::type_complexity,
    reason = "pgrx wants the columns of the result spelt out"
)]

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::pg::call::Call;
use crate::pg::transaction;
use crate::pg::tx::Tx;
use crate::plan::{self, Finding, Question};
use crate::sql::{self, BATCH_SIZE, VALUE, null, table_and_column};

const FILTER: usize = 4;
const EXPRESSION: usize = 5;

type Row = (String, String, String, Option<String>);

/// `safe_backfill_plan` without a value, with one given as an untyped literal or as text, or with an expression.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_plan(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.text DEFAULT NULL,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL,
    expression pg_catalog.text DEFAULT NULL)
RETURNS TABLE (topic pg_catalog.text, verdict pg_catalog.text, finding pg_catalog.text, advice pg_catalog.text)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 COST 1000000 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_plan_text(
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<
    TableIterator<
        'static,
        (
            name!(topic, String),
            name!(verdict, String),
            name!(finding, String),
            name!(advice, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let call = Call::new(fcinfo, "safe_backfill_plan");
    if call.argument(VALUE).is_some() && call.argument(EXPRESSION).is_some() {
        return Err(Error::ValueAndExpression.into());
    }
    answer(call, |call, tx, target, filter| {
        match call.argument(EXPRESSION) {
            Some(expression) => {
                let expression = expression.get().unwrap_or_default();
                Value::of_expression(tx, expression, filter).map(Some)
            }
            None => given(call, tx, target, filter, sql::text_value),
        }
    })
}

/// `safe_backfill_plan` with a value of any type.
#[pg_extern(sql = r#"
CREATE FUNCTION @extschema@.safe_backfill_plan(
    table_name pg_catalog.regclass, column_name pg_catalog.name, value pg_catalog.anyelement,
    batch_size pg_catalog.int4 DEFAULT 10000, filter pg_catalog.text DEFAULT NULL)
RETURNS TABLE (topic pg_catalog.text, verdict pg_catalog.text, finding pg_catalog.text, advice pg_catalog.text)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 COST 1000000 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn safe_backfill_plan_value(
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<
    TableIterator<
        'static,
        (
            name!(topic, String),
            name!(verdict, String),
            name!(finding, String),
            name!(advice, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let call = Call::new(fcinfo, "safe_backfill_plan");
    answer(call, |call, tx, target, filter| {
        given(call, tx, target, filter, sql::any_value)
    })
}

/// A value, if there is one.
fn given(
    call: Call,
    tx: &Tx,
    target: &Target,
    filter: Option<String>,
    read: impl Fn(Call, &Tx, &Target, Option<String>) -> Result<Value, Error>,
) -> Result<Option<Value>, Error> {
    match (call.argument(VALUE), filter) {
        (Some(_), filter) => read(call, tx, target, filter).map(Some),
        // Without a value, the filter is tried all the same.
        (None, Some(filter)) => Value::unknown(tx, filter).map(Some),
        (None, None) => Ok(None),
    }
}

fn answer(
    call: Call,
    value: impl Fn(Call, &Tx, &Target, Option<String>) -> Result<Option<Value>, Error>,
) -> Result<TableIterator<'static, Row>, ErrorReport> {
    let (table, column) = table_and_column(call)?;
    let batch_size = call.get(BATCH_SIZE).ok_or(null("batch_size"))?;
    let findings = transaction::within_statement(|tx| {
        let value = |tx: &Tx, target: &Target| value(call, tx, target, call.get(FILTER));
        plan::plan(
            tx,
            &Question {
                table,
                column: &column,
                batch_size,
                value: &value,
            },
        )
    })?;
    Ok(TableIterator::new(findings.into_iter().map(row)))
}

fn row(finding: Finding) -> Row {
    (
        finding.topic.into(),
        finding.verdict.name().into(),
        finding.finding,
        finding.advice,
    )
}
